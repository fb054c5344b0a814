package nats

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// DeadLetter is a message that a Consumption gave up, as ReadDeadLetter finds it in the dead-letter
// stream.
type DeadLetter struct {
	// Subject, Header and Data are the message's own.
	Subject string
	Header  natsgo.Header
	Data    []byte
	// Reference tells that the message was too large for a copy with a reason, or its payload gone: Data is
	// nil and Header may be. The message itself stays where it was stored; its stream deletes it by its
	// limits, or when it is replayed.
	Reference bool
	// Stream and Sequence are where it was stored, and Stored when.
	Stream   string
	Sequence uint64
	Stored   time.Time
	// Consumer gave it up at Time, after so many Deliveries, for this Reason: the handler's last error.
	Consumer   string
	Deliveries int
	Reason     string
	Time       time.Time
}

// What the dead-letter stream is made with.
const (
	deadLetterAge = 30 * 24 * time.Hour
	// A worker that dies between storing a dead letter and ending the original stores it again when
	// the original comes back; within this time that makes no second one.
	deadLetterDuplicates = 24 * time.Hour
	deadLetterReasonMax  = 1 << 10 // bytes
	deadLetterReasonMin  = 1 << 6  // where there is no room for more
	// What must not end, because its stream would delete it, comes again after so long, and is known.
	deadLetterKept = deadLetterDuplicates / 2
)

const headerPayloadSize = "Nats-Msg-Size" // of the payload that a headers-only consumer does not deliver

const deadLetterSuffix = "_DLQ" // of their stream's name

func deadLetterStreamOf(stream string) string { return stream + deadLetterSuffix }

// ReadDeadLetter returns the dead letter that msg, of a dead-letter stream, holds, or
// ErrInvalidArgument for any other message.
func ReadDeadLetter(msg *Message) (*DeadLetter, error) {
	if msg == nil {
		return nil, fail("read dead letter", "", ErrInvalidArgument, "the message is nil")
	}
	return readDeadLetter(msg.Subject, msg.Header, msg.Data)
}

func readDeadLetter(subject string, h natsgo.Header, data []byte) (*DeadLetter, error) {
	letter, err := readCopy(h, data)
	if err == nil {
		letter.Reason, letter.Reference = h.Get(HeaderDeadLetterReason), h.Get(HeaderDeadLetterReference) != ""
		letter.Time, err = time.Parse(time.RFC3339Nano, h.Get(HeaderDeadLetterTime))
	}
	if err != nil {
		return nil, fail("read dead letter", subject, ErrInvalidArgument, "its headers are not those of a dead letter: %w", err)
	}
	return letter, nil
}

func (s *Consumption) newDeadLetters() *sideStream {
	const failing = "a dead letter cannot be stored; its message stays, and storing is tried again"
	return &sideStream{s: s, root: "dlq", subject: s.opts.deadLetters, level: slog.LevelError, failing: failing, config: jetstream.StreamConfig{
		Name:        deadLetterStreamOf(s.stream),
		Description: "Dead letters of the stream " + s.stream,
		MaxAge:      deadLetterAge,
		Duplicates:  deadLetterDuplicates,
	}}
}

// bury stores the dead letter and then ends the original. While that fails the message is kept, and
// tried again; bury tells whether it is.
func (s *Consumption) bury(d *delivery, reason string) (kept bool) {
	s.mu.Lock()
	d.since = 0 // the time for the handler is over, and that for this begins
	s.noteHeld()
	s.mu.Unlock()
	d.again().reason = reason
	letter, pause := s.deadLetters.store(d, s.copyID("dead", d), func(ctx context.Context) ([]*natsgo.Msg, error) {
		return s.letters(ctx, d, reason)
	})
	if pause > 0 {
		return s.wait(d, pause)
	}
	if letter.Header.Get(HeaderDeadLetterReference) != "" && s.endDeletes() {
		s.nakAfter(d, deadLetterKept)
	} else {
		s.settle(d, wire.Term(oneLine(reason, deadLetterReasonMax)))
	}
	s.count(&s.stats.DeadLettered)
	s.note(slog.LevelWarn, "message moved to the dead letters", d, nextNever, "reason", reason)
	s.tell(EventDeadLetter, d, errors.New(reason))
	return false
}

// letters returns the forms of a dead letter: the message with its reason, with a short one, and without
// its payload and headers.
func (s *Consumption) letters(ctx context.Context, d *delivery, reason string) ([]*natsgo.Msg, error) {
	now := timeText(time.Now())
	form := func(header natsgo.Header, data []byte, most int, reference ...string) *natsgo.Msg {
		header = s.copyHeader(d, header)
		header[HeaderDeadLetterReason] = []string{oneLine(reason, most)}
		header[HeaderDeadLetterTime] = []string{now}
		if len(reference) > 0 {
			header[HeaderDeadLetterReference] = reference
		}
		return &natsgo.Msg{Header: header, Data: data}
	}
	header, data, reference := d.msg.Header, d.msg.Data, []string(nil)
	if len(data) == 0 && header.Get(headerPayloadSize) != "" { // the consumer delivers headers only
		stored, err := s.fetch(ctx, d)
		switch {
		case err == nil:
			header, data = stored.Header, stored.Data
		case errors.Is(err, jetstream.ErrMsgNotFound):
			reference = []string{"gone"}
		default:
			return nil, jsapi.Wrap("get message", s.stream, err)
		}
	}
	return []*natsgo.Msg{
		form(header, data, deadLetterReasonMax, reference...),
		form(header, data, deadLetterReasonMin, reference...),
		form(nil, nil, deadLetterReasonMin, "too large"),
	}, nil
}

// fetch reads the message from its stream: from its leader, or from a replica where only that is allowed.
func (s *Consumption) fetch(ctx context.Context, d *delivery) (wire.Stored, error) {
	api, question := s.client.api, wire.Get{Sequence: d.seq}
	found, err := api.Stored(ctx, s.stream, question)
	if errors.Is(err, natsgo.ErrPermissionViolation) {
		body, _ := json.Marshal(question)
		m := &natsgo.Msg{Subject: api.Subject("DIRECT.GET." + s.stream), Data: body}
		if direct, failed := s.client.conn.Exchange(ctx, m, s.patience()); failed == nil {
			found, err = wire.ParseDirect(direct)
		}
	}
	if err == nil && found.Time.UnixNano() != d.stored { // the stream was made anew
		err = jetstream.ErrMsgNotFound
	}
	return found, err
}

// endDeletes tells whether the stream may delete a message that ends.
func (s *Consumption) endDeletes() bool {
	ctx, cancel := s.copying()
	defer cancel()
	cfg, err := s.deadLetters.streamAPI(ctx, "INFO", s.stream, nil)
	return err != nil || cfg.Retention != jetstream.LimitsPolicy
}

// settle ends a message of which a copy is stored. When the server does not confirm it, the message
// comes again and its copy is recognised.
func (s *Consumption) settle(d *delivery, verb []byte) {
	if !d.claim() {
		return
	}
	ctx, cancel := s.copying()
	defer cancel()
	if _, err := s.client.conn.Request(ctx, "settle", d.msg.msg.Reply, nil, verb, s.patience()); err != nil {
		_ = s.client.conn.TryPublish(d.msg.msg.Reply, "", verb)
	}
}

// oneLine makes a text fit for a header.
func oneLine(text string, limit int) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "")
	}
	return text
}
