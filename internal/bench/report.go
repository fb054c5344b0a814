package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"
)

// A report is what a run has found, and where.
type report struct {
	Commit string    `json:"commit"`
	Date   time.Time `json:"date"`
	Go     string    `json:"go"`
	System string    `json:"system"`
	Cores  int       `json:"cores"`
	Load   string    `json:"load,omitempty"` // of the machine before the run, in the minute before
	Rounds int       `json:"rounds"`
	Short  bool      `json:"short"`
	Rows   []*row    `json:"rows"`
	Failed []string  `json:"failed,omitempty"` // turns: what is not in the rows

	measured map[moment]float64
	profiled bool // so everything is done in this process

	settle, hold time.Duration // how long what is idle is left alone, and then looked at
}

// A row is one figure of one workload.
type row struct {
	Workload string               `json:"workload"`
	Figure   string               `json:"figure"`
	Sides    map[string][]float64 `json:"sides"` // one value for each round
	Ratio    *ratio               `json:"ratio,omitempty"`
	Memcpy   float64              `json:"memcpy,omitempty"`   // how often the payload is copied in that time
	Loopback float64              `json:"loopback,omitempty"` // how often it goes over the loopback
	judged   bool                 // its workload is judged by it
	line     string
	size     int
}

// A ratio is ours to raw: the geometric mean over the rounds, and its 95 % interval, which one round does not have.
type ratio struct {
	Mean float64 `json:"mean"`
	Low  float64 `json:"low,omitempty"`
	High float64 `json:"high,omitempty"`
}

func newReport(rounds int, short bool) *report {
	commit, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		commit = []byte("unknown") // not in a clone
	}
	load, _ := os.ReadFile("/proc/loadavg") // other systems have none
	minute, _, _ := strings.Cut(string(load), " ")
	return &report{
		Commit: strings.TrimSpace(string(commit)), Date: time.Now().UTC().Truncate(time.Second), Go: runtime.Version(),
		System: runtime.GOOS + "/" + runtime.GOARCH, Cores: runtime.NumCPU(), Load: minute, Rounds: rounds, Short: short,
		measured: map[moment]float64{},
	}
}

// figures is the order in which figures are told; the first that a workload has is what it is judged by.
var figures = []string{
	"p50 µs", "p99 µs", "p99.9 µs", "ns/op", "CPU ns/op", "allocs/op", "B/op", "peak MiB",
	"KiB each", "goroutines each", "messages/s", "CPU ms/s", "begin µs each",
}

// A moment is when a side has measured a figure of a workload.
type moment struct {
	workload, side, figure string
	round                  int
}

// add notes what a side has measured in a round, or that it has failed.
func (rep *report) add(round int, w workload, side string, measured map[string]float64, err error) {
	if err != nil {
		rep.Failed = append(rep.Failed, fmt.Sprintf("%s, %s, round %d: %v", w.name, side, round+1, err))
		fmt.Fprintln(os.Stderr, "FAILED:", rep.Failed[len(rep.Failed)-1])
		return
	}
	for figure, value := range measured {
		rep.measured[moment{w.name, side, figure, round}] = value
	}
}

// finish makes the rows.
func (rep *report) finish(all []workload) {
	floor := map[string]*row{}
	for _, w := range all {
		first := true
		for _, figure := range figures {
			row := &row{Workload: w.name, Figure: figure, Sides: map[string][]float64{}, judged: first, line: w.line, size: w.size}
			var ours, raw []float64 // of the rounds in which neither has failed
			for round := range rep.Rounds {
				for side := range w.sides {
					if value, ok := rep.measured[moment{w.name, side, figure, round}]; ok {
						row.Sides[side] = append(row.Sides[side], value)
					}
				}
				one, ok := rep.measured[moment{w.name, "ours", figure, round}]
				if other, both := rep.measured[moment{w.name, "raw", figure, round}]; ok && both {
					ours, raw = append(ours, one), append(raw, other)
				}
			}
			if len(row.Sides) == 0 {
				continue
			}
			first = false
			row.Ratio = ratioOf(ours, raw)
			rep.Rows = append(rep.Rows, row)
			if figure == "ns/op" {
				floor[w.name] = row
			}
		}
	}
	for _, row := range rep.Rows {
		if f := floor[floorName(row.size)]; f != nil && row.Figure == "ns/op" && row.line != "" {
			if row.Memcpy = multiple(row.Sides["ours"], f.Sides[memcpy]); row.line != memcpy {
				row.Loopback = multiple(row.Sides["ours"], f.Sides[row.line])
			}
		}
	}
}

// multiple is 0 where one of them is missing.
func multiple(of, base []float64) float64 {
	if len(of) == 0 || len(base) == 0 {
		return 0
	}
	return median(of) / median(base)
}

// ratioOf is nil where there is next to nothing to divide by.
func ratioOf(ours, raw []float64) *ratio {
	if len(ours) == 0 || slices.Min(ours) <= 0 || slices.Min(raw) < 0.01 {
		return nil
	}
	logs := make([]float64, len(ours))
	for i := range ours {
		logs[i] = math.Log(ours[i] / raw[i])
	}
	mean, deviation := stat.MeanStdDev(logs, nil)
	if len(logs) < 2 {
		return &ratio{Mean: math.Exp(mean)}
	}
	t := distuv.StudentsT{Sigma: 1, Nu: float64(len(logs) - 1)}.Quantile(0.975)
	half := t * deviation / math.Sqrt(float64(len(logs)))
	return &ratio{Mean: math.Exp(mean), Low: math.Exp(mean - half), High: math.Exp(mean + half)}
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// table prints the report.
func (rep *report) table(to io.Writer) error {
	if _, err := fmt.Fprintf(to, "commit %s, %s, %s, %s, %d cores, %d rounds\n\n",
		rep.Commit, rep.Date.Format(time.DateTime), rep.Go, rep.System, rep.Cores, rep.Rounds); err != nil {
		return err
	}
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "workload\tfigure\traw\tours\tours/raw [95 %]\tpeers\t× memcpy\t× loopback") // Flush returns what fails
	last := ""
	for _, row := range rep.Rows {
		if row.Sides["raw"] == nil && !row.judged {
			continue // of the floor, its time is enough
		}
		name := row.Workload
		if name == last {
			name = ""
		}
		last = row.Workload
		var peers []string
		for _, side := range slices.Sorted(maps.Keys(row.Sides)) {
			if side != "raw" && side != "ours" {
				peers = append(peers, side+" "+number(median(row.Sides[side])))
			}
		}
		compared := "-"
		switch r := row.Ratio; {
		case r == nil:
		case r.High == 0:
			compared = fmt.Sprintf("%.3f", r.Mean)
		default:
			compared = fmt.Sprintf("%.3f [%.3f, %.3f]", r.Mean, r.Low, r.High)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", name, row.Figure, number(median(row.Sides["raw"])),
			number(median(row.Sides["ours"])), compared, cmp.Or(strings.Join(peers, ", "), "-"), times(row.Memcpy), times(row.Loopback))
	}
	for _, failed := range rep.Failed {
		_, _ = fmt.Fprintln(w, "FAILED:", failed)
	}
	return w.Flush()
}

func times(v float64) string {
	if v == 0 {
		return "-"
	}
	return number(v)
}

// number has three digits that count, and - for what was not measured.
func number(v float64) string {
	switch {
	case math.IsNaN(v):
		return "-"
	case v < 0.01 && v > 0:
		return "<0.01"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	default:
		return fmt.Sprintf("%.3g", v)
	}
}
