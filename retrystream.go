package nats

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

func retryStreamOf(stream string) string { return stream + "_RETRY" }

// foreignDelay is how often a message in the retry stream is mentioned that nobody can handle.
const foreignDelay = 10 * time.Minute

// newRetries describes the retry stream: a work queue with a consumer of the same name for each
// consumer of the original, whose acknowledgements are not limited.
func (s *Consumption) newRetries() *sideStream {
	const failing = "a message cannot wait in the retry stream; it waits in its own"
	x := &sideStream{s: s, root: "retry", level: slog.LevelWarn, failing: failing, config: jetstream.StreamConfig{
		Name:        retryStreamOf(s.stream),
		Description: "Messages of the stream " + s.stream + " that wait for their next try",
		Retention:   jetstream.WorkQueuePolicy,
	}}
	x.prepare = func(ctx context.Context) error {
		question := map[string]any{"stream_name": x.config.Name, "config": jetstream.ConsumerConfig{
			Durable: s.consumer, FilterSubject: x.subject, AckPolicy: jetstream.AckExplicitPolicy,
			AckWait: s.ackWait(), MaxAckPending: -1,
		}}
		err := s.client.api.Ask(ctx, "CONSUMER.CREATE."+x.config.Name+"."+s.consumer+"."+x.subject, question, &jsapi.Refusal{})
		return jsapi.Wrap("create consumer", path(x.config.Name, s.consumer), fault.Because(ctx, err))
	}
	return x
}

// park stores a message in the retry stream and acknowledges the original. It tells whether it
// could.
func (s *Consumption) park(d *delivery, delay time.Duration) bool {
	// A message that comes again although it was parked has been delivered once more.
	id := s.copyID("retry", d) + "." + strconv.Itoa(d.deliveries)
	_, pause := s.retries.store(d, id, func(context.Context) ([]*natsgo.Msg, error) {
		header := s.copyHeader(d, d.msg.Header)
		header[headerRetryTime] = []string{timeText(time.Now().Add(delay))}
		return []*natsgo.Msg{{Header: header, Data: d.msg.Data}}, nil
	})
	if pause > 0 {
		return false
	}
	s.count(&s.stats.Parked)
	s.settle(d, wire.Ack)
	select {
	case s.parked.poke <- struct{}{}:
	default:
	}
	return true
}

// unpark makes a message of the retry stream what it was, and tells whether it is due. If not, the
// server is told when to deliver it again.
func (s *Consumption) unpark(d *delivery) bool {
	h := d.msg.Header
	letter, err := readCopy(h, d.msg.Data)
	var due time.Time
	if err == nil {
		due, err = time.Parse(time.RFC3339Nano, h.Get(headerRetryTime))
	}
	if err != nil {
		s.note(slog.LevelError, "a message in the retry stream was not put there by Consume; it is left alone", d,
			nextAfter(foreignDelay), "retry_stream", retryStreamOf(s.stream), "error", err)
		_ = d.msg.NakWithDelay(foreignDelay)
		return false
	}
	if left := time.Until(due); left > 0 {
		_ = d.msg.NakWithDelay(left)
		return false
	}
	// The first delivery came too early, as a rule, and was no try.
	d.deliveries = letter.Deliveries + max(d.deliveries-1, 1)
	d.seq, d.stored = letter.Sequence, letter.Stored.UnixNano()
	d.msg.Subject, d.msg.Header = letter.Subject, letter.Header
	d.msg.meta = &jetstream.MsgMetadata{
		Sequence:     jetstream.SequencePair{Stream: d.seq},
		NumDelivered: uint64(d.deliveries),
		Timestamp:    letter.Stored,
		Stream:       s.stream,
		Consumer:     s.consumer,
	}
	return true
}
