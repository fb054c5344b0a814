package nats

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

func retryStreamOf(stream string) string { return stream + "_RETRY" }

// foreignDelay is how often a message in the retry stream is mentioned that nobody can handle.
const foreignDelay = 10 * time.Minute

// parkRoom is what a dead letter has more than the copy that waits here, in bytes. What may be one in the end
// has to fit into it, for the original is gone.
const parkRoom = 256

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
		var answer struct {
			jsapi.Refusal
			Cluster *jetstream.ClusterInfo `json:"cluster"`
		}
		err := s.client.api.Ask(ctx, "CONSUMER.CREATE."+x.config.Name+"."+s.consumer+"."+x.subject, question, &answer)
		s.mu.Lock()
		s.parked.watch(answer.Cluster)
		s.mu.Unlock()
		return jsapi.Wrap("create consumer", path(x.config.Name, s.consumer), fault.Because(ctx, err))
	}
	return x
}

// check makes the stream and the consumer, unless they are there, and sees that a copy would be stored.
func (x *sideStream) check(ctx context.Context) error {
	if _, err := x.locate(ctx); err != nil {
		return err
	}
	_, err := x.find(ctx)
	if err == nil {
		err = x.holds(ctx, x.config.Name)
	}
	if errors.Is(err, natsgo.ErrNoResponders) { // it is there, for other subjects
		if err = x.create(ctx); err == nil {
			err = x.holds(ctx, x.config.Name)
		}
	}
	return jsapi.Wrap("store", x.subject, err)
}

// count returns how many messages are in the stream.
func (x *sideStream) count(ctx context.Context) (uint64, error) {
	api := x.s.client.api
	info, err := api.StreamInfo(ctx, x.config.Name)
	if err != nil || info.State.Msgs == 0 {
		return 0, jsapi.Wrap("info stream", x.config.Name, err)
	}
	if _, err := x.locate(ctx); err != nil {
		return 0, err
	}
	counts, err := api.Subjects(ctx, x.config.Name, x.subject)
	return counts[x.subject], jsapi.Wrap("info stream", x.config.Name, err)
}

// park stores a message in the retry stream and acknowledges the original. It tells whether it
// could.
func (s *Consumption) park(d *delivery, delay time.Duration) bool {
	header := s.copyHeader(d, d.msg.Header)
	header[headerRetryTime] = []string{timeText(time.Now().Add(delay))}
	if int64(wire.HeaderSize(header)+len(d.msg.Data)+parkRoom) > s.client.conn.MaxPayload() {
		return false
	}
	// A message that comes again although it was parked has been delivered once more, or is another copy.
	id := s.copyID("retry", d) + "." + strconv.Itoa(d.deliveries)
	if d.from == s.parked {
		_, copied, _, _ := wire.ParseReply(d.msg.msg.Reply)
		id += "." + strconv.FormatUint(copied, 10)
	}
	_, pause := s.retries.store(d, id, func(context.Context) ([]*natsgo.Msg, error) {
		return []*natsgo.Msg{{Header: header, Data: d.msg.Data}}, nil
	})
	if pause > 0 {
		return false
	}
	s.count(&s.stats.Parked)
	s.settle(d, wire.Ack)
	return true
}

// findParked makes sure of the consumer in the retry stream.
func (s *Consumption) findParked(ctx context.Context) error {
	if s.opts.retries {
		return s.retries.check(ctx)
	}
	return s.retries.prepare(ctx)
}

// runParked handles what comes of the retry stream, if it is asked for or anything is left there.
func (s *Consumption) runParked() {
	if !s.opts.retries && !s.retriesLeft() {
		return
	}
	s.mu.Lock()
	s.sided = true
	s.mu.Unlock()
	s.parked.run()
}

// retriesLeft tells whether messages wait in a retry stream although this Consumption was not asked to use it.
func (s *Consumption) retriesLeft() bool {
	for failures := 0; ; failures++ {
		ctx, cancel := s.copying()
		left, err := s.retries.count(ctx)
		if err == nil && left > 0 {
			err = s.retries.prepare(ctx)
		}
		cancel()
		switch {
		case err == nil && left == 0, errors.Is(err, ErrStreamNotFound), errors.Is(err, ErrPermission) && left == 0:
			return false
		case left > 0 && failures == 0:
			s.client.log.Warn("messages wait in a retry stream that Consume was not asked to use; it handles them",
				append(failureAttrs(err), "stream", s.stream, "consumer", s.consumer, "retry_stream", retryStreamOf(s.stream), "messages", left)...)
			s.client.emit(Event{Type: EventRetriesLeft, Stream: s.stream, Consumer: s.consumer, Messages: left, Err: err})
		}
		wait := pause.Jitter(failures, copyPauseMin, copyPauseMax)
		if errors.Is(err, ErrPermission) {
			wait = copyDenied
		}
		if err == nil || !pause.Sleep(s.quit, wait) {
			return err == nil
		}
	}
}

// admit tells whether a message of the retry stream is to be handled: not what its own stream or consumer would
// not deliver now. Kept tells whether it waits here.
func (s *Consumption) admit(d *delivery) (admitted, kept bool) {
	s.freshenRules()
	s.mu.Lock()
	paused, filters := s.rules.paused, s.rules.filters
	s.mu.Unlock()
	life := s.lifetime(d)
	switch {
	case life > 0 && time.Since(time.Unix(0, d.stored)) >= life:
		s.note(slog.LevelWarn, "a message in the retry stream is older than its stream keeps it, and is dropped", d, nextNever)
		s.settle(d, wire.Ack)
		return false, false
	case time.Now().Before(paused):
		return false, s.wait(d, rulesFresh)
	case len(filters) > 0 && !slices.ContainsFunc(filters, func(f string) bool { return subjects.Covers(f, d.msg.Subject) }):
		s.note(slog.LevelWarn, "a message in the retry stream is none that the consumer is for; it waits there", d, nextAfter(foreignDelay))
		if !s.park(d, foreignDelay) {
			s.nakAfter(d, foreignDelay)
		}
		return false, false
	}
	return true, false
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
