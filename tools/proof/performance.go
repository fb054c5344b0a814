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
	sorted := slices.Sorted(slices.Values(r.Sides[side]))
	if len(sorted) == 0 {
		return ""
	}
	if middle := (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2; middle > 0 {
		return number(middle)
	}
	return "0"
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
