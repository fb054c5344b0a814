package settings

import (
	"errors"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"
	"syscall"
)

// fileVariable names the configuration file; it is no key of the file.
const fileVariable = envPrefix + "CONFIG"

// searched are the places where a file is looked for that nobody has named.
var searched = []string{"configs/sdk/nats.yaml", "../configs/sdk/nats.yaml", "/etc/isa_cloud/nats.yaml", "nats.yaml"}

// Loaded fills in a struct from texts and remembers where each key was set.
type Loaded struct {
	settings []setting
	set      map[string]string // key, or list element as "urls[0]", to where it was set last
	problems Problems
}

// Load fills in the struct that dst points to from the file at path, or else from the one that is found,
// and from the environment, which wins. What is wrong is collected for Err.
func Load(dst any, path string) *Loaded {
	l := newLoaded(dst)
	if path, from := find(path); path != "" {
		l.file(path, from)
	}
	l.environment(os.Environ())
	return l
}

func newLoaded(dst any) *Loaded {
	return &Loaded{settings: slices.Collect(leaves(reflect.ValueOf(dst).Elem(), "")), set: map[string]string{}}
}

// Report adds problems of keys, each at the place where a person can mend it.
func (l *Loaded) Report(found Problems) {
	for _, p := range found {
		l.problems = append(l.problems, problem{l.whereSet(p.where), p.reason})
	}
}

// Err reports every problem at once, or nil.
func (l *Loaded) Err() error { return l.problems.Err() }

// find returns the file to read and, if a variable named it, that variable.
func find(path string) (found, from string) {
	if path != "" {
		return path, ""
	}
	if path := strings.TrimSpace(os.Getenv(fileVariable)); path != "" {
		return path, fileVariable
	}
	for _, path := range searched {
		// A file that exists but may not be looked at is reported, not passed over.
		_, err := os.Stat(path)
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return path, ""
		}
	}
	return "", ""
}

// whereSet turns the key of a problem into the place where a person can mend it.
func (l *Loaded) whereSet(key string) string {
	if where, ok := l.set[key]; ok {
		return where
	}
	list, index, _ := strings.Cut(key, "[")
	if where, ok := l.set[list]; ok {
		return where + "[" + index
	}
	return key
}
