package nats

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// DeadLetter is a message that a Consumption gave up, as ReadDeadLetter finds it in the dead-letter
// stream.
type DeadLetter struct {
	// Subject, Header and Data are the message's own.
	Subject string
	Header  natsgo.Header
	Data    []byte
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
	deadLetterPauseMax   = 30 * time.Second
)

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
		letter.Reason = h.Get(HeaderDeadLetterReason)
		letter.Time, err = time.Parse(time.RFC3339Nano, h.Get(HeaderDeadLetterTime))
	}
	if err != nil {
		return nil, fail("read dead letter", subject, ErrInvalidArgument, "its headers are not those of a dead letter: %w", err)
	}
	return letter, nil
}

func (s *Consumption) newDeadLetters() *sideStream {
	subject := s.opts.deadLetters
	if subject == "" {
		subject = "dlq." + s.stream + "." + s.consumer
	}
	return &sideStream{s: s, subject: subject, config: jetstream.StreamConfig{
		Name:        deadLetterStreamOf(s.stream),
		Description: "Dead letters of the stream " + s.stream,
		Subjects:    []string{"dlq." + s.stream + ".*"},
		MaxAge:      deadLetterAge,
		Duplicates:  deadLetterDuplicates,
	}}
}

// bury stores the dead letter and then ends the original. While that fails the message is kept, and
// tried again; bury tells whether it is.
func (s *Consumption) bury(d *delivery, reason string) (kept bool) {
	s.mu.Lock()
	d.started = s.pace.tick // the time for the handler is over, and that for this begins
	s.mu.Unlock()
	trial := d.again()
	trial.reason = reason
	header := s.copyHeader(d)
	header[HeaderDeadLetterReason] = []string{oneLine(reason, deadLetterReasonMax)}
	header[HeaderDeadLetterTime] = []string{timeText(time.Now())}
	if err := s.deadLetters.store(s.copyID("dead", d), header, d.msg.Data); err != nil {
		pause := min(time.Second<<min(trial.attempts, 10), deadLetterPauseMax)
		trial.attempts++
		s.note(slog.LevelError, "a dead letter cannot be stored; its message stays, and storing is tried again", d,
			nextNever, "pause", pause, "error", err)
		return s.wait(d, pause)
	}
	s.settle(d, wire.Term(oneLine(reason, deadLetterReasonMax)))
	s.count(&s.stats.DeadLettered)
	s.note(slog.LevelWarn, "message moved to the dead letters", d, nextNever, "reason", reason)
	s.tell(EventDeadLetter, d, errors.New(reason))
	return false
}

// settle ends a message of which a copy is stored. When the server does not confirm it, the message
// comes again and its copy is recognised.
func (s *Consumption) settle(d *delivery, verb []byte) {
	if !d.claim() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.origin.ctx), copyTimeout)
	defer cancel()
	if _, err := s.client.conn.Request(ctx, "settle", d.msg.msg.Reply, nil, verb, apiAttempt); err != nil {
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
