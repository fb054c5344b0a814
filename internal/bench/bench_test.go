package main

import (
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMain makes the test's own program the server, as main does.
func TestMain(m *testing.M) {
	if os.Getenv(serverStore) != "" || os.Getenv(ownTurn) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestEverySideWorks has each do a little: what it would measure is not looked at, but that it can.
func TestEverySideWorks(t *testing.T) {
	huge := func(w workload) bool { return w.size >= 1<<30 } // takes as long as all the others together
	all := slices.DeleteFunc(workloads(), huge)
	for i := range all {
		all[i].n = min(all[i].n, 20)
	}
	all = append(all, floors(all)...)
	rep := newReport(1, true)
	rep.hold = time.Millisecond
	if err := rep.measure(t.Context(), all, 0); err != nil {
		t.Fatal(err)
	}
	rep.finish(all)
	if len(rep.Failed) > 0 {
		t.Error(rep.Failed)
	}
	var table strings.Builder
	if err := rep.table(&table); err != nil {
		t.Fatal(err)
	}
	for _, w := range all {
		if !strings.Contains(table.String(), w.name) {
			t.Errorf("%s is not in the table", w.name)
		}
	}
	drawing := filepath.Join(t.TempDir(), "out.svg")
	if err := rep.plot(drawing); err != nil {
		t.Fatal(err)
	}
	if svg, err := os.ReadFile(drawing); err != nil || !strings.Contains(string(svg), "watermill") {
		t.Errorf("the drawing does not name the peers: %v", err)
	}
}

// TestAFailedTurnIsTold has all other turns taken, and told, nevertheless.
func TestAFailedTurnIsTold(t *testing.T) {
	wrong := errors.New("out of order")
	turns := 0
	all := []workload{
		{name: "one", n: 10, sides: sides{
			"raw": func(r *round) { r.each(func() error { return nil }) },
			"ours": func(r *round) {
				r.ends = append(r.ends, func() { r.check(wrong) })
				if turns++; turns > 1 {
					r.ends = nil
				}
				r.each(func() error { return nil })
			},
		}},
		{name: "nobody knows", idle: true, sides: sides{"raw": func(*round) {}}},
	}
	rep := newReport(3, false)
	if err := rep.measure(t.Context(), all, 0); err != nil {
		t.Fatal(err)
	}
	rep.finish(all)
	if len(rep.Failed) != 4 || !strings.Contains(rep.Failed[0], "one, ours, round 1: out of order") || !strings.Contains(rep.Failed[1], "no such turn") {
		t.Errorf("%q", rep.Failed)
	}
	if row := rep.Rows[0]; len(row.Sides["raw"]) != 3 || len(row.Sides["ours"]) != 2 || row.Ratio == nil {
		t.Errorf("%+v", row)
	}
	var table strings.Builder
	if err := rep.table(&table); err != nil || !strings.Contains(table.String(), "FAILED:") {
		t.Errorf("%v: %s", err, table.String())
	}
	if _, err := json.Marshal(rep); err != nil {
		t.Error(err)
	}
}

// TestPageHasEveryWorkload compares the page of the figures with the workloads.
func TestPageHasEveryWorkload(t *testing.T) {
	const file = "../../docs/performance.md"
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, row := range regexp.MustCompile(`(?m)^\| ([a-z0-9].*?) \|`).FindAllStringSubmatch(string(page), -1) {
		listed[row[1]] = true
	}
	short := strings.Contains(string(page), "short rounds")
	for _, w := range workloads() {
		if required := !w.long || !short; required && !listed[w.name] {
			t.Errorf("%s lacks %q: make compare, and go run ./tools/proof -compare .bin/compare.json", file, w.name)
		}
		delete(listed, w.name)
	}
	for name := range listed {
		t.Errorf("%s has %q, which is no workload", file, name)
	}
}

func TestRatio(t *testing.T) {
	near := func(got, want float64) bool { return math.Abs(got-want) < 0.0005 }
	// Of ln 2, 0 and -ln 2 the mean is 0, the deviation ln 2; Student's t of 2 degrees is 4.3027.
	half := math.Exp(4.302653 * math.Ln2 / math.Sqrt(3))
	if r := ratioOf([]float64{2, 3, 4}, []float64{1, 3, 8}); r == nil || !near(r.Mean, 1) || !near(r.Low*half, 1) || !near(r.High/half, 1) {
		t.Errorf("%+v, and the interval is 1 times or by %v", r, half)
	}
	if r := ratioOf([]float64{3}, []float64{2}); r == nil || !near(r.Mean, 1.5) || r.High != 0 {
		t.Errorf("one round has a ratio and no interval: %+v", r)
	}
	if r := ratioOf([]float64{1}, []float64{0}); r != nil {
		t.Errorf("divided by nothing: %+v", r)
	}
}
