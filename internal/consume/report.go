package consume

import (
	"context"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
)

// Stats are the counters of a Consumption.
type Stats struct {
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

// Err returns nil while the Consumption lives, and afterwards why it ended: fault.ErrStopped, fault.ErrClosed
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
	up, _, _ := s.conn.State()
	s.mu.Lock()
	defer s.mu.Unlock()
	return up && s.main.healthy && (s.parked.healthy || !s.Retries) && !s.stopping && !s.denied.Load()
}

// Lag asks the server how many messages of the consumer are not done: those not yet delivered and
// those delivered and not yet acknowledged, to whichever instance, and those in the retry stream, where one is
// used. Without a deadline in ctx, Config.RequestTimeout applies.
func (s *Consumption) Lag(ctx context.Context) (uint64, error) {
	info, err := s.info(ctx, s.Stream)
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
	side, err := s.info(ctx, s.parked.stream)
	if err != nil {
		return lag, err
	}
	return lag + side.NumPending + uint64(side.NumAckPending), nil
}

// info asks for the consumer in one of the two streams.
func (s *Consumption) info(ctx context.Context, stream string) (*jetstream.ConsumerInfo, error) {
	info, err := s.api.ConsumerInfo(ctx, stream, s.Consumer)
	return info, jsapi.Wrap("get consumer", target(stream, s.Consumer), err)
}

// target names a consumer in an error.
func target(stream, consumer string) string { return stream + "/" + consumer }

// Filter returns the consumer's only filter, or nothing.
func (s *Consumption) Filter() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.rules.filters) != 1 {
		return ""
	}
	return s.rules.filters[0]
}

func (s *Stats) add(one Stats) {
	s.InFlight += one.InFlight
	s.Ready += one.Ready
	s.Waiting += one.Waiting
	s.Handled += one.Handled
	s.Failed += one.Failed
	s.Retried += one.Retried
	s.Parked += one.Parked
	s.DeadLettered += one.DeadLettered
	s.HandedBack += one.HandedBack
	s.Expired += one.Expired
	s.Unconfirmed += one.Unconfirmed
}

// Stats returns the counters.
func (s *Consumption) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	stats.Handled, stats.Failed = s.handled.Load(), s.failures.Load()
	stats.Ready = s.held.ready
	stats.Waiting = s.held.count - s.held.ready - stats.InFlight
	return stats
}

const handlerFailed = "message handler failed"

// What a log line says about a message's next try where no time is known.
const (
	nextNever   = "none"
	nextSettled = "as the handler has acknowledged it"
)

// note logs something about a message. Next says when it is tried again.
func (s *Consumption) note(level slog.Level, text string, d *Delivery, next string, attrs ...any) {
	s.log.Log(context.Background(), level, text, append([]any{
		"subject", d.Msg.Subject, "sequence", d.Sequence, "delivery", d.Deliveries, "next_try", next,
	}, attrs...)...)
}

// nextAfter is the next try of a message that the server delivers again after d.
func nextAfter(d time.Duration) string { return "after " + d.Round(time.Millisecond).String() }

// reportFailed reports an error or a panic of the user's code.
func (s *Consumption) reportFailed(level slog.Level, text string, d *Delivery, next string, err error) {
	s.note(level, text, d, next, fault.Attrs(err)...)
	s.e.reports.Failed(d, err)
}

// unconfirmed reports an acknowledgement that the server has not got, as far as is known.
func (s *Consumption) unconfirmed(d *Delivery, err error) {
	s.note(slog.LevelError, "acknowledgement not confirmed; the message may be delivered again", d,
		"after the ack wait, if at all", "error", err)
	s.e.reports.Unconfirmed(d, err)
}
