package otelnats

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
)

const (
	patience = 200 * time.Millisecond // of a call, with what others have written
	backlog  = 4096
)

var errBlocked = errors.New("otelnats: a processor, an exporter or a propagator blocks; messages do not wait for it")

// guard runs what others have written, so that its panics and its slowness stay theirs: on a goroutine that lives while
// there is something to run. Callers wait, so that what they did is seen when they return, until one has done so in
// vain; then nobody does before all is done, and what is too much is left out.
type guard struct {
	mu      sync.Mutex
	waiting []func()
	running bool
	behind  bool
	lost    int // spans

	told   time.Time // of an error
	silent int       // errors since
}

// do tells whether f has returned.
func (g *guard) do(f func()) bool {
	done := make(chan struct{})
	if !g.add(func() { defer close(done); f() }) {
		return false
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
	}
	g.mu.Lock()
	first := g.running && !g.behind
	g.behind = g.running
	g.mu.Unlock()
	if first {
		go g.tell(errBlocked)
	}
	return false
}

// add tells whether it makes sense to wait.
func (g *guard) add(f func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.waiting) == backlog {
		g.lost++
		return false
	}
	g.waiting = append(g.waiting, f)
	if !g.running {
		g.running = true
		go g.run()
	}
	return !g.behind
}

func (g *guard) run() {
	ended := false
	defer func() {
		if !ended { // by runtime.Goexit
			go g.run()
		}
	}()
	for {
		g.mu.Lock()
		if len(g.waiting) == 0 {
			lost := g.lost
			g.running, g.behind, g.lost, g.waiting = false, false, 0, nil
			g.mu.Unlock()
			ended = true
			if lost > 0 {
				g.tell(fmt.Errorf("%w: %d spans are lost", errBlocked, lost))
			}
			return
		}
		f := g.waiting[0]
		g.waiting = g.waiting[1:]
		g.mu.Unlock()
		if err := contained(f); err != nil {
			g.tell(err)
		}
	}
}

// tell hands an error to the process's handler, one a minute.
func (g *guard) tell(err error) {
	g.mu.Lock()
	silent := g.silent
	g.silent++
	if time.Since(g.told) < time.Minute {
		g.mu.Unlock()
		return
	}
	g.told, g.silent = time.Now(), 0
	g.mu.Unlock()
	if silent > 0 {
		err = fmt.Errorf("%w (and %d more since the last)", err, silent)
	}
	_ = contained(func() { otel.Handle(err) })
}

// contained returns the panic of f as an error.
func contained(f func()) (err error) {
	returned := false
	defer func() {
		if !returned {
			err = fmt.Errorf("otelnats: panic: %v", recover())
		}
	}()
	f()
	returned = true
	return nil
}
