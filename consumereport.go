package nats

import (
	"context"
	"log/slog"
	"time"
)

// ConsumeStats are the counters of a Consumption.
type ConsumeStats struct {
	// InFlight handlers are running.
	InFlight int
	// Ready messages are fetched ahead and wait for a worker.
	Ready int
	// Waiting messages are held here until their next try, or behind one of their key.
	Waiting int
	// Handled messages, of which Failed ended in an error or a panic. Every try counts.
	Handled uint64
	Failed  uint64
	// Retried messages were sent away to be delivered again later, of which Parked went through the
	// retry stream.
	Retried uint64
	Parked  uint64
	// DeadLettered messages are in the dead-letter stream.
	DeadLettered uint64
	// HandedBack messages were returned to the server unhandled, by Stop or for want of a worker.
	HandedBack uint64
	// Expired messages were handled for longer than WithMaxHandling allows.
	Expired uint64
	// Unconfirmed acknowledgements got no answer from the server: see WithConfirmedAcks.
	Unconfirmed uint64
}

// Done returns a channel that is closed when the Consumption has ended and its last handler has
// returned.
func (s *Consumption) Done() <-chan struct{} { return s.done }

// Err returns nil while the Consumption lives, and afterwards why it ended: ErrStopped, ErrClosed
// with the client, or the cause with which its context ended.
func (s *Consumption) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Healthy tells whether the server was heard on the consumer's behalf of late. It is false while
// disconnected, while the consumer or its stream is gone, during an election, while acknowledgements are
// denied, and after the end, within two seconds as a rule: the death of a leader whose consumer has replicas is
// known when they elect another one, some seconds later, and a leader that is frozen, without a word, after three.
func (s *Consumption) Healthy() bool {
	up, _, _ := s.client.conn.State()
	s.mu.Lock()
	defer s.mu.Unlock()
	return up && s.main.healthy && (s.parked.healthy || !s.opts.retries) && !s.stopping && !s.denied.Load()
}

// Lag asks the server how many messages of the consumer are not done: those not yet delivered and
// those delivered and not yet acknowledged, to whichever instance, and those in the retry stream, where one is
// used. Without a deadline in ctx, Config.RequestTimeout applies.
func (s *Consumption) Lag(ctx context.Context) (uint64, error) {
	info, err := s.client.GetConsumerInfo(ctx, s.stream, s.consumer)
	if err != nil {
		return 0, err
	}
	s.noteCrowd(info)
	lag := info.NumPending + uint64(info.NumAckPending)
	s.mu.Lock()
	sided := s.sided
	s.mu.Unlock()
	if !sided {
		return lag, nil
	}
	side, err := s.client.GetConsumerInfo(ctx, s.parked.stream, s.consumer)
	if err != nil {
		return lag, err
	}
	return lag + side.NumPending + uint64(side.NumAckPending), nil
}

// Stats returns the counters.
func (s *Consumption) Stats() ConsumeStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	stats.Handled, stats.Failed = s.handled.Load(), s.failures.Load()
	stats.Ready = s.held.ready
	stats.Waiting = s.held.count - s.held.ready - stats.InFlight
	return stats
}

// What a log line says about a message's next try where no time is known.
const (
	nextNever   = "none"
	nextSettled = "as the handler has acknowledged it"
)

// note logs something about a message. Next says when it is tried again.
func (s *Consumption) note(level slog.Level, text string, d *delivery, next string, attrs ...any) {
	s.client.log.Log(context.Background(), level, text, append([]any{
		"stream", s.stream, "consumer", s.consumer, "subject", d.msg.Subject,
		"sequence", d.seq, "delivery", d.deliveries, "next_try", next,
	}, attrs...)...)
}

// nextAfter is the next try of a message that the server delivers again after d.
func nextAfter(d time.Duration) string { return "after " + d.Round(time.Millisecond).String() }

// tell reports an event about a message.
func (s *Consumption) tell(kind EventType, d *delivery, err error) {
	s.client.emit(Event{
		Type: kind, Stream: s.stream, Consumer: s.consumer, Subject: d.msg.Subject,
		Sequence: d.seq, Deliveries: d.deliveries, Err: err,
	})
}

// reportFailed reports an error or a panic of the user's code.
func (s *Consumption) reportFailed(level slog.Level, text string, d *delivery, next string, err error) {
	s.note(level, text, d, next, failureAttrs(err)...)
	s.tell(EventHandlerError, d, err)
}

// unconfirmed reports an acknowledgement that the server has not got, as far as is known.
func (s *Consumption) unconfirmed(d *delivery, err error) {
	s.note(slog.LevelError, "acknowledgement not confirmed; the message may be delivered again", d,
		"after the ack wait, if at all", "error", err)
	s.tell(EventUnconfirmedAck, d, err)
}
