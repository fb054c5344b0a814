package consume

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

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

func (s *Consumption) newDeadLetters() *sideStream {
	const failing = "a dead letter cannot be stored; its message stays, and storing is tried again"
	config := func() jetstream.StreamConfig {
		text := "Dead letters of the stream " + s.Stream
		return jetstream.StreamConfig{Description: text, MaxAge: deadLetterAge, Duplicates: deadLetterDuplicates}
	}
	own := deadLetterStreamOf(s.Stream)
	return &sideStream{s: s, root: "dlq", subject: s.DeadLetters, own: own, config: config, level: slog.LevelError, failing: failing}
}

// bury stores the dead letter and then ends the original. While that fails the message is kept, and
// tried again; bury tells whether it is.
func (s *Consumption) bury(d *Delivery, reason string) (kept bool) {
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
	if letter.Header.Get(wire.DeadLetterReference) != "" && s.endDeletes() {
		s.nakAfter(d, deadLetterKept)
	} else {
		s.settle(d, opTerm, wire.Term(oneLine(reason, deadLetterReasonMax)))
	}
	s.count(&s.stats.DeadLettered)
	s.note(slog.LevelWarn, "message moved to the dead letters", d, nextNever, "reason", reason)
	s.e.reports.Died(d, errors.New(reason))
	return false
}

// letters returns the forms of a dead letter: the message with its reason, with a short one, and without
// its payload and headers.
func (s *Consumption) letters(ctx context.Context, d *Delivery, reason string) ([]*natsgo.Msg, error) {
	letter, now := s.letter(d), time.Now()
	form := func(most int, reference string) *natsgo.Msg {
		letter.Reason, letter.Time = oneLine(reason, most), now
		header := letter.Copy(wire.DeadLetterTime)
		header[wire.DeadLetterReason] = []string{letter.Reason}
		if reference != "" {
			header[wire.DeadLetterReference] = []string{reference}
		}
		return &natsgo.Msg{Header: header, Data: letter.Data}
	}
	gone := ""
	if len(letter.Data) == 0 && letter.Header.Get(headerPayloadSize) != "" { // the consumer delivers headers only
		stored, err := s.e.original(ctx, s.Stream, d.Sequence, letter.Stored)
		switch {
		case err == nil:
			letter.Header, letter.Data = stored.Header, stored.Data
		case errors.Is(err, jetstream.ErrMsgNotFound):
			gone = "gone"
		default:
			return nil, jsapi.Wrap("get message", s.Stream, err)
		}
	}
	forms := []*natsgo.Msg{form(deadLetterReasonMax, gone), form(deadLetterReasonMin, gone)}
	letter.Header, letter.Data = nil, nil
	return append(forms, form(deadLetterReasonMin, "too large")), nil
}

// original reads a message that was stored at that time from its stream: from its leader, or from a replica where only
// that is allowed.
func (e *Engine) original(ctx context.Context, stream string, sequence uint64, at time.Time) (wire.Stored, error) {
	question := wire.Get{Sequence: sequence}
	found, err := e.api.Stored(ctx, stream, question)
	if errors.Is(err, natsgo.ErrPermissionViolation) {
		body, _ := json.Marshal(question)
		m := &natsgo.Msg{Subject: e.api.Subject("DIRECT.GET." + stream), Data: body}
		if direct, failed := e.api.Conn().Exchange(ctx, m, e.patience()); failed == nil {
			found, err = wire.ParseDirect(direct)
		}
	}
	if err == nil && !found.Time.Equal(at) { // the stream was made anew
		err = jetstream.ErrMsgNotFound
	}
	return found, err
}

// endDeletes tells whether the stream may delete a message that ends.
func (s *Consumption) endDeletes() bool {
	ctx, cancel := s.e.copying(s.ctx)
	defer cancel()
	info, err := s.api.StreamInfo(ctx, s.Stream)
	return err != nil || info.Config.Retention != jetstream.LimitsPolicy
}

// settle ends a message of which a copy is stored. When the server does not confirm it, the message
// comes again and its copy is recognised.
func (s *Consumption) settle(d *Delivery, op string, verb []byte) {
	if !d.Token.Take() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.e.patience())
	defer cancel()
	begun := time.Now()
	err := fault.Wrap(op, d.Msg.Subject, s.api.Confirm(ctx, d.Msg.Reply, verb))
	if err != nil {
		_ = s.conn.TryPublish(d.Msg.Reply, "", verb)
	}
	s.host.Settled(d, op, time.Since(begun), err)
}

// oneLine makes a text fit for a header.
func oneLine(text string, limit int) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > limit {
		text = strings.ToValidUTF8(text[:limit], "")
	}
	return text
}
