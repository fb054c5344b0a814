// Mutants tries whether tests fail when the code that they are about is wrong. Over the packages whose tests start
// no server it tries what gremlins finds to change; elsewhere the changes of patches.txt, each against the test that
// is to fail. It ends with an error when one lives that survivors.txt does not excuse.
//
// Gremlins lists only, and tries nothing itself: it holds the condition of every case to be uncovered, for Go's
// coverage does not count them, and copies the whole module for each mutant, where go's -overlay needs one file.
package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/scanner"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// pure are the packages, or files of packages, whose tests start no server.
var pure = []string{
	"internal/subject", "internal/serverurl", "internal/pause", "internal/wire", "internal/settings", "internal/drift",
	"internal/fault", "internal/discovery", "internal/lifecycle", "internal/health/answer.go",
	"internal/health/lookout.go", "internal/health/warning.go", "internal/auth", "internal/delivery", "internal/sentinel",
}

// most is how long the tests of a mutant may take; one that they hang upon is dead.
const most = "60s"

// mutant is one change of one file.
type mutant struct {
	name       string   // stays the same while the code around it moves
	file       string   // within the module
	start, end int      // what is replaced
	with       string   //
	test       []string // arguments of go test
}

func main() {
	only := flag.String("only", "", "try those whose names match this expression")
	flag.Parse()
	if err := run(regexp.MustCompile(*only)); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(only *regexp.Regexp) error {
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	patched, err := patches("tools/mutants/patches.txt")
	if err != nil {
		return err
	}
	excused, err := survivors("tools/mutants/survivors.txt")
	if err != nil {
		return err
	}
	var dead, living, broken, wrong int
	try := func(m mutant) error {
		if !only.MatchString(m.name) {
			return nil
		}
		outcome, err := m.try(dir)
		if err != nil {
			return err
		}
		reason, known := excused[m.name]
		switch {
		case outcome == "not viable" && strings.HasPrefix(m.name, "patch "):
			wrong++
			fmt.Printf("BROKEN  %s\n", m.name)
		case outcome == "not viable":
			broken++
		case outcome == "dead" && !known:
			dead++
		case outcome == "dead":
			wrong++
			fmt.Printf("DEAD    %s\n        survivors.txt says: %s\n", m.name, reason)
		case known:
			living++
		default:
			wrong++
			fmt.Printf("LIVES   %s\n", m.name)
		}
		return nil
	}
	for _, m := range patched {
		if err := try(m); err != nil {
			return err
		}
	}
	prefix, _ := only.LiteralPrefix()
	for _, where := range pure {
		if !strings.HasPrefix(prefix, where) && !strings.HasPrefix(where, prefix) {
			continue
		}
		found, err := gremlins(where, dir)
		if err != nil {
			return err
		}
		before := dead + living + wrong
		for _, m := range found {
			if err := try(m); err != nil {
				return err
			}
		}
		fmt.Printf("%s: %d tried\n", where, dead+living+wrong-before)
	}
	fmt.Printf("%d dead, %d excused, %d do not compile, %d wrong\n", dead, living, broken, wrong)
	if wrong > 0 {
		return fmt.Errorf("%d mutants are not as they should be", wrong)
	}
	return nil
}

// try runs the tests over the changed file.
func (m mutant) try(dir string) (outcome string, err error) {
	source, err := os.ReadFile(m.file)
	if err != nil {
		return "", err
	}
	changed := filepath.Join(dir, "changed.go")
	if err := os.WriteFile(changed, slices.Concat(source[:m.start], []byte(m.with), source[m.end:]), 0o600); err != nil { //nolint:gosec // the directory is its own
		return "", err
	}
	original, err := filepath.Abs(m.file)
	if err != nil {
		return "", err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{original: changed}})
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600); err != nil {
		return "", err
	}
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Minute)
	defer stop()
	args := append([]string{"test", "-count=1", "-vet=off", "-failfast", "-ldflags=-s -w", "-timeout", most, "-overlay", filepath.Join(dir, "overlay.json")}, m.test...)
	output, err := exec.CommandContext(ctx, "go", args...).CombinedOutput() //nolint:gosec // what the lists name
	switch {
	case bytes.Contains(output, []byte("[build failed]")), bytes.Contains(output, []byte("[setup failed]")):
		return "not viable", nil
	case err == nil && bytes.Contains(output, []byte("no tests to run")):
		return "", fmt.Errorf("%s: no such test", m.name)
	case err == nil:
		return "lives", nil
	}
	return "dead", nil
}

