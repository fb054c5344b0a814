package nats

import (
	"context"
	"log/slog"
	"time"
)

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
