package consume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
)

// Stats are the counters of a Consumption.
type Stats struct {
	InFlight, Ready, Waiting int    // of what is held
	Handled, Failed          uint64 // every try counts
	Retried, Parked          uint64
	DeadLettered             uint64
	HandedBack               uint64
	Expired                  uint64
	Unconfirmed              uint64
}

// Done returns a channel that is closed when the last handler has returned.
func (s *Consumption) Done() <-chan struct{} { return s.done }

// Err returns why the Consumption ends, or nil.
func (s *Consumption) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Healthy tells whether the server was heard on the consumer's behalf of late, and takes acknowledgements.
func (s *Consumption) Healthy() bool {
	up := s.conn.IsUp()
	s.mu.Lock()
	defer s.mu.Unlock()
	return up && s.main.healthy && (s.parked.healthy || !s.Retries) && !s.stopping && !s.denied.Load()
}

var errAcksDenied = errors.New("its acknowledgements are denied")

// Trouble returns why the Consumption is not healthy, or nil where nobody knows.
func (s *Consumption) Trouble() error {
	if s.denied.Load() {
		return errAcksDenied
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return cmp.Or(s.main.failure, s.parked.failure)
}

// Lag asks how many messages are not done, the copies in the retry stream included.
func (s *Consumption) Lag(ctx context.Context) (uint64, error) {
	info, err := s.main.info(ctx)
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
	side, err := s.parked.info(ctx)
	if err != nil {
		return lag, err
	}
	return lag + side.NumPending + uint64(side.NumAckPending), nil
}

// info asks for the consumer.
func (p *puller) info(ctx context.Context) (*jetstream.ConsumerInfo, error) {
	info, err := p.s.api.ConsumerInfo(ctx, p.stream, p.s.Consumer)
	if p.own == nil && !p.side && errors.Is(err, jetstream.ErrConsumerNotFound) {
		err = fmt.Errorf("create it, or have it made by WithConsumerConfig: %w", err)
	}
	return info, jsapi.Wrap("get consumer", target(p.stream, p.s.Consumer), err)
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
	s.log.Log(context.Background(), level, text, d.attrs(next, attrs)...)
}

// noteLocked is note where s.mu may be held.
func (s *Consumption) noteLocked(level slog.Level, text string, d *Delivery, next string, attrs ...any) {
	attrs = d.attrs(next, attrs)
	s.e.said.Push(func() { s.log.Log(context.Background(), level, text, attrs...) })
}

func (d *Delivery) attrs(next string, more []any) []any {
	return append([]any{"subject", d.Msg.Subject, "sequence", d.Sequence, "delivery", d.Deliveries, "next_try", next}, more...)
}

// nextAfter is the next try of a message that the server delivers again after d.
func nextAfter(d time.Duration) string { return "after " + d.Round(time.Millisecond).String() }

// reportFailed reports an error or a panic of the user's code.
func (s *Consumption) reportFailed(level slog.Level, text string, d *Delivery, next string, err error) {
	s.note(level, text, d, next, fault.Attrs(err)...)
	s.e.reports.Failed(d, err)
}

// noteSent reports an acknowledgement that the server has not got, as far as is known. S.mu may be held.
func (s *Consumption) noteSent(d *Delivery, err error) {
	if err == nil {
		return
	}
	s.noteLocked(slog.LevelError, "acknowledgement not confirmed; the message may be delivered again", d,
		"after the ack wait, if at all", "error", err)
	s.e.reports.Unconfirmed(d, err)
}