// invert is what gremlins puts in the place of a token.
var invert = map[string]map[string]string{
	"ARITHMETIC_BASE":       {"+": "-", "-": "+", "*": "/", "/": "*", "%": "*"},
	"CONDITIONALS_BOUNDARY": {"<": "<=", "<=": "<", ">": ">=", ">=": ">"},
	"CONDITIONALS_NEGATION": {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"},
	"INCREMENT_DECREMENT":   {"++": "--", "--": "++"},
	"INVERT_LOGICAL":        {"&&": "||", "||": "&&"},
}

// gremlins lists the mutants of a package, or of one file.
func gremlins(where, dir string) ([]mutant, error) {
	pkg, one := where, ""
	if strings.HasSuffix(where, ".go") {
		pkg, one = path.Split(where)
	}
	listed := filepath.Join(dir, "gremlins.json")
	command := exec.Command("go", "tool", "-modfile=tools/mutants.mod", "gremlins", "unleash", "--silent", "--dry-run", "--invert-logical", "-o", listed, "./"+pkg) //nolint:gosec // what the list names
	if output, err := command.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("gremlins: %w\n%s", err, output)
	}
	text, err := os.ReadFile(listed)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // there is nothing to change
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(listed) }()
	var list struct {
		Files []struct {
			Name      string `json:"file_name"`
			Mutations []struct {
				Type         string
				Line, Column int
			}
		}
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, err
	}
	var found []mutant
	for _, file := range list.Files {
		if one != "" && file.Name != one {
			continue
		}
		name := path.Join(pkg, file.Name)
		source, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		at := tokens(source)
		lines := bytes.Split(source, []byte("\n"))
		for _, m := range file.Mutations {
			here := at[[2]int{m.Line, m.Column}]
			with, ok := invert[m.Type][here.text]
			if !ok {
				continue // a second name for a change that has one
			}
			found = append(found, mutant{
				name: fmt.Sprintf("%s: %s: %s -> %s: %s", name, function(source[:here.offset]), here.text, with, mark(lines[m.Line-1], m.Column-1)), file: name,
				start: here.offset, end: here.offset + len(here.text), with: with, test: []string{"./" + pkg},
			})
		}
	}
	slices.SortFunc(found, func(a, b mutant) int {
		return cmp.Or(strings.Compare(a.file, b.file), a.start-b.start, strings.Compare(a.with, b.with))
	})
	seen := map[string]int{}
	for i, m := range found {
		if seen[m.name]++; seen[m.name] > 1 {
			found[i].name += fmt.Sprintf(" (%d)", seen[m.name])
		}
	}
	return found, nil
}

var funcs = regexp.MustCompile(`(?m)^func (?:\([^)]*\) )?(\w+)`)

// function returns the name of the function that is begun last.
func function(source []byte) string {
	all := funcs.FindAllSubmatch(source, -1)
	if len(all) == 0 {
		return "-"
	}
	return string(all[len(all)-1][1])
}

// mark returns a line with the place in it that is changed.
func mark(line []byte, column int) string {
	return strings.TrimSpace(string(line[:column]) + "⟨⟩" + string(line[column:]))
}

type place struct {
	text   string
	offset int
}

// tokens returns the operators of a file, by line and column.
func tokens(source []byte) map[[2]int]place {
	files := token.NewFileSet()
	file := files.AddFile("", -1, len(source))
	var scan scanner.Scanner
	scan.Init(file, source, nil, 0)
	found := map[[2]int]place{}
	for {
		pos, tok, _ := scan.Scan()
		if tok == token.EOF {
			return found
		}
		at := file.Position(pos)
		found[[2]int{at.Line, at.Column}] = place{tok.String(), at.Offset}
	}
}

// patches reads the changes that are tried by hand's choice. Each is a line of its file and the test that is to
// fail, then the old text and the new in lines that begin with - and +. The old text stands once in the file.
func patches(list string) ([]mutant, error) {
	text, err := os.ReadFile(list)
	if err != nil {
		return nil, err
	}
	var all []mutant
	for block := range strings.SplitSeq(string(text), "\n\n") {
		var head, before, after []string
		for line := range strings.SplitSeq(strings.TrimSpace(block), "\n") {
			switch {
			case strings.HasPrefix(line, "#"), line == "":
			case line[0] == '-':
				before = append(before, line[1:])
			case line[0] == '+':
				after = append(after, line[1:])
			default:
				head = strings.Fields(line)
			}
		}
		if head == nil {
			continue
		}
		if len(head) != 3 {
			return nil, fmt.Errorf("%s: %q is not a file, a package and a test", list, head)
		}
		source, err := os.ReadFile(head[0])
		if err != nil {
			return nil, err
		}
		old := strings.Join(before, "\n")
		if n := strings.Count(string(source), old); old == "" || n != 1 {
			return nil, fmt.Errorf("%s: %s has %d times, not once:\n%s", list, head[0], n, old)
		}
		start := strings.Index(string(source), old)
		all = append(all, mutant{
			name: fmt.Sprintf("patch %s: %s: %s", head[0], head[2], strings.TrimSpace(old)), file: head[0],
			start: start, end: start + len(old), with: strings.Join(after, "\n"), test: []string{head[1], "-run", "^(" + head[2] + ")$"},
		})
	}
	return all, nil
}

// survivors reads which mutants live for a reason, which stands, indented, in the line after theirs.
func survivors(list string) (map[string]string, error) {
	text, err := os.ReadFile(list)
	if err != nil {
		return nil, err
	}
	reasons := map[string]string{}
	var names []string
	for line := range strings.SplitSeq(string(text), "\n") {
		switch {
		case line == "", strings.HasPrefix(line, "#"):
		case line[0] != ' ':
			names = append(names, line)
		case len(names) == 0:
			return nil, fmt.Errorf("%s: a reason for nothing: %s", list, line)
		default:
			for _, name := range names {
				reasons[name] = strings.TrimSpace(line)
			}
			names = nil
		}
	}
	if len(names) > 0 {
		return nil, fmt.Errorf("%s: no reason is given for %s", list, slices.Sorted(maps.Keys(reasons)))
	}
	return reasons, nil
}
