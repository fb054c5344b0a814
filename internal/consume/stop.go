package consume

import (
	"context"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// endWith is the graceful end that the end of ctx begins.
func (s *Consumption) endWith(ctx context.Context) {
	if s.BeginStop(context.Cause(ctx)) {
		s.log.Info("a consumption ends with its context", "cause", context.Cause(ctx))
	}
	if s.ctx.Err() != nil {
		return // by Shutdown, whose time was up
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.e.drain)
	defer cancel()
	if handlers := s.AwaitStop(ctx); handlers > 0 {
		s.log.Warn("handlers of a consumption run beyond its end", "handlers", handlers)
	}
}

// BeginStop ends the pulls and hands back what no worker has begun. It tells whether nobody has called it before.
func (s *Consumption) BeginStop(cause error) (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return false
	}
	s.stopping, s.err = true, cause
	s.endQuit()
	s.held.all(func(d *Delivery) {
		switch {
		case d.state == stateRunning, d.state != stateWaiting && s.mustHandle(d):
		case d.state == stateWaiting && d.trial.reason != "" && s.isLast(d):
			s.held.makeReady(d) // for the last attempt to keep its dead letter
		default:
			s.handBack(d)
		}
	})
	s.changed.Broadcast()
	return true
}

// Up to how many deliveries are too few for one to be spent on handing a message back, and how much time the
// workers may then need for what is fetched ahead, where the server is near.
const (
	scarceDeliveries = 5
	scarceAhead      = time.Second
)

// mustHandle tells whether a message is handled although no more are wanted, for every delivery counts. The
// caller holds s.mu.
func (s *Consumption) mustHandle(d *Delivery) bool {
	return s.isScarce() && s.ctx.Err() == nil || s.isLast(d)
}

// isScarce tells whether there are few deliveries. The caller holds s.mu.
func (s *Consumption) isScarce() bool {
	limit := s.maxDeliver()
	return limit > 0 && limit <= scarceDeliveries
}

// isLast tells whether a message may have no other delivery: then it is handled, not handed back. The caller
// holds s.mu.
func (s *Consumption) isLast(d *Delivery) bool {
	limit := s.maxDeliver()
	return limit > 0 && d.Deliveries >= limit
}

// handBack returns a message to the server for others to handle, or later. The caller holds s.mu.
func (s *Consumption) handBack(d *Delivery) {
	verb, reply := wire.Nak, d.lastReply()
	if d.state == stateWaiting {
		verb = s.verbNakAfter(reply, max(d.trial.until-s.now(), minRetryDelay))
	}
	if d.Token.Take() {
		s.noteSent(d, s.conn.TryPublish(reply, "", verb))
	}
	s.stats.HandedBack++
	if d.next != nil && s.held.remove(d) {
		s.changed.Signal()
	}
}

// AwaitStop waits until everything has ended, and returns how many handlers run on when ctx ends. What was
// still to be handled is handed back then.
func (s *Consumption) AwaitStop(ctx context.Context) int {
	select {
	case <-s.done:
		return 0
	case <-ctx.Done():
	}
	s.mu.Lock()
	left := s.stats.InFlight // before they hear of it
	s.cancel(s.err)
	s.endNaks()
	s.held.all(func(d *Delivery) {
		if d.state != stateRunning && !s.mustHandle(d) {
			s.handBack(d)
		}
	})
	s.mu.Unlock()
	return left
}

// stopFlush is how long the end waits for the server to have the last acknowledgements.
const stopFlush = 2 * time.Second

func (s *Consumption) flush() {
	if !s.conn.IsUp() {
		return // they are in the reconnect buffer
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopFlush+s.e.patience())
	defer cancel()
	_ = s.conn.Flush(ctx)
}
