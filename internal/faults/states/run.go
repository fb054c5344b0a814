package states

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
)

const (
	// What calls are given, by their context or by the Config: little where nothing can be had, and much
	// where it can, for the machine may be busy.
	shortPatience = time.Second
	longPatience  = 10 * time.Second
	// slack is how much later they may end.
	slack = 500 * time.Millisecond
	// What has no context may take this long, or raceLimit under the race detector.
	localLimit = 50 * time.Millisecond
	raceLimit  = 250 * time.Millisecond
	// hung is how long to wait for a call that does not end in its time.
	hung = 15 * time.Second
	// leftBehind is how long what a call began may take to end after it.
	leftBehind = 3 * time.Second
	// secondPatience is that of a Shutdown beside a Close.
	secondPatience = 200 * time.Millisecond
)

var errHung = errors.New("hung")

// Check makes all calls at once in one state of a connection over one kind of line, and closes the client
// in that state. It reports each call that took too long, returned what it may not, or left a goroutine.
func Check(tb testing.TB, line Line, state State, calls []Call, table *Table) {
	tb.Helper()
	stalls, stop := conntest.WatchStalls()
	defer stop()
	s := newScene(tb, line, state)
	client := newLabel("client")
	s.connect(client, handles(calls))
	s.begin()
	r := &run{Scene: s, line: line, stalls: stalls, table: table}
	r.all(calls)
	client.run(r.end)
	r.tellLate()
	r.nothingLeft("the client", client)
}

func handles(calls []Call) bool {
	for _, c := range calls {
		if c.Handle {
			return true
		}
	}
	return false
}

type run struct {
	*Scene
	line   Line
	stalls *conntest.Stalls
	table  *Table

	mu   sync.Mutex
	late []string // told together: when one call is late, many are
}

// all makes the calls at once.
func (r *run) all(calls []Call) {
	r.tb.Helper()
	var wg sync.WaitGroup
	start := make(chan struct{})
	mark := newLabel("calls")
	mark.run(func() {
		for _, c := range calls {
			if r.state.Never && c.Handle {
				continue
			}
			wg.Go(func() {
				<-start
				r.one(c)
			})
		}
	})
	close(start)
	wg.Wait()
	r.nothingLeft("the calls", mark)
}

func (r *run) nothingLeft(what string, mark label) {
	r.tb.Helper()
	if left := mark.left(leftBehind, r.stalls); len(left) > 0 {
		r.tb.Errorf("%s, %s: %s left %d kinds of goroutines behind, the first\n%s",
			r.line, r.state.Name, what, len(left), strings.Join(left[:min(len(left), 3)], "\n\n"))
	}
}

func (r *run) one(c Call) {
	patience := r.state.patience()
	if c.Kind == Waits {
		patience = shortPatience
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	limit := patience + slack + r.state.Slow
	if c.Kind == Local {
		limit = localLimit
		if RaceEnabled {
			limit = raceLimit
		}
	}
	err := r.time(c.Name, limit, func() error { return c.Do(ctx, r.Scene) })
	if !r.state.permits(c.Kind, err) && !errors.Is(err, errHung) {
		r.tb.Errorf("%s, %s: %s returned %v, want one of %v", r.line, r.state.Name, c.Name, err, r.state.says[c.Kind])
	}
	if nats.KindOf(err) == nats.KindUnknown && !errors.Is(err, errHung) {
		r.tb.Errorf("%s, %s: %s returned %v, which has no kind", r.line, r.state.Name, c.Name, err)
	}
}

// time reports what takes longer than its limit, but for what the machine took from the whole process.
func (r *run) time(what string, limit time.Duration, do func() error) error {
	late, err := r.measure(what, limit, do)
	for tries := 1; late != "" && limit < slack && tries < 3 && !errors.Is(err, errHung); tries++ {
		late, err = r.measure(what, limit, do) // a moment's wait for a processor is not one for a lock
	}
	if late != "" {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.late = append(r.late, late)
	}
	return err
}

func (r *run) measure(what string, limit time.Duration, do func() error) (late string, err error) {
	begin := time.Now()
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err = <-done:
	case <-time.After(limit + hung):
		err = errHung
		r.proxy.Cut() // for what can still end
	}
	end := time.Now()
	took, stalled := end.Sub(begin), r.stalls.Between(begin, end)
	r.table.add(r.state.Name, what, took)
	if took > limit+stalled {
		late = fmt.Sprintf("%s %v of %v (stalled %v)", what, took.Round(time.Millisecond), limit, stalled.Round(time.Millisecond))
	}
	return late, err
}

func (r *run) tellLate() {
	r.tb.Helper()
	if len(r.late) > 0 {
		slices.Sort(r.late)
		r.tb.Errorf("%s, %s: %d calls took too long:\n\t%s", r.line, r.state.Name, len(r.late), strings.Join(r.late, "\n\t"))
	}
}

// end closes the client twice at once, and once more. What cannot be saved in the state is an error.
func (r *run) end() {
	r.tb.Helper()
	var wg sync.WaitGroup
	bound := time.Second + slack + r.state.Slow // drain_timeout
	wg.Go(func() { _ = r.time("Client.Close", bound, r.Client.Close) })
	wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), secondPatience)
		defer cancel()
		_ = r.time("Client.Shutdown(beside Close)", secondPatience+slack, func() error { return r.Client.Shutdown(ctx) })
	})
	wg.Wait()
	_ = r.time("Client.Close(again)", slack, r.Client.Close)
	_ = r.time("what the state started", slack, func() error {
		for _, stop := range r.stop {
			stop()
		}
		return nil
	})
}
