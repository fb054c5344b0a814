package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A result is what is known of a test with its cases, in whatever package it is.
type result struct {
	ends    []string // pass, fail or skip, of each package that has it
	cases   int      // that passed
	took    time.Duration
	figures []string
}

// results are those of tests by their names.
type results map[string]*result

// readResults reads files of "go test -json". A figure is an attribute of that name.
func readResults(files []string) (results, error) {
	all := results{}
	for _, name := range files {
		file, err := os.Open(name)
		if err == nil {
			err = errors.Join(all.read(file), file.Close())
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return all, nil
}

func (all results) read(from io.Reader) error {
	for events := json.NewDecoder(from); ; {
		var e struct {
			Action, Test, Key, Value string
			Elapsed                  float64
		}
		if err := events.Decode(&e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		name, _, isCase := strings.Cut(e.Test, "/")
		r := all[name]
		if r == nil {
			r = &result{}
			all[name] = r
		}
		switch {
		case e.Action == "attr" && e.Key == "figure":
			r.figures = append(r.figures, e.Value)
		case e.Action == "pass" && isCase:
			r.cases++
			r.took = max(r.took, seconds(e.Elapsed)) // that of the test ends where its cases begin to run at once
		case !isCase && slices.Contains([]string{"pass", "fail", "skip"}, e.Action):
			r.ends = append(r.ends, e.Action)
			r.took = max(r.took, seconds(e.Elapsed))
		}
	}
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// missing tells of the tests of the rows that were not run to their good end.
func (all results) missing() error {
	var problems []error
	for _, name := range tests() {
		if r := all[name]; r == nil || len(r.ends) == 0 {
			problems = append(problems, fmt.Errorf("%s was not run", name))
		} else if i := slices.IndexFunc(r.ends, func(end string) bool { return end != "pass" }); i >= 0 {
			problems = append(problems, fmt.Errorf("%s: %s", name, r.ends[i]))
		}
	}
	return errors.Join(problems...)
}

var longNumber = regexp.MustCompile(`\b\d{4,}\b`)

// figure is what tests have told, or that they hold.
func (all results) figure(tests []string) string {
	var told []string
	cases, took := 0, time.Duration(0)
	for _, name := range tests {
		r := all[name]
		told = append(told, r.figures...)
		cases, took = cases+r.cases, took+r.took
	}
	switch {
	case len(told) > 0:
		slices.Sort(told) // cases run at once
		return longNumber.ReplaceAllStringFunc(strings.ReplaceAll(strings.Join(told, "; "), "|", "/"), thousands)
	case cases > 1:
		return fmt.Sprintf("held in %d cases, in %v", cases, took)
	default:
		return fmt.Sprintf("held, in %v", took)
	}
}
