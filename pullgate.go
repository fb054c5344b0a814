package nats

import (
	"context"
	"sync"
)

// pullGate lets pulls settle before the connection is replaced on purpose: messages that were on
// their way to a pull would otherwise be delivered again, after the ack wait.
type pullGate struct {
	mu     sync.Mutex
	leave  chan struct{} // closed when the pulls inside must settle
	shut   chan struct{} // closed when pulls may enter again; nil while they may
	inside int
	empty  chan struct{} // closed when the last pull has left; nil unless somebody waits
}

// enter waits while the gate is shut. The pull must settle and exit once leave is closed.
func (g *pullGate) enter(ctx context.Context) (leave <-chan struct{}, err error) {
	for {
		g.mu.Lock()
		shut := g.shut
		if shut == nil {
			defer g.mu.Unlock()
			if g.leave == nil {
				g.leave = make(chan struct{})
			}
			g.inside++
			return g.leave, nil
		}
		g.mu.Unlock()
		select {
		case <-shut:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (g *pullGate) exit() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.inside == 0 && g.empty != nil {
		close(g.empty)
		g.empty = nil
	}
}

// settle shuts the gate, waits until all pulls have left or ctx ends, and returns what opens it.
func (g *pullGate) settle(ctx context.Context) (open func()) {
	g.mu.Lock()
	shut := make(chan struct{})
	g.shut = shut
	if g.leave != nil {
		close(g.leave)
		g.leave = nil
	}
	empty := make(chan struct{})
	if g.inside == 0 {
		close(empty)
	} else {
		g.empty = empty
	}
	g.mu.Unlock()
	select {
	case <-empty:
	case <-ctx.Done():
	}
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.shut = nil
		close(shut)
	}
}
