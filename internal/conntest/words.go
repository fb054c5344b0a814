package conntest

import (
	"slices"
	"strings"
	"sync"
)

// Words records what an engine reports. It is safe for concurrent use.
type Words struct {
	mu   sync.Mutex
	said []string
}

// Say records one report.
func (w *Words) Say(words ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, strings.Join(words, " "))
}

// Said returns the reports so far.
func (w *Words) Said() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.said)
}
