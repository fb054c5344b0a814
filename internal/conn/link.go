package conn

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// link follows whether the connection stands, for those who wait for it to come or to break.
type link struct {
	mu     sync.Mutex
	up     atomic.Bool // changed under the lock
	isDead bool
	ups    uint64        // how often the connection came to stand
	breaks uint64        // how often it broke
	change chan struct{} // closed and replaced at every change
}

// set records the connection's state and tells whether it has changed.
func (l *link) set(up bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.up.Load() == up || l.isDead {
		return false
	}
	if up {
		l.ups++
	} else {
		l.breaks++
	}
	l.up.Store(up)
	l.signal()
	return true
}

// close wakes every waiter for good.
func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isDead {
		l.isDead = true
		l.up.Store(false)
		l.signal()
	}
}

func (l *link) signal() {
	if l.change != nil {
		close(l.change)
	}
	l.change = make(chan struct{})
}

// State returns whether the connection stands, how often it broke, and a channel that is closed at
// the next change.
func (l *link) State() (up bool, breaks uint64, change <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up.Load(), l.breaks, l.next()
}

// reconnects returns how often the connection came back.
func (l *link) reconnects() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(l.ups, 1) - 1
}

// next returns the channel that is closed at the next change. The caller holds l.mu.
func (l *link) next() <-chan struct{} {
	if l.change == nil {
		l.change = make(chan struct{})
	}
	return l.change
}

// Wait returns nil once the connection stands, ErrClosed when it never will again, and ErrNotConnected
// when ctx ends first.
func (l *link) Wait(ctx context.Context) error { return l.WaitPast(ctx, 0) }

// WaitPast is Wait for a connection that came after the breaks-th break.
func (l *link) WaitPast(ctx context.Context, breaks uint64) error {
	for {
		l.mu.Lock()
		up, dead, now, change := l.up.Load(), l.isDead, l.breaks, l.next()
		l.mu.Unlock()
		switch {
		case up && now >= breaks:
			return nil
		case dead:
			return fault.ErrClosed
		}
		select {
		case <-change:
		case <-ctx.Done():
			return away(ctx)
		}
	}
}

// away is the error of who has waited in vain for a connection until ctx ended.
func away(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), fault.ErrClosed) {
		return fault.ErrClosed
	}
	return fault.ErrNotConnected
}

// WhileUp returns a context that ends with ctx and when the connection breaks: upstream waits for
// answers that a server which is gone cannot give any more.
func (l *link) WhileUp(ctx context.Context) (context.Context, context.CancelFunc) {
	up, breaks, change := l.State()
	ctx, cancel := context.WithCancelCause(ctx)
	if !up {
		cancel(fault.ErrConnectionLost)
	}
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-change:
			}
			var now uint64
			if up, now, change = l.State(); !up || now != breaks {
				cancel(fault.ErrConnectionLost)
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}
