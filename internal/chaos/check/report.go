package check

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// slack is how much later than its context a call may end, beside the stalls of its process.
const slack = 500 * time.Millisecond

// Loads are the rows of a report.
var Loads = []string{"core", "stream", "consume", "kv", "locks", "objects", "life"}

// Row is what is to be told of a load.
type Row struct {
	Operations int           `json:"operations"`
	Failed     int           `json:"failed"` // calls
	Lost       int           `json:"lost"`
	Duplicated int           `json:"duplicated"`
	Late       int           `json:"late"`
	Violations int           `json:"violations"`
	Gap        time.Duration `json:"gap"` // the longest time without a success, while there was load
}

// Fault is what is to be told of a fault.
type Fault struct {
	Times int                      `json:"times"`
	Gap   map[string]time.Duration `json:"gap"` // the longest of each load that it was in
}

// Report is the result of a comparison.
type Report struct {
	Rows       map[string]*Row
	Faults     map[string]*Fault
	Violations []string
}

// violate tells of a broken promise.
func (r *Report) violate(load, text string, args ...any) {
	r.Rows[load].Violations++
	r.Violations = append(r.Violations, load+": "+fmt.Sprintf(text, args...))
}

// Check compares a history with the truth.
func Check(h History, t *Truth) *Report {
	r := &Report{Rows: map[string]*Row{}, Faults: map[string]*Fault{}}
	for _, load := range Loads {
		r.Rows[load] = &Row{}
	}
	var faults History
	for _, f := range h {
		if name, ok := strings.CutPrefix(f.Op, "fault/"); ok {
			faults = append(faults, f)
			if r.Faults[name] == nil {
				r.Faults[name] = &Fault{Gap: map[string]time.Duration{}}
			}
			r.Faults[name].Times++
		}
	}
	r.calls(h, faults)
	r.errors(h, faults)
	r.noticed(h, faults)
	r.core(h, faults)
	r.stored(h, t)
	r.handled(h, t, faults)
	r.keys(h, t)
	r.seen(h, t)
	r.locks(h)
	r.objects(h, t)
	r.told(h, t)
	return r
}

// calls looks at how long each took, whatever it did.
func (r *Report) calls(h, faults History) {
	last, settled := map[string]int64{}, int64(math.MaxInt64)
	for _, s := range h.of("life/settle") {
		settled = min(settled, s.Begin)
	}
	sorted := slices.Clone(h)
	slices.SortFunc(sorted, func(a, b Record) int { return cmp.Compare(a.End, b.End) })
	for _, c := range sorted {
		row := r.Rows[c.Load()]
		if row == nil {
			continue // a fault
		}
		row.Operations++
		if took := time.Duration(c.End - c.Begin); c.Limit > 0 && took > c.Limit+slack+c.Stall {
			row.Late++
			r.violate(c.Load(), "late: %v of %v (stalled %v): %v: %s", took, c.Limit, c.Stall, &c, c.Err)
		}
		if c.Err != "" && c.Limit > 0 {
			row.Failed++
		}
		if c.Err != "" || c.Begin > settled || c.Load() == "life" {
			continue
		}
		if before := last[c.Load()]; before > 0 {
			row.Gap = max(row.Gap, time.Duration(c.End-before))
			for _, f := range faults {
				if f.Begin < c.End && f.End > before {
					gaps := r.Faults[strings.TrimPrefix(f.Op, "fault/")].Gap
					gaps[c.Load()] = max(gaps[c.Load()], time.Duration(c.End-before))
				}
			}
		}
		last[c.Load()] = c.End
	}
	for _, left := range h.of("life/left") {
		if left.Err != "" {
			r.violate("life", "%s: %s", left.Worker, left.Err)
		}
	}
}
