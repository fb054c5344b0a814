package receive

import (
	"context"
	"errors"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// begin begins the end. The first cause counts.
func (s *Subscription) begin(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause == nil {
		s.cause = cause
	}
}

// Stop ends the subscription at once: what waits is dropped, and a running handler is left to end.
func (s *Subscription) Stop(cause error) {
	s.begin(cause)
	s.mu.Lock()
	s.stopped.Store(true)
	waiting := s.queue
	s.queue = queue{}
	upstream := s.upstream
	s.mu.Unlock()
	s.o.Ended(s.Err())
	for b := waiting.take(); b != nil; b = waiting.take() {
		s.refuse(b)
	}
	switch {
	case upstream == nil:
	case s.o.Refuse != nil: // what the server sends meanwhile is refused, too
		go s.endRefusing()
	default:
		s.e.conn.Unsubscribe(upstream) // detached follows
	}
	s.finishIfOver()
}

func (s *Subscription) endRefusing() {
	bounded, cancel := context.WithTimeout(context.Background(), s.o.DrainTimeout)
	defer cancel()
	_, _ = s.e.release(bounded, []*Subscription{s}) // nobody is promised an end in time
}

// Drain ends the subscription gracefully. The error says what was left when ctx ended.
func (s *Subscription) Drain(ctx context.Context, cause error) error {
	return s.e.Drain(ctx, "drain", s.Subject, cause, s)
}

// Drain is that of several subscriptions at once.
func (e *Engine) Drain(ctx context.Context, op, target string, cause error, subs ...*Subscription) error {
	left, err := e.drain(ctx, cause, subs)
	if left.InFlight+left.Pending > 0 {
		return fault.New(op, target, fault.ErrDrainTimeout, "%d handlers still running, %d messages not handled: %w",
			left.InFlight, left.Pending, fault.Ended(ctx))
	}
	if err != nil {
		return fault.New(op, target, fault.ErrDrainTimeout, "%w", err)
	}
	return nil
}

// endWith is the drain that the end of the context of Subscribe begins.
func (s *Subscription) endWith(ctx context.Context) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.o.DrainTimeout)
	defer cancel()
	if err := s.Drain(bounded, context.Cause(ctx)); err != nil {
		s.e.reports.Lost(s.Subject, s.Queue, err)
	}
}

// Close drains all subscriptions and refuses new ones. It returns the sum of what was left.
func (e *Engine) Close(ctx context.Context) Stats {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	left, _ := e.drain(ctx, fault.ErrClosed, e.All()) // that the server is silent shows when the rest is sent
	return left
}

// drain returns the sum of what was left when ctx ended, and the error of release.
func (e *Engine) drain(ctx context.Context, cause error, subs []*Subscription) (left Stats, err error) {
	for _, s := range subs {
		s.begin(cause)
	}
	left.Pending, err = e.release(ctx, subs)
	for _, s := range subs {
		s.finishIfOver()
		select {
		case <-s.done:
			continue
		default:
		}
		select {
		case <-s.done:
		case <-ctx.Done():
			one := s.Stats()
			left.InFlight += one.InFlight
			left.Pending += one.Pending
			s.Stop(cause)
		}
	}
	return left, err
}

// Groups returns the live subscriptions of queue groups, for a move to another server.
func (e *Engine) Groups() (groups []*natsgo.Subscription) {
	for _, s := range e.All() {
		s.mu.Lock()
		if s.Queue != "" && s.upstream != nil && !s.releasing && s.cause == nil {
			groups = append(groups, s.upstream)
		}
		s.mu.Unlock()
	}
	return groups
}

// errUnconfirmed means that what the server has sent may be lost.
var errUnconfirmed = errors.New("the server did not confirm in time that it sends no more")

// release returns when nothing more comes to subs: the server has confirmed that it sends no more, or
// the connection is broken, and what it sent is in the queues. When ctx ends before, it returns an error and
// how many messages nats.go still had.
func (e *Engine) release(ctx context.Context, subs []*Subscription) (lost int, err error) {
	var mine []*natsgo.Subscription // nobody else releases them
	var gone []chan struct{}
	for _, s := range subs {
		s.mu.Lock()
		if s.upstream != nil {
			if s.gone == nil {
				s.gone = make(chan struct{})
			}
			gone = append(gone, s.gone)
			if !s.releasing {
				mine = append(mine, s.upstream)
			}
			s.releasing = true
		}
		s.mu.Unlock()
	}
	if len(mine) > 0 {
		err = e.tell(ctx, mine)
	}
	for _, upstream := range mine {
		lost += received(ctx, upstream)
		e.conn.Unsubscribe(upstream)
	}
	for _, gone := range gone {
		select {
		case <-gone:
		case <-ctx.Done():
			return lost, errUnconfirmed
		}
	}
	return lost, err
}

// tell returns nil when the server has heard that it is to send no more, or the connection is broken.
func (e *Engine) tell(ctx context.Context, subs []*natsgo.Subscription) error {
	pass, err := e.conn.Enter(ctx, 0)
	if err != nil {
		return errUnconfirmed
	}
	up, cancel := e.conn.WhileUp(ctx)
	defer cancel()
	for _, upstream := range subs {
		if up.Err() == nil {
			_ = upstream.Drain() // it fails when it has ended
		}
	}
	pass.Leave()
	if e.conn.Flush(up) != nil && ctx.Err() != nil {
		return errUnconfirmed
	}
	return nil
}

// received waits until nats.go has delivered what it has. It returns how much it had not when ctx ended.
func received(ctx context.Context, upstream *natsgo.Subscription) int {
	left, _, err := upstream.Pending()
	for err == nil && left > 0 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
		left, _, err = upstream.Pending()
	}
	return max(left, 0) // it is -1 when there is an error
}

// forgetTimeout is more than enough to put into the queues what nats.go has received.
const forgetTimeout = 100 * time.Millisecond

// Forget makes nats.go forget what is being released. It is called before nats.go gets a connection,
// whose server it would tell of it, and then forget it without a word: that server would give a queue
// group's share to nobody.
func (e *Engine) Forget() {
	ctx, cancel := context.WithTimeout(context.Background(), forgetTimeout)
	defer cancel()
	for _, s := range e.All() {
		s.mu.Lock()
		upstream := s.upstream
		if !s.releasing {
			upstream = nil
		}
		s.mu.Unlock()
		if upstream != nil {
			received(ctx, upstream)
			_ = upstream.Unsubscribe() // it fails when it has ended
		}
	}
}
