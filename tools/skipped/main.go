// Skipped prints what "go test -json" says as "go test" would, and then which tests were skipped and why: a run
// that is green says nothing of them otherwise.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// event is one of test2json's.
type event struct{ Action, Package, Test, Output string }

func main() {
	output := map[string]map[string]string{} // of tests that have not ended, by package
	skipped := map[string][]string{}         // by reason
	for events := json.NewDecoder(os.Stdin); ; {
		var e event
		if err := events.Decode(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			fmt.Fprintln(os.Stderr, "skipped:", err)
			os.Exit(1)
		}
		tests := output[e.Package]
		switch {
		case e.Output != "" && e.Test == "":
			if e.Output != "PASS\n" {
				fmt.Print(e.Output)
			}
		case e.Output != "":
			if tests == nil {
				tests = map[string]string{}
				output[e.Package] = tests
			}
			tests[e.Test] += e.Output
		case e.Action == "fail" && e.Test == "": // what hung or panicked has no end of its own
			for _, name := range slices.Sorted(maps.Keys(tests)) {
				fmt.Print(tests[name])
			}
			delete(output, e.Package)
		case e.Action == "fail":
			fmt.Print(tests[e.Test])
			delete(tests, e.Test)
		case e.Action == "skip" && e.Test != "":
			why := reason(tests[e.Test])
			skipped[why] = append(skipped[why], path.Base(e.Package)+"."+e.Test)
			delete(tests, e.Test)
		case e.Action == "pass":
			delete(tests, e.Test)
		}
	}
	for _, why := range slices.Sorted(maps.Keys(skipped)) {
		fmt.Printf("\nskipped, for %s\n  %s\n", why, strings.Join(skipped[why], "\n  "))
	}
}

// reason is what a test has said when it skipped, without the file and line.
func reason(output string) string {
	why := "no reason given"
	for line := range strings.Lines(output) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			why = line
		}
	}
	if _, text, ok := strings.Cut(why, ".go:"); ok {
		if _, text, ok = strings.Cut(text, ": "); ok {
			return text
		}
	}
	return why
}
