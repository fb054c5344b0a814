package lifecycle

import (
	"context"
	"sync"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// Life is what the parts of a client share of its beginning and its end. Its methods are safe for
// concurrent use.
type Life struct {
	ctx      context.Context
	cancel   context.CancelCauseFunc
	draining chan struct{}
	ending   chan struct{}
	closed   chan struct{} // when Close has returned
	done     func()        // end, made once

	mu      sync.Mutex
	begun   bool // Close has
	calls   int
	idle    chan struct{} // closed when the last call ends; nil before somebody waits
	closers map[*closer]struct{}
}

type closer struct{ close func() }

// New returns a Life.
func New() *Life {
	l := &Life{
		closers:  make(map[*closer]struct{}),
		draining: make(chan struct{}), ending: make(chan struct{}), closed: make(chan struct{}),
	}
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	l.done = l.end
	return l
}

// Context returns a context that ends with the Life, for ErrClosed.
func (l *Life) Context() context.Context { return l.ctx }

// Draining returns a channel that is closed when nothing new is to be received.
func (l *Life) Draining() <-chan struct{} { return l.draining }

// IsDraining tells whether that has come.
func (l *Life) IsDraining() bool { return over(l.draining) }

// Ending returns a channel that is closed when no call may begin any more.
func (l *Life) Ending() <-chan struct{} { return l.ending }

// Begin registers a call that Close lets end, which the call tells by done. It returns ErrClosed when
// the Life is ending.
func (l *Life) Begin() (done func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if over(l.ending) {
		return nil, fault.ErrClosed
	}
	l.calls++
	return l.done, nil
}

// OnClose registers f, which is called when the Life is ending, and returns what takes it back. It
// returns ErrClosed when that has come.
func (l *Life) OnClose(f func()) (forget func(), err error) {
	entry := &closer{f}
	l.mu.Lock()
	defer l.mu.Unlock()
	if over(l.ending) {
		return nil, fault.ErrClosed
	}
	l.closers[entry] = struct{}{}
	return func() {
		l.mu.Lock()
		delete(l.closers, entry)
		l.mu.Unlock()
	}, nil
}

// Join begins what goes on until it is told to end by f, which is called when the Life is ending; Close waits until it
// has left.
func (l *Life) Join(f func()) (leave func(), err error) {
	ended, err := l.Begin()
	if err != nil {
		return nil, err
	}
	forget, err := l.OnClose(f)
	if err != nil { // Close has begun in between
		ended()
		return nil, err
	}
	return func() {
		forget()
		ended()
	}, nil
}

// Attend begins a call as Begin does, whose context ends when the Life is ending and there is no connection, as up tells:
// then Close has nothing to wait for.
func (l *Life) Attend(ctx context.Context, up func() bool) (attended context.Context, done func(), err error) {
	ended, err := l.Begin()
	if err != nil {
		return nil, nil, err
	}
	attended, cancel := context.WithCancelCause(ctx)
	leave := func() {
		if !up() {
			cancel(fault.ErrClosed)
		}
	}
	forget, err := l.OnClose(leave)
	if err != nil { // Close has begun in between
		forget = func() {}
		leave()
	}
	return attended, func() {
		forget()
		cancel(nil)
		ended()
	}, nil
}

// End ends the Life without the care of Close, which may still follow.
func (l *Life) End() { l.cancel(fault.ErrClosed) }

// Close leads the Life through its phases: drain lets the handlers return, and send sees to what they
// and the last calls have left. Both keep to ctx themselves, as the wait for the calls does. A Life is
// closed once: where another call was first, Close waits for it and returns false, and the cause of
// ctx's end when that comes before.
func (l *Life) Close(ctx context.Context, drain, send func(context.Context)) (first bool, err error) {
	l.mu.Lock()
	first = !l.begun
	l.begun = true
	l.mu.Unlock()
	if !first {
		select {
		case <-l.closed:
			return false, nil
		case <-ctx.Done():
			return false, fault.Ended(ctx)
		}
	}
	defer close(l.closed)
	close(l.draining)
	drain(ctx)
	calls := l.startEnding()
	select {
	case <-calls:
	case <-ctx.Done():
	}
	send(ctx)
	l.End()
	return true, nil
}

// startEnding closes what is registered and returns a channel that is closed when no call is left.
func (l *Life) startEnding() <-chan struct{} {
	l.mu.Lock()
	close(l.ending)
	closers := l.closers
	l.closers = nil
	l.idle = make(chan struct{})
	if l.calls == 0 {
		close(l.idle)
	}
	l.mu.Unlock()
	for entry := range closers {
		entry.close()
	}
	return l.idle
}

func (l *Life) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.calls--; l.calls == 0 && l.idle != nil {
		close(l.idle)
	}
}

func over(phase <-chan struct{}) bool {
	select {
	case <-phase:
		return true
	default:
		return false
	}
}
