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

const performancePage, drawing = "docs/performance.md", "docs/performance.svg"

// A comparison is what internal/bench writes.
type comparison struct {
	Commit, Go, System, Load string
	Date                     time.Time
	Cores, Rounds            int
	Short                    bool
	Rows                     []compared
	Failed                   []string
}

type compared struct {
	Workload, Figure string
	Sides            map[string][]float64
	Ratio            *struct{ Mean, Low, High float64 }
	Memcpy, Loopback float64
}

// writePerformance writes the page's figures, and its drawing, from the file of a comparison.
func writePerformance(file string) error {
	if file == "" {
		return nil
	}
	var c comparison
	data, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(data, &c)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	text, block, err := blockOf(performancePage)
	if err != nil {
		return err
	}
	if data, err = os.ReadFile(strings.TrimSuffix(file, ".json") + ".svg"); err != nil {
		return err
	}
	if err := os.WriteFile(drawing, data, 0o600); err != nil { //nolint:gosec // always the same file
		return err
	}
	return replaceBlock(performancePage, text, block, c.render())
}

func (c *comparison) render() string {
	var b strings.Builder
	short := map[bool]string{true: "short "}[c.Short]
	fmt.Fprintf(&b, "\nFigures of %s, commit %s, %s, beside a load of %s; %d %srounds.\n\n![Ratios](performance.svg)\n\n",
		c.Date.Format(time.DateOnly), c.Commit, machine(c.Go, c.System, c.Cores), c.Load, c.Rounds, short)
	if len(c.Failed) > 0 {
		fmt.Fprintf(&b, "Turns that failed, which are not in the figures:\n\n- %s\n\n", strings.Join(c.Failed, "\n- "))
	}
	b.WriteString("## What costs more, and what that buys\n\nAll with a whole interval above 1.03, or an allocation more.\n")
	c.list(&b, compared.dearer, buys)
	b.WriteString("\n## What costs less\n\nAll with a whole interval below 0.97.\n")
	c.list(&b, compared.cheaper, func(string) string { return "." })
	b.WriteString("\n## All figures\n\n")
	writeHead(&b, "Workload", "Figure", "Raw", "Ours", "Ours / raw", "Peers", "CPU", "Allocations", "× copy", "× loopback")
	of := map[string]compared{} // by workload and figure
	for _, row := range c.Rows {
		of[row.Workload+row.Figure] = row
	}
	last := ""
	for _, row := range c.Rows {
		if slices.Contains([]string{"CPU ns/op", "allocs/op", "B/op"}, row.Figure) || row.Sides["ours"] == nil {
			continue // they have columns, or are in the file only; or the machine's own
		}
		cpu, allocations := "", ""
		if row.Workload != last {
			cpu = of[row.Workload+"CPU ns/op"].ratio()
			allocations = of[row.Workload+"allocs/op"].median("raw") + " → " + of[row.Workload+"allocs/op"].median("ours")
		}
		last = row.Workload
		var peers []string
		for _, side := range slices.Sorted(maps.Keys(row.Sides)) {
			if side != "raw" && side != "ours" {
				peers = append(peers, side+" "+row.median(side))
			}
		}
		writeRow(&b, row.Workload, row.Figure, row.median("raw"), row.median("ours"), row.ratio(), strings.Join(peers, ", "),
			cpu, strings.Trim(allocations, " →"), number(row.Memcpy), number(row.Loopback))
	}
	return b.String() + "\n"
}

// named are the figures by which something costs more or less.
var named = map[string]string{
	"p50 µs": "p50", "p99 µs": "p99", "p99.9 µs": "p99.9", "ns/op": "time", "CPU ns/op": "CPU", "peak MiB": "peak memory", "KiB each": "memory",
	"goroutines each": "goroutines", "messages/s": "messages", "CPU ms/s": "CPU", "begin µs each": "time to begin",
}

