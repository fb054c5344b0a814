package nats

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/ordered"
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

// readBatch is how many messages are asked for at once.
const readBatch = 512

// errReadAll ends a reading that has reached the end.
var errReadAll = errors.New("there is no more")

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
	var o readStreamOptions
	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}
	if err := c.checkConsumer(ctx, opReadStream, stream, &o.config); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	forget, err := c.life.OnClose(func() { cancel(ErrClosed) })
	if err != nil {
		return err
	}
	defer forget()

	if len(o.config.FilterSubjects) == 0 {
		o.config.FilterSubjects = []string{">"} // the server wants one for the last of each subject
	}
	options := ordered.Options{
		Stream: stream, Config: o.config, Batch: readBatch, Opened: opened,
		// A new consumer finds the last of each subject anew: what lies behind the last message that was
		// read has messages that are not.
		Whole: o.config.DeliverPolicy == jetstream.DeliverLastPerSubjectPolicy,
	}
	var r *ordered.Reader
	if !o.follow {
		options.Idle = func(ctx context.Context) error { return finished(ctx, r) }
	}
	r = ordered.New(c.api, options)
	defer r.Close()
	first, err := r.Start(ctx)
	if err != nil {
		if !o.follow {
			err = c.consumer.NoDeadLetters(ctx, stream, err)
		}
		return fault.Because(ctx, err)
	}
	if first.Pending == 0 && !o.follow {
		return nil
	}
	from := &origin{client: c, ctx: ctx}
	var last, end uint64 // sequences, in the stream and of the consumer
	for {
		if ctx.Err() != nil { // next may rather take what is there
			return fault.Ended(ctx)
		}
		m, meta, err := r.Next(ctx)
		if errors.Is(err, errReadAll) {
			return nil
		}
		if err != nil {
			return fault.Because(ctx, err)
		}
		if meta.Sequence.Consumer == 1 {
			end = 1 + meta.NumPending
		}
		if seq := meta.Sequence.Stream; seq > last {
			last = seq
			if !yield(from.message(m), nil) {
				return nil
			}
		}
		if meta.NumPending == 0 || meta.Sequence.Consumer >= end {
			if !o.follow {
				return nil
			}
			r.SkipTo(last)
		}
	}
}

// opened ends the reading of a stream that is another one than before.
func opened(o ordered.Opening) error {
	if o.Anew {
		return fmt.Errorf("%w: it was made anew, or lost its last messages, while it was read", jetstream.ErrStreamNotFound)
	}
	return nil
}

// finished returns errReadAll when the consumer has delivered all there is: the messages that it had
// announced may be gone. For those who may not ask, that it has nothing to deliver must do.
func finished(ctx context.Context, r *ordered.Reader) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if left, err := r.Left(ctx); err == nil && left == 0 || errors.Is(err, natsgo.ErrPermissionViolation) {
		return errReadAll
	}
	return nil // whatever it is, the reader will find out
}
