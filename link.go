package nats

import (
	"context"
	"sync"
)

// link follows whether the connection stands, for those who wait for it to come or to break.
type link struct {
	mu     sync.Mutex
	isUp   bool
	isDead bool
	breaks uint64        // how often the connection broke
	change chan struct{} // closed and replaced at every change
}

// set records a change of the connection's state.
func (l *link) set(up bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isUp == up || l.isDead {
		return
	}
	if !up {
		l.breaks++
	}
	l.isUp = up
	l.signal()
}

// waitPast is wait for a connection after the one that was broken for the breaks-th time.
func (l *link) waitPast(ctx context.Context, breaks uint64) error {
	for {
		_, now, change := l.state()
		if now > breaks {
			return l.wait(ctx)
		}
		select {
		case <-change:
		case <-ctx.Done():
			return ErrNotConnected
		}
	}
}

// wasUp tells whether the connection ever stood.
func (l *link) wasUp() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.isUp || l.breaks > 0
}

// close wakes every waiter for good.
func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isDead {
		l.isUp, l.isDead = false, true
		l.signal()
	}
}

func (l *link) signal() {
	if l.change != nil {
		close(l.change)
	}
	l.change = make(chan struct{})
}

// state returns whether the connection stands, how often it broke, and a channel that is closed at
// the next change.
func (l *link) state() (up bool, breaks uint64, change <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.isUp, l.breaks, l.next()
}

// next returns the channel that is closed at the next change. The caller holds l.mu.
func (l *link) next() <-chan struct{} {
	if l.change == nil {
		l.change = make(chan struct{})
	}
	return l.change
}

// wait returns nil once the connection stands, ErrClosed when it never will again, and
// ErrNotConnected when ctx ends first.
func (l *link) wait(ctx context.Context) error {
	for {
		l.mu.Lock()
		up, dead, change := l.isUp, l.isDead, l.next()
		l.mu.Unlock()
		switch {
		case up:
			return nil
		case dead:
			return ErrClosed
		}
		select {
		case <-change:
		case <-ctx.Done():
			return ErrNotConnected
		}
	}
}

// whileUp returns a context that ends with ctx and when the connection breaks: upstream waits for
// answers that a server which is gone cannot give any more.
func (l *link) whileUp(ctx context.Context) (context.Context, context.CancelFunc) {
	up, breaks, change := l.state()
	ctx, cancel := context.WithCancelCause(ctx)
	if !up {
		cancel(ErrConnectionLost)
	}
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-change:
			}
			var now uint64
			if up, now, change = l.state(); !up || now != breaks {
				cancel(ErrConnectionLost)
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}
