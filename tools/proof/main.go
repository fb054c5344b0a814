// Proof keeps the figures of docs/guarantees.md and docs/performance.md: `make proof` has it write what its runs have found
// beside the rows of rows.go, and CI has it tell where rows, page and runs differ, but for the figures.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

func main() {
	names := flag.Bool("names", false, "print an expression that matches the tests of the rows")
	check := flag.Bool("check", false, "write nothing, and fail where the page has other rows, or one of their tests was not run")
	chaos := flag.String("chaos", "", "the summary of a run of internal/chaos")
	compare := flag.String("compare", "", "what internal/bench has measured, beside its drawing")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: proof [flags] [files of go test -json]")
		flag.PrintDefaults()
	}
	flag.Parse()
	var err error
	switch {
	case *names:
		fmt.Println("^(" + strings.Join(tests(), "|") + ")$")
	case *check:
		err = checkGuarantees(flag.Args())
	default:
		err = errors.Join(writeGuarantees(flag.Args(), *chaos), writePerformance(*compare))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "proof:", err)
		os.Exit(1)
	}
}

// writeGuarantees renders the page with the figures of these runs, and with its own where there are none.
func writeGuarantees(files []string, chaos string) error {
	text, block, err := blockOf(guaranteesPage)
	if err != nil {
		return err
	}
	g := parse(block)
	if len(files) > 0 {
		all, err := readResults(files)
		if err == nil {
			err = all.missing()
		}
		if err != nil {
			return err
		}
		g.stamp = stamp()
		for _, f := range features {
			for _, row := range f.guarantees {
				g.figures[row.key()] = all.figure(row.tests)
			}
		}
	}
	if chaos != "" {
		if g.chaos, err = chaosTables(chaos); err != nil {
			return err
		}
	}
	return replaceBlock(guaranteesPage, text, block, g.render())
}

// checkGuarantees compares the rows with the page, and with what was run.
func checkGuarantees(files []string) error {
	_, block, err := blockOf(guaranteesPage)
	if err == nil && parse(block).render() != block {
		err = fmt.Errorf("%s does not have the rows of tools/proof/rows.go: go run ./tools/proof writes them", guaranteesPage)
	}
	if len(files) == 0 {
		return err
	}
	all, failed := readResults(files)
	if errors.Is(failed, fs.ErrNotExist) && os.Getenv("CI") == "" {
		fmt.Printf("LEFT OUT: whether the tests of the guarantees are run, for %v (make test faults)\n", failed)
		return err
	}
	if failed == nil {
		failed = all.missing()
	}
	return errors.Join(err, failed)
}

// What is written stands between these marks of a page.
const beginMark, endMark = "<!-- begin proof -->\n", "<!-- end proof -->\n"

func blockOf(page string) (text, block string, err error) {
	data, err := os.ReadFile(page)
	text = string(data)
	_, block, _ = strings.Cut(text, beginMark)
	block, _, ended := strings.Cut(block, endMark)
	if err == nil && !ended {
		err = fmt.Errorf("%s has no %s and %s", page, strings.TrimSpace(beginMark), strings.TrimSpace(endMark))
	}
	return text, block, err
}

func replaceBlock(page, text, old, block string) error {
	text = strings.Replace(text, beginMark+old+endMark, beginMark+block+endMark, 1)
	return os.WriteFile(page, []byte(text), 0o600)
}

// stamp tells of the moment, the code and the machine.
func stamp() string {
	commit, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		commit = []byte("unknown") // not in a clone
	}
	return fmt.Sprintf("%s%s, commit %s, %s.", lastRun, time.Now().UTC().Format(time.DateOnly), strings.TrimSpace(string(commit)),
		machine(runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH, runtime.NumCPU()))
}

// machine has the processor's name where the system tells it.
func machine(version, system string, cores int) string {
	name := ""
	info, _ := os.ReadFile("/proc/cpuinfo") // other systems have none
	if _, rest, ok := strings.Cut(string(info), "model name"); ok {
		name, _, _ = strings.Cut(rest, "\n")
		name = ", " + strings.Trim(name, "\t :")
	}
	return fmt.Sprintf("%s, %s%s, %d cores", version, system, name, cores)
}

// writeRow writes one of a table. Integers have commas.
func writeRow(to *strings.Builder, cells ...any) {
	for _, cell := range cells {
		if n, ok := cell.(int); ok {
			cell = thousands(strconv.Itoa(n))
		}
		fmt.Fprintf(to, "| %v ", cell)
	}
	to.WriteString("|\n")
}

func writeHead(to *strings.Builder, cells ...any) {
	writeRow(to, cells...)
	to.WriteString(strings.Repeat("|---", len(cells)) + "|\n")
}

// thousands sets commas between the digits of a number.
func thousands(digits string) string {
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
