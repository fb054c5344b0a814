package consume

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
	x := &sideStream{s: s, root: "retry", own: retryStreamOf(s.Stream), level: slog.LevelWarn, failing: failing}
	x.config = func() jetstream.StreamConfig {
		text := "Messages of the stream " + s.Stream + " that wait for their next try"
		return jetstream.StreamConfig{Description: text, Retention: jetstream.WorkQueuePolicy}
	}
	x.prepare = func(ctx context.Context) error {
		question := map[string]any{"stream_name": x.own, "config": jetstream.ConsumerConfig{
			Durable: s.Consumer, FilterSubject: x.subject, AckPolicy: jetstream.AckExplicitPolicy,
			AckWait: s.ackWait(), MaxAckPending: -1,
		}}
		var answer struct {
			jsapi.Refusal
			Cluster *jetstream.ClusterInfo `json:"cluster"`
		}
		err := s.api.Ask(ctx, "CONSUMER.CREATE."+x.own+"."+s.Consumer+"."+x.subject, question, &answer)
		s.mu.Lock()
		s.parked.watch(answer.Cluster)
		s.mu.Unlock()
		return jsapi.Wrap("create consumer", target(x.own, s.Consumer), fault.Because(ctx, err))
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
		err = x.holds(ctx, x.own)
	}
	if errors.Is(err, natsgo.ErrNoResponders) { // it is there, for other subjects
		if err = x.create(ctx); err == nil {
			err = x.holds(ctx, x.own)
		}
	}
	return jsapi.Wrap("store", x.subject, err)
}

// count returns how many messages are in the stream.
func (x *sideStream) count(ctx context.Context) (uint64, error) {
	api := x.s.api
	info, err := api.StreamInfo(ctx, x.own)
	if err != nil || info.State.Msgs == 0 {
		return 0, jsapi.Wrap("info stream", x.own, err)
	}
	if _, err := x.locate(ctx); err != nil {
		return 0, err
	}
	counts, err := api.Subjects(ctx, x.own, x.subject)
	return counts[x.subject], jsapi.Wrap("info stream", x.own, err)
}

// park stores a message in the retry stream and acknowledges the original. It tells whether it
// could.
func (s *Consumption) park(d *Delivery, delay time.Duration) bool {
	letter := s.letter(d)
	letter.Time = time.Now().Add(delay)
	header := letter.Copy(wire.RetryTime)
	if int64(wire.HeaderSize(header)+len(d.Msg.Data)+parkRoom) > s.conn.MaxPayload() {
		return false
	}
	// A message that comes again although it was parked has been delivered once more, or is another copy.
	id := s.copyID("retry", d) + "." + strconv.Itoa(d.Deliveries)
	if d.from == s.parked {
		copied, _ := wire.ParseReply(d.Msg.Reply)
		id += "." + strconv.FormatUint(copied.Sequence, 10)
	}
	_, pause := s.retries.store(d, id, func(context.Context) ([]*natsgo.Msg, error) {
		return []*natsgo.Msg{{Header: header, Data: d.Msg.Data}}, nil
	})
	if pause > 0 {
		return false
	}
	s.count(&s.stats.Parked)
	s.settle(d, opAck, wire.Ack)
	return true
}

// findParked makes sure of the consumer in the retry stream.
func (s *Consumption) findParked(ctx context.Context) error {
	if s.Retries {
		return s.retries.check(ctx)
	}
	return s.retries.prepare(ctx)
}

// runParked handles what comes of the retry stream, if it is asked for or anything is left there.
func (s *Consumption) runParked() {
	if !s.Retries && !s.retriesLeft() {
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
		ctx, cancel := context.WithTimeout(s.quit, s.e.copyTime())
		left, err := s.retries.count(ctx)
		if err == nil && left > 0 {
			err = s.retries.prepare(ctx)
		}
		cancel()
		switch {
		case err == nil && left == 0, errors.Is(err, fault.ErrStreamNotFound), errors.Is(err, fault.ErrPermission) && left == 0:
			return false
		case left > 0 && failures == 0:
			s.log.Warn("messages wait in a retry stream that Consume was not asked to use; it handles them",
				append(fault.Attrs(err), "retry_stream", retryStreamOf(s.Stream), "messages", left)...)
			s.e.reports.Left(s.Stream, s.Consumer, left, err)
		}
		wait := pause.Jitter(failures, copyPauseMin, copyPauseMax)
		if errors.Is(err, fault.ErrPermission) {
			wait = copyDenied
		}
		if err == nil || !pause.Sleep(s.quit, wait) {
			return err == nil
		}
	}
}

// admit tells whether a message of the retry stream is to be handled: not what its own stream or consumer would
// not deliver now. Kept tells whether it waits here.
func (s *Consumption) admit(d *Delivery) (admitted, kept bool) {
	s.freshenRules()
	s.mu.Lock()
	paused, filters := s.rules.paused, s.rules.filters
	s.mu.Unlock()
	life := s.lifetime(d)
	switch {
	case life > 0 && time.Since(time.Unix(0, d.stored)) >= life:
		s.note(slog.LevelWarn, "a message in the retry stream is older than its stream keeps it, and is dropped", d, nextNever)
		s.settle(d, opAck, wire.Ack)
		return false, false
	case time.Now().Before(paused):
		return false, s.wait(d, rulesFresh)
	case len(filters) > 0 && !slices.ContainsFunc(filters, func(f string) bool { return subjects.Covers(f, d.Msg.Subject) }):
		s.note(slog.LevelWarn, "a message in the retry stream is none that the consumer is for; it waits there", d, nextAfter(foreignDelay))
		if !s.park(d, foreignDelay) {
			_, _ = s.putOff(d, foreignDelay)
		}
		return false, false
	}
	return true, false
}

// unwrap makes a copy in the retry stream what it was, or returns nil.
func unwrap(m *natsgo.Msg) *wire.Letter {
	letter, err := wire.ReadLetter(m.Header, m.Data, wire.RetryTime)
	if err != nil {
		return nil
	}
	m.Subject, m.Header = letter.Subject, letter.Header
	return letter
}

// unpark tells whether a message of the retry stream, which holds a letter, is due. If not, the server is told
// when to deliver it again.
func (s *Consumption) unpark(d *Delivery, letter *wire.Letter) bool {
	if letter == nil {
		s.note(slog.LevelError, "a message in the retry stream was not put there by Consume; it is left alone", d,
			nextAfter(foreignDelay), "retry_stream", retryStreamOf(s.Stream))
		_, _ = s.putOff(d, foreignDelay)
		return false
	}
	if left := time.Until(letter.Time); left > 0 {
		_, _ = s.putOff(d, left)
		return false
	}
	// The first delivery came too early, as a rule, and was no try.
	d.Deliveries = letter.Deliveries + max(d.Deliveries-1, 1)
	d.Sequence, d.stored = letter.Sequence, letter.Stored.UnixNano()
	d.again().meta = &jetstream.MsgMetadata{
		Sequence:     jetstream.SequencePair{Stream: d.Sequence},
		NumDelivered: uint64(d.Deliveries),
		Timestamp:    letter.Stored,
		Stream:       s.Stream,
		Consumer:     s.Consumer,
	}
	return true
}