// list has a line for each workload of which a figure is such.
func (c *comparison) list(to *strings.Builder, such func(compared) bool, why func(workload string) string) {
	found := map[string][]string{}
	for _, row := range c.Rows {
		switch name := named[row.Figure]; {
		case !such(row):
		case name == "":
			found[row.Workload] = append(found[row.Workload], row.median("ours")+" allocations for "+row.median("raw"))
		default:
			found[row.Workload] = append(found[row.Workload], name+" × "+row.ratio())
		}
	}
	last := ""
	for _, row := range c.Rows {
		figures := found[row.Workload]
		if figures == nil {
			continue
		}
		delete(found, row.Workload)
		mark := "; " // what has the same reason stands together
		if reason := why(row.Workload); reason != last || reason == "." {
			to.WriteString(last)
			mark, last = "\n- ", reason
		}
		fmt.Fprintf(to, "%s**%s**: %s", mark, row.Workload, strings.Join(figures, ", "))
	}
	to.WriteString(last + "\n")
}

// interval is that of the ratio. One round tells it only of what is counted.
func (r compared) interval() (low, high float64) {
	switch counted := []string{"KiB each", "goroutines each", "messages/s"}; {
	case named[r.Figure] == "" || r.Ratio == nil:
		return 1, 1
	case r.Ratio.High == 0 && slices.Contains(counted, r.Figure):
		return r.Ratio.Mean, r.Ratio.Mean
	case r.Ratio.High == 0:
		return 1, 1
	}
	return r.Ratio.Low, r.Ratio.High
}

func (r compared) dearer() bool {
	if r.Figure == "allocs/op" {
		return middle(r.Sides["ours"]) > middle(r.Sides["raw"])+0.9
	}
	low, _ := r.interval()
	return low > 1.03
}

func (r compared) cheaper() bool {
	_, high := r.interval()
	return high < 0.97
}

// buys tells what one has for that a workload costs more.
func buys(workload string) string {
	for _, b := range []struct{ of, what string }{
		{"publish, ", "What would reach nobody, or end the connection, is an error of the call; and a publish ends with its context when the server does not read."},
		{"fan-out", "A handler may keep its message; its panic ends nothing, and Close waits for it."},
		{"queue group", "A handler may keep its message; its panic ends nothing, and Close waits for it."},
		{"request", "A broken connection, a denial and nobody who listens are errors of their own, at once."},
		{"connect", "The whole configuration is checked, and a failure tells the cause for each address."},
		{"close", "Handlers, acknowledgements and what was published are waited for, and what was left is counted."},
		{"stream publish, all", "A batch is sent again as a whole over elections and lost answers, and is stored once."},
		{"stream publish", "A publish goes on over restarts, elections and lost answers, until its context ends."},
		{"consume", "The deadline of what is held is extended, a panic is a retry, and a consumer that is gone is found out."},
		{"pull", "What was fetched and is not taken goes to the next call."},
		{"key-value get, cached", "Each read looks whether the cache may be stale."},
		{"key-value put", "A put goes on over restarts, elections and lost answers, and is stored once."},
		{"key-value", "It goes on over restarts and elections."},
		{"object put", "Each chunk is stored once and in order, and the old version stays until the new one is whole."},
		{"object get", "Only a pause is bounded, and every way to read to the end checks the digest."},
	} {
		if strings.HasPrefix(workload, b.of) {
			return ". " + b.what
		}
	}
	switch _, kind, _ := strings.Cut(workload, " idle "); kind {
	case "subscriptions":
		return ". Each waits for the server's word, so that a denial is an error of the call; and holds what Close waits for."
	case "watchers":
		return ". A heartbeat tells when one has become stale, and it goes on at once after that."
	case "consumptions":
		return ". Each notices when its consumer is gone, and makes it again."
	}
	return ". What that buys is not known."
}

func (r compared) ratio() string {
	switch {
	case r.Ratio == nil:
		return ""
	case r.Ratio.High == 0:
		return fmt.Sprintf("%.2f", r.Ratio.Mean)
	default:
		return fmt.Sprintf("%.2f [%.2f, %.2f]", r.Ratio.Mean, r.Ratio.Low, r.Ratio.High)
	}
}

func (r compared) median(side string) string {
	switch values := r.Sides[side]; {
	case len(values) == 0:
		return ""
	case middle(values) > 0:
		return number(middle(values))
	default:
		return "0"
	}
}

// middle is the median, and 0 of nothing.
func middle(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	if len(sorted) == 0 {
		return 0
	}
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// number has three digits that count, and is empty for what was not measured.
func number(v float64) string {
	switch {
	case v == 0:
		return ""
	case v < 0.01:
		return "<0.01"
	case v >= 100:
		return thousands(fmt.Sprintf("%.0f", v))
	default:
		return fmt.Sprintf("%.3g", v)
	}
}
