package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	guaranteesPage = "docs/guarantees.md"
	lastRun        = "Figures of "
	chaosHeading   = "## At random\n\n"
)

// guarantees are what is written into their page.
type guarantees struct {
	stamp   string
	figures map[string]string // by the key of a row
	chaos   string            // the tables
}

// parse reads what render has written.
func parse(block string) guarantees {
	g := guarantees{figures: map[string]string{}}
	block, g.chaos, _ = strings.Cut(block, chaosHeading)
	for line := range strings.Lines(block) {
		line = strings.TrimSuffix(line, "\n")
		if cells := strings.Split(line, " | "); len(cells) == 4 {
			g.figures[strings.Join(cells[:3], " | ")] = strings.TrimSuffix(cells[3], " |")
		} else if strings.HasPrefix(line, lastRun) {
			g.stamp = line
		}
	}
	return g
}

func (g guarantees) render() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s\n", g.stamp)
	for _, f := range features {
		fmt.Fprintf(&b, "\n## %s\n\n", f.name)
		writeHead(&b, "Fault", "Promise", "Shown by", "Last figure")
		for _, row := range f.guarantees {
			figure, ok := g.figures[row.key()]
			if !ok {
				figure = "-"
			}
			fmt.Fprintf(&b, "%s | %s |\n", row.key(), figure)
		}
	}
	return b.String() + "\n" + chaosHeading + g.chaos
}

// key is the row without its figure.
func (g guarantee) key() string {
	return fmt.Sprintf("| %s | %s | `%s`", g.fault, g.promise, strings.Join(g.tests, "`, `"))
}

// tests returns the names of all tests of the rows.
func tests() []string {
	var all []string
	for _, f := range features {
		for _, row := range f.guarantees {
			all = append(all, row.tests...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// loads are those of internal/chaos.
var loads = []string{"core", "stream", "consume", "kv", "locks", "objects", "life"}

// chaosTables renders the summary of a run of internal/chaos.
func chaosTables(file string) (string, error) {
	type row struct {
		Operations, Failed, Lost, Duplicated, Late, Violations int
		Gap                                                    time.Duration
	}
	var run struct {
		Seed           uint64
		Begin          time.Time
		Passed, Failed int
		Rounds         []struct{ Rows map[string]row }
		Faults         map[string]struct {
			Times int
			Gap   map[string]time.Duration
		}
	}
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &run)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "`make chaos` on %s, from seed %d: %d rounds, of which %d failed.\n\n",
		run.Begin.Format(time.DateOnly), run.Seed, run.Passed+run.Failed, run.Failed)
	writeHead(&b, "Load", "Calls", "With an error", "Worst gap", "Lost", "Duplicated", "Late", "Violations")
	for _, load := range loads {
		var sum row
		for _, round := range run.Rounds {
			r := round.Rows[load]
			sum = row{
				sum.Operations + r.Operations, sum.Failed + r.Failed, sum.Lost + r.Lost, sum.Duplicated + r.Duplicated,
				sum.Late + r.Late, sum.Violations + r.Violations, max(sum.Gap, r.Gap),
			}
		}
		writeRow(&b, load, sum.Operations, sum.Failed, short(sum.Gap), sum.Lost, sum.Duplicated, sum.Late, sum.Violations)
	}
	b.WriteString("\nOf each fault the longest time that a load had no success while it went on, often beside another fault:\n\n")
	writeHead(&b, "Fault", "Times", "Worst gap")
	for _, name := range slices.Sorted(maps.Keys(run.Faults)) {
		fault := run.Faults[name]
		var gaps []string
		for _, load := range loads {
			if gap, ok := fault.Gap[load]; ok {
				gaps = append(gaps, fmt.Sprint(load, " ", short(gap)))
			}
		}
		writeRow(&b, name, fault.Times, strings.Join(gaps, ", "))
	}
	b.WriteString("\n")
	return b.String(), nil
}

func short(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }
