package nats

import (
	"context"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// Stop ends the Consumption gracefully: no more messages are asked for, those that wait are handed back to
// the server at once, and Stop returns when the last handler has returned and its message is settled. To be
// handed back costs a message one of its deliveries. So where the consumer's MaxDeliver or WithMaxDeliver is 5
// or less, no more is fetched ahead than the workers handle within a second, about, or a quarter of
// Config.DrainTimeout, and that is handled. What has been asked for is waited for, for 0.3 s where none comes.
// When ctx ends first (without a deadline: Config.DrainTimeout) it ends the messages' context and returns
// ErrDrainTimeout with the number of handlers left; they are still acknowledged if they return before the
// client closes. A second call waits as well. Called from a handler it would wait for itself until the time
// is up.
func (s *Consumption) Stop(ctx context.Context) error {
	const op = "stop consuming"
	if ctx == nil {
		return errNilContext(op, path(s.stream, s.consumer))
	}
	ctx, cancel := s.client.drainDeadline(ctx)
	defer cancel()
	s.beginStop(ErrStopped)
	if handlers := s.awaitStop(ctx); handlers > 0 {
		return fail(op, path(s.stream, s.consumer), ErrDrainTimeout, "%d handlers still running: %w", handlers, fault.Ended(ctx))
	}
	return nil
}

// endWith is Stop for the end of ctx.
func (s *Consumption) endWith(ctx context.Context) {
	s.beginStop(context.Cause(ctx))
	if s.origin.ctx.Err() != nil {
		return // by Shutdown, whose time was up
	}
	ctx, cancel := s.client.drainDeadline(context.WithoutCancel(ctx))
	defer cancel()
	if handlers := s.awaitStop(ctx); handlers > 0 {
		s.client.log.Warn("handlers of a consumption run beyond its end",
			"stream", s.stream, "consumer", s.consumer, "handlers", handlers)
	}
}

// beginStop ends the pulls and hands back what no worker has begun.
func (s *Consumption) beginStop(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping {
		return
	}
	s.stopping, s.err = true, cause
	s.endQuit()
	s.endCrowd()
	if s.waiting.timer != nil {
		s.waiting.timer.Stop()
	}
	s.held.all(func(d *delivery) {
		switch {
		case d.state == stateRunning, d.state != stateWaiting && s.mustHandle(d):
		case d.state == stateWaiting && d.trial.reason != "" && s.isLast(d):
			s.held.makeReady(d) // for the last attempt to keep its dead letter
		default:
			s.handBack(d)
		}
	})
	s.changed.Broadcast()
}

// Up to how many deliveries are too few for one to be spent on handing a message back, and how much time the
// workers may then need for what is fetched ahead, where the server is near.
const (
	scarceDeliveries = 5
	scarceAhead      = time.Second
)

// mustHandle tells whether a message is handled although no more are wanted, for every delivery counts. The
// caller holds s.mu.
func (s *Consumption) mustHandle(d *delivery) bool {
	return s.isScarce() && s.origin.ctx.Err() == nil || s.isLast(d)
}

// isScarce tells whether there are few deliveries. The caller holds s.mu.
func (s *Consumption) isScarce() bool {
	limit := s.maxDeliver()
	return limit > 0 && limit <= scarceDeliveries
}

// isLast tells whether a message may have no other delivery: then it is handled, not handed back. The caller
// holds s.mu.
func (s *Consumption) isLast(d *delivery) bool {
	limit := s.maxDeliver()
	return limit > 0 && d.deliveries >= limit
}

// handBack returns a message to the server for others to handle, or later. The caller holds s.mu.
func (s *Consumption) handBack(d *delivery) {
	verb := wire.Nak
	if d.state == stateWaiting {
		verb = s.verbNakAfter(&s.rules, d.msg.msg.Reply, max(time.Until(d.trial.until), minRetryDelay))
	}
	d.tryFinish(verb)
	s.stats.HandedBack++
	if d.next != nil && s.held.remove(d) {
		s.changed.Signal()
	}
}

// awaitStop waits until everything has ended, and returns how many handlers run on when ctx ends. What was
// still to be handled is handed back then.
func (s *Consumption) awaitStop(ctx context.Context) int {
	select {
	case <-s.done:
		return 0
	case <-ctx.Done():
	}
	s.mu.Lock()
	left := s.stats.InFlight // before they hear of it
	s.cancel(s.err)
	s.naks.end()
	s.held.all(func(d *delivery) {
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
	if up, _, _ := s.client.conn.State(); !up {
		return // they are in the reconnect buffer
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopFlush+s.patience())
	defer cancel()
	_ = s.client.conn.Flush(ctx)
}

func (c *Client) addConsumption(s *Consumption) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isClosing() {
		return ErrClosed
	}
	c.consumptions[s] = struct{}{}
	return nil
}

func (c *Client) removeConsumption(s *Consumption) {
	c.mu.Lock()
	delete(c.consumptions, s)
	c.mu.Unlock()
}

func (c *Client) runningConsumptions() []*Consumption {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*Consumption, 0, len(c.consumptions))
	for s := range c.consumptions {
		all = append(all, s)
	}
	return all
}

// denyAck tells whether the denied subject is that of an acknowledgement. The next ones of that consumer are
// confirmed, so that it is known when they are allowed.
func (c *Client) denyAck(subject string) bool {
	stream, consumer, ok := wire.AckOf(subject)
	if !ok {
		return false
	}
	for _, s := range c.runningConsumptions() {
		if s.stream == stream && s.consumer == consumer {
			s.denied.Store(true)
		}
	}
	return true
}
