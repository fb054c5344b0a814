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
	s.stopped = true
	s.queue, s.stats.PendingBytes = queue{}, 0
	upstream := s.upstream
	s.mu.Unlock()
	s.o.Ended(s.Err())
	if upstream != nil {
		s.e.conn.Unsubscribe(upstream) // detached follows
	}
	s.finishIfOver()
}

// Drain ends the subscription gracefully and returns what was left when ctx ended.
func (s *Subscription) Drain(ctx context.Context, cause error) Stats {
	return s.e.drain(ctx, cause, []*Subscription{s})
}

// Close drains all subscriptions and refuses new ones. It returns the sum of what was left.
func (e *Engine) Close(ctx context.Context) Stats {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	return e.drain(ctx, fault.ErrClosed, e.All())
}

func (e *Engine) drain(ctx context.Context, cause error, subs []*Subscription) (left Stats) {
	for _, s := range subs {
		s.begin(cause)
	}
	left.Pending = e.release(ctx, subs)
	for _, s := range subs {
		s.finishIfOver() // a move had released it
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
	return left
}

// Release ends what the members of queue groups receive, as a drain does, for a move to another server.
// Rejoin makes them receive again.
func (e *Engine) Release(ctx context.Context) (members int, rejoin func()) {
	var groups []*Subscription
	for _, s := range e.All() {
		if s.Queue != "" {
			groups = append(groups, s)
		}
	}
	if lost := e.release(ctx, groups); lost > 0 {
		e.reports.Lost("", "", fault.New("leave server", "", fault.ErrDrainTimeout, "%d messages not received", lost))
	}
	return len(groups), func() {
		for _, s := range groups {
			s.rejoin()
		}
	}
}

// rejoin attaches what a move has released, unless it has ended meanwhile.
func (s *Subscription) rejoin() {
	s.mu.Lock()
	released := s.upstream == nil && s.releasing && s.cause == nil
	s.mu.Unlock()
	if !released {
		return
	}
	switch err := s.attach(); {
	case errors.Is(err, natsgo.ErrConnectionClosed):
		s.Stop(fault.ErrClosed)
	case err != nil:
		err = fault.Wrap("subscribe", s.Subject, err)
		s.Stop(err)
		s.e.reports.Lost(s.Subject, s.Queue, err)
	}
}

// release returns when nothing more comes to subs: the server has confirmed that it sends no more, or
// the connection is broken, and what it sent is in the queues. It returns how many messages were not
// when ctx ended.
func (e *Engine) release(ctx context.Context, subs []*Subscription) (lost int) {
	var mine []*natsgo.Subscription // nobody else releases them
	var gone []chan struct{}
	for _, s := range subs {
		s.mu.Lock()
		if s.upstream != nil {
			gone = append(gone, s.gone)
			if !s.releasing {
				mine = append(mine, s.upstream)
			}
			s.releasing = true
		}
		s.mu.Unlock()
	}
	if len(mine) > 0 {
		e.tell(ctx, mine)
	}
	for _, upstream := range mine {
		lost += received(ctx, upstream)
		e.conn.Unsubscribe(upstream)
	}
	for _, gone := range gone {
		select {
		case <-gone:
		case <-ctx.Done():
			return lost
		}
	}
	return lost
}

// tell returns when the server has heard that it is to send no more, or the connection is broken.
func (e *Engine) tell(ctx context.Context, subs []*natsgo.Subscription) {
	pass, err := e.conn.Enter(ctx, 0)
	if err != nil {
		return
	}
	ctx, cancel := e.conn.WhileUp(ctx)
	defer cancel()
	for _, upstream := range subs {
		if ctx.Err() == nil {
			_ = upstream.Drain() // it fails when it has ended
		}
	}
	pass.Leave()
	_ = e.conn.Flush(ctx) // or the end of ctx: nothing comes after either
}

// received waits until nats.go has delivered what it has. It returns how much it had not when ctx ended.
func received(ctx context.Context, upstream *natsgo.Subscription) int {
	left, _, err := upstream.Pending()
	for err == nil && left > 0 && ctx.Err() == nil {
		time.Sleep(time.Millisecond)
		left, _, err = upstream.Pending()
	}
	return max(left, 0)
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
