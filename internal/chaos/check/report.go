package check

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// slack is how much later than its context a call may end, beside the stalls of its process.
const slack = 500 * time.Millisecond

// Loads are the rows of a report.
var Loads = []string{"core", "stream", "consume", "kv", "locks", "objects", "life"}

// Row is what is to be told of a load.
type Row struct {
	Operations, Lost, Duplicated, Late, Violations int
	Gap                                            time.Duration // the longest time without a success, while there was load
}

// Report is the result of a comparison.
type Report struct {
	Rows       map[string]*Row
	Violations []string
}

// violate tells of a broken promise.
func (r *Report) violate(load, text string, args ...any) {
	r.Rows[load].Violations++
	r.Violations = append(r.Violations, load+": "+fmt.Sprintf(text, args...))
}

// Check compares a history with the truth.
func Check(h History, t *Truth) *Report {
	r := &Report{Rows: map[string]*Row{}}
	for _, load := range Loads {
		r.Rows[load] = &Row{}
	}
	r.calls(h)
	r.core(h)
	r.stored(h, t)
	r.handled(h, t)
	r.keys(h, t)
	r.seen(h, t)
	r.locks(h)
	r.objects(h, t)
	return r
}

// calls looks at how long each took, whatever it did.
func (r *Report) calls(h History) {
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
		if c.Denied && !h.during(FaultDenied, c.Begin, c.End) {
			r.violate(c.Load(), "denied while nothing was: %v: %s", &c, c.Err)
		}
		if c.Err != "" || c.Begin > settled {
			continue
		}
		if before := last[c.Load()]; before > 0 {
			row.Gap = max(row.Gap, time.Duration(c.End-before))
		}
		last[c.Load()] = c.End
	}
	for _, left := range h.of("life/left") {
		if left.Err != "" {
			r.violate("life", "%s left behind after Close: %s", left.Worker, left.Err)
		}
	}
}
