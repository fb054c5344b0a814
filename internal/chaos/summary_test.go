package chaos_test

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/chaos/check"
)

// summary is a run as chaos.json tells it.
type summary struct {
	Seed   uint64        `json:"seed"`
	For    time.Duration `json:"for"`
	Begin  time.Time     `json:"begin"`
	Cores  int           `json:"cores"`
	Passed int           `json:"passed"`
	Failed int           `json:"failed"`
	// Rounds are the rows of the table.
	Rounds []summaryRound `json:"rounds"`
	// Faults are those of all rounds.
	Faults map[string]*check.Fault `json:"faults"`
}

type summaryRound struct {
	Scenario string                `json:"scenario"`
	Seed     uint64                `json:"seed"`
	Faults   int                   `json:"faults"`
	Rows     map[string]*check.Row `json:"rows"`
}

func (s *summary) add(scenario string, seed uint64, report *check.Report) {
	s.Rounds = append(s.Rounds, summaryRound{scenario, seed, times(report), report.Rows})
	for name, f := range report.Faults {
		if s.Faults[name] == nil {
			s.Faults[name] = &check.Fault{Gap: map[string]time.Duration{}}
		}
		s.Faults[name].Times += f.Times
		for load, gap := range f.Gap {
			s.Faults[name].Gap[load] = max(s.Faults[name].Gap[load], gap)
		}
	}
}

func times(report *check.Report) (sum int) {
	for _, f := range report.Faults {
		sum += f.Times
	}
	return sum
}

func short(d time.Duration) time.Duration { return d.Round(10 * time.Millisecond) }

// printRows prints a round.
func printRows(name string, report *check.Report) {
	for _, load := range check.Loads {
		row := report.Rows[load]
		fmt.Printf("%-32s %6d %9d %9d %9v %5d %10d %5d %10d\n", name+" "+load, times(report),
			row.Operations, row.Failed, short(row.Gap), row.Lost, row.Duplicated, row.Late, row.Violations)
	}
}

// print closes the table: the worst gaps by fault, though often two were at once.
func (s *summary) print() {
	for _, name := range slices.Sorted(maps.Keys(s.Faults)) {
		fmt.Printf("%-26s %4d times, worst gap", name, s.Faults[name].Times)
		for _, load := range check.Loads {
			if gap, ok := s.Faults[name].Gap[load]; ok {
				fmt.Printf(" %s %v", load, short(gap))
			}
		}
		fmt.Println()
	}
	fmt.Printf("%d passed, %d failed\n", s.Passed, s.Failed)
}
