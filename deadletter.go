package nats

import (
	"cmp"
	"context"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consume"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// Headers of a message that a Consumption copied into the dead-letter or the retry stream.
const (
	// HeaderOriginStream and the next five say what the message was.
	HeaderOriginStream     = "Origin-Stream"
	HeaderOriginSequence   = "Origin-Sequence"
	HeaderOriginSubject    = "Origin-Subject"
	HeaderOriginTime       = "Origin-Time" // when it was stored, RFC 3339 in nanoseconds
	HeaderOriginConsumer   = "Origin-Consumer"
	HeaderOriginDeliveries = "Origin-Deliveries"
	// HeaderOriginPrefix precedes those of the message's own headers that would command the server
	// (Nats-*) or be taken for one of these. Origin-Encoded- precedes, in base64, a name that nats.go does not send.
	HeaderOriginPrefix = "Origin-Header-"
	// HeaderDeadLetterReason and HeaderDeadLetterTime say why and when a message became a dead letter.
	HeaderDeadLetterReason = "Dead-Letter-Reason"
	HeaderDeadLetterTime   = "Dead-Letter-Time"
	// HeaderDeadLetterReference is there when the payload is not: see DeadLetter.
	HeaderDeadLetterReference = "Dead-Letter-Reference"
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

// ReadDeadLetter returns the dead letter that msg, of a dead-letter stream, holds, or
// ErrInvalidArgument for any other message.
func ReadDeadLetter(msg *Message) (*DeadLetter, error) {
	if msg == nil {
		return nil, fail("read dead letter", "", ErrInvalidArgument, "the message is nil")
	}
	letter, err := wire.ReadLetter(msg.Header, msg.Data, wire.DeadLetterTime)
	if err != nil {
		return nil, fail("read dead letter", msg.Subject, ErrInvalidArgument, "its headers are not those of a dead letter: %w", err)
	}
	return (*DeadLetter)(letter), nil
}

// ReplayOption changes what ReplayDeadLetters does.
type ReplayOption func(*replayOptions)

type replayOptions = consume.Replay

// WithReplayFilter replays only the dead letters for which match returns true; the others stay.
func WithReplayFilter(match func(*DeadLetter) bool) ReplayOption {
	return func(o *replayOptions) {
		o.Match = nil
		if match != nil {
			o.Match = func(letter *wire.Letter) bool { return match((*DeadLetter)(letter)) }
		}
	}
}

// WithReplayRate replays at most n dead letters a second, evenly spread. The default, and the
// meaning of an n of zero or less, is as many as the server takes.
func WithReplayRate(n float64) ReplayOption {
	return func(o *replayOptions) {
		o.Every = 0
		if n > 0 {
			o.Every = time.Duration(float64(time.Second) / n)
		}
	}
}

// WithReplayDryRun counts the dead letters that would be replayed and changes nothing.
func WithReplayDryRun() ReplayOption {
	return func(o *replayOptions) { o.Dry = true }
}

// WithReplayFrom reads the dead letters from another stream than "<stream>_DLQ": see WithDeadLetter.
func WithReplayFrom(deadLetters string) ReplayOption {
	return func(o *replayOptions) { o.From = deadLetters }
}

// ReplayDeadLetters publishes the dead letters of a stream to their original subjects and deletes
// them from the dead-letter stream, in the order in which they died, up to the last there is at the
// call. It returns how many it replayed.
//
// The message has its payload and headers again, but for the headers of the server (Nats-*), such as
// a message ID, under which it would be dropped as a duplicate, or a rollup. Every consumer of the
// stream gets it, not only the one that gave it up.
//
// When ctx ends, the dead letter at hand is finished and the error tells why it stopped; another
// call goes on with the rest. Every dead letter is replayed once, over calls, and over calls at the
// same time; after a crash too if it is replayed again within the duplicate window of the original
// stream (two minutes by default), since the message ID of a replay is the dead letter's own.
//
// A stream that stores its messages under other subjects than it listens to, by a SubjectTransform, or
// that has them from a source or an origin, gets the message by the subject that brings it there.
//
// A dead letter that is refused, such as one whose subject no stream takes any more, stays, and the others
// are replayed: the error tells how many stayed, and one refusal of each kind. Without any dead letters the
// result is 0 and no error; ErrStreamNotFound means that there is no such stream at all. The other errors
// are those of PublishMsgToStream.
func (c *Client) ReplayDeadLetters(ctx context.Context, stream string, opts ...ReplayOption) (int, error) {
	const op = "replay dead letters"
	o := applied(replayOptions{Stream: stream}, opts)
	if err := c.jetStream(ctx, op, stream); err != nil {
		return 0, err
	}
	if err := cmp.Or(checkName(op, "stream", stream), checkName(op, "stream", cmp.Or(o.From, stream))); err != nil {
		return 0, err
	}
	return c.consumer.Replay(ctx, op, o)
}
