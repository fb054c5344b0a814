package states

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Table has the time that each call took in each state.
type Table struct {
	mu     sync.Mutex
	states []string
	calls  []string
	took   map[[2]string]time.Duration
}

func (t *Table) add(state, call string, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.took == nil {
		t.took = make(map[[2]string]time.Duration)
	}
	if !slices.Contains(t.states, state) {
		t.states = append(t.states, state)
	}
	if !slices.Contains(t.calls, call) {
		t.calls = append(t.calls, call)
	}
	key := [2]string{state, call}
	t.took[key] = max(t.took[key], took)
}

// String returns the table in milliseconds: a line for each call, a column for each state.
func (t *Table) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	states := slices.Sorted(slices.Values(t.states))
	for i, state := range states {
		fmt.Fprintf(&b, "%c: %s\n", 'A'+i, state)
	}
	fmt.Fprintf(&b, "%-28s", "milliseconds")
	for i := range states {
		fmt.Fprintf(&b, "%8c", 'A'+i)
	}
	for _, call := range slices.Sorted(slices.Values(t.calls)) {
		fmt.Fprintf(&b, "\n%-28s", call)
		for _, state := range states {
			if took, ok := t.took[[2]string{state, call}]; ok {
				fmt.Fprintf(&b, "%8.1f", float64(took.Microseconds())/1000)
			} else {
				fmt.Fprintf(&b, "%8s", "-")
			}
		}
	}
	return b.String()
}
