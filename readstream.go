package nats

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/ordered"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// ReadOption changes what ReadStream reads.
type ReadOption func(*readStreamOptions)

type readStreamOptions struct {
	config jetstream.ConsumerConfig
	follow bool
}

// WithReadFilter reads only the messages on these subjects, which may have wildcards and must not
// overlap. The default is all.
func WithReadFilter(subjects ...string) ReadOption {
	return func(o *readStreamOptions) { o.config.FilterSubjects = slices.Clone(subjects) }
}

// WithReadFrom begins with the message of this sequence, or with the first after it. Zero means the
// beginning. Of this option and the next two the last one given holds.
func WithReadFrom(sequence uint64) ReadOption {
	return func(o *readStreamOptions) {
		o.begin(jetstream.DeliverByStartSequencePolicy)
		o.config.OptStartSeq = max(sequence, 1)
	}
}

// WithReadSince begins with the first message that was stored at t or later.
func WithReadSince(t time.Time) ReadOption {
	return func(o *readStreamOptions) {
		o.begin(jetstream.DeliverByStartTimePolicy)
		o.config.OptStartTime = &t
	}
}

// WithReadLast reads the last message of each subject, in the order in which they were stored, and
// with WithReadFollow everything that comes after them.
func WithReadLast() ReadOption {
	return func(o *readStreamOptions) { o.begin(jetstream.DeliverLastPerSubjectPolicy) }
}

func (o *readStreamOptions) begin(policy jetstream.DeliverPolicy) {
	o.config.DeliverPolicy, o.config.OptStartSeq, o.config.OptStartTime = policy, 0, nil
}

// WithReadFollow goes on with the messages that are stored while reading, until ctx ends.
func WithReadFollow() ReadOption {
	return func(o *readStreamOptions) { o.follow = true }
}

// ReadStream returns the messages of a stream as a sequence, in order, each once, from the first one
// unless an option says otherwise. It ends after the last message that there was when the reading
// began, and with WithReadFollow not before ctx does. Reading begins when the sequence is ranged
// over, anew each time, and needs no consumer, for it makes its own: the messages are not to be
// acknowledged, and other readers and consumers do not notice.
//
// Reconnects, restarts and elections are waited out, for as long as ctx lasts; after them the reading
// goes on behind the last message. Messages that the stream drops meanwhile are not read.
//
// What ends the reading early is yielded, with a nil message: ErrStreamNotFound, also when the stream
// is deleted while it is read, but not where "<stream>_DLQ" is not made yet for want of dead letters, ErrInvalidSubject, ErrInvalidArgument, ErrClosed with the client, and
// the end of ctx. A sequence that ends without an error is complete.
func (c *Client) ReadStream(ctx context.Context, stream string, opts ...ReadOption) iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		if err := c.readStream(ctx, stream, opts, yield); err != nil {
			yield(nil, jsapi.Wrap(opReadStream, stream, err))
		}
	}
}

const opReadStream = "read stream"

// readStream yields the messages and returns why there are no more, or nil at the end.
func (c *Client) readStream(ctx context.Context, stream string, opts []ReadOption, yield func(*Message, error) bool) error {
	o := applied(readStreamOptions{}, opts)
	config, err := c.consumerConfig(ctx, opReadStream, stream, &o.config, c.checkCall)
	if err != nil {
		return err
	}
	var from *origin
	begun, err := ordered.Read(ctx, c.api, c.life, stream, config, o.follow, func(ctx context.Context, m *natsgo.Msg) bool {
		if from == nil {
			from = &origin{client: c, ctx: ctx}
		}
		return yield(from.message(m), nil)
	})
	if !begun && !o.follow {
		err = c.consumer.NoDeadLetters(ctx, stream, err)
	}
	return err
}

// GetMessage returns the message of a stream that has this sequence, as the stream's leader has it. Its Metadata
// tells stream, sequence and time; it has no consumer and is not to be acknowledged. Without a deadline in ctx,
// Config.RequestTimeout applies. The errors are ErrMessageNotFound, ErrStreamNotFound, ErrPermission,
// ErrNotConnected, ErrTimeout, and for bad arguments ErrInvalidArgument.
func (c *Client) GetMessage(ctx context.Context, stream string, sequence uint64) (*Message, error) {
	const op = "get message"
	if err := c.checkCall(ctx, op, stream, ""); err != nil {
		return nil, err
	}
	if sequence == 0 {
		return nil, fail(op, stream, ErrInvalidArgument, "sequences begin at 1")
	}
	stored, err := c.api.Stored(ctx, stream, wire.Get{Sequence: sequence})
	if err != nil {
		return nil, jsapi.Wrap(op, stream, err)
	}
	return c.storedMessage(stream, stored), nil
}

// GetLastMessages returns the last message of each of the subjects, which may have wildcards and must not
// overlap; without any, of each subject in the stream. Subjects that no message has are left out. They come in no
// particular order, and are as those of GetMessage, or of ReadStream.
//
// Some hundreds of subjects without wildcards take one round trip to any replica of a stream with AllowDirect,
// which may lag, and which Config.RequestTimeout bounds where ctx has no deadline; otherwise they are read as by
// ReadStream with WithReadLast. What the loop does takes none of that time. Reading begins when the sequence is
// ranged over. What ends it early is yielded, with a nil message; the errors are those of ReadStream.
func (c *Client) GetLastMessages(ctx context.Context, stream string, of ...string) iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		if err := c.lastMessages(ctx, stream, of, yield); err != nil {
			yield(nil, jsapi.Wrap(opGetLast, stream, err))
		}
	}
}

const opGetLast = "get last messages"

func (c *Client) lastMessages(ctx context.Context, stream string, of []string, yield func(*Message, error) bool) error {
	if err := c.checkCall(ctx, opGetLast, stream, ""); err != nil {
		return err
	}
	direct := true
	for _, subject := range of {
		if fault := subjects.Fault(subject, true); fault != "" {
			return fail(opGetLast, stream, ErrInvalidSubject, "subject %q: %s", subject, fault)
		}
		direct = direct && subjects.Fault(subject, false) == ""
	}
	if len(of) == 0 {
		return c.readStream(ctx, stream, []ReadOption{WithReadLast()}, yield)
	}
	more := true
	each := func(msg *Message, err error) bool {
		more = more && yield(msg, err)
		return more
	}
	for some := range slices.Chunk(slices.Compact(slices.Sorted(slices.Values(of))), filtersAtOnce) {
		var found []wire.Stored // before the loop takes its time with them
		err := jsapi.ErrNotDirect
		if direct {
			err = c.api.LastOf(ctx, stream, some, func(m wire.Stored) error {
				found = append(found, m)
				return nil
			})
		}
		if errors.Is(err, jsapi.ErrNotDirect) {
			found, err = nil, c.readStream(ctx, stream, []ReadOption{WithReadLast(), WithReadFilter(some...)}, each)
		}
		for _, m := range found {
			each(c.storedMessage(stream, m), nil)
		}
		switch {
		case !more:
			return nil
		case err != nil:
			return fault.Because(ctx, err)
		}
	}
	return nil
}

// filtersAtOnce is how many filters a consumer gets: the server compares each with each.
const filtersAtOnce = 512

// storedMessage returns a message as it is stored, without what the server adds to tell of it.
func (c *Client) storedMessage(stream string, m wire.Stored) *Message {
	var header natsgo.Header
	for name, values := range m.Header {
		if !wire.Describes(name) {
			if header == nil {
				header = make(natsgo.Header, len(m.Header))
			}
			header[name] = values
		}
	}
	return &Message{
		Subject: m.Subject, Header: header, Data: m.Data, origin: &origin{client: c, ctx: c.life.Context()},
		meta: &jetstream.MsgMetadata{Stream: stream, Sequence: jetstream.SequencePair{Stream: m.Sequence}, Timestamp: m.Time},
	}
}
