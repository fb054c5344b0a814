package nats

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/publish"
)

const opPublishAsync = "publish async"

// PublishAsync publishes msg to the stream that stores its subject and does not wait for the
// acknowledgement: the future brings it. It gives the same guarantees as PublishToStream, for each
// message: sent again under the same ID until it is stored or refused, or ctx ends; without a
// deadline in ctx, Config.RequestTimeout from the call on. A ctx that is cancelled after the call
// fails the future. The future resolves exactly once, also over Close, which waits for it and fails
// it with ErrClosed when the time is up.
//
// At most 1,024 messages or 32 MiB are in flight; a call beyond waits for room, and while disconnected
// for the connection, under ctx. Messages of one goroutine are stored in order but for those that
// had to be sent again. Header and payload are copied.
//
// The call returns the errors of PublishToStream that are known without the server, and those of
// waiting; the future brings the others. Upstream's own asynchronous publish, in Client.JetStream, is
// another one: its futures fail at every broken connection.
func (c *Client) PublishAsync(ctx context.Context, msg *Message, opts ...jetstream.PublishOpt) (jetstream.PubAckFuture, error) {
	f, err := c.publishAsync(ctx, opPublishAsync, msg, opts, true)
	if err != nil {
		return nil, err // not a future that is nil
	}
	return f, nil
}

func (c *Client) publishAsync(ctx context.Context, op string, msg *Message, opts []jetstream.PublishOpt, copied bool) (*publish.Future, error) {
	if msg == nil {
		return nil, fail(op, "", ErrInvalidArgument, "the message is nil")
	}
	m, err := c.publication(ctx, op, msg, opts)
	if err != nil {
		return nil, err
	}
	if copied {
		m.Data = slices.Clone(m.Data)
	}
	f, err := c.publisher.Start(ctx, op, m, publish.Flight{Brief: op == opPublishBatch})
	return f, c.sent(err)
}

// BatchError tells which messages of a PublishBatch were not stored, or not surely. errors.Is and
// errors.As look into the error of each.
type BatchError struct {
	// Messages is how many there were.
	Messages int
	// Failed has an entry for each message without an acknowledgement, in the order of the messages.
	Failed []BatchFailure
}

// BatchFailure is one message that failed.
type BatchFailure struct {
	// Index of the message, from 0.
	Index int
	// Err is what PublishToStream would have returned for it.
	Err error
}

func (e *BatchError) Error() string {
	text := fmt.Sprintf("publish batch: %d of %d messages failed", len(e.Failed), e.Messages)
	if len(e.Failed) > 0 {
		text += fmt.Sprintf(", the first is message %d: %v", e.Failed[0].Index, e.Failed[0].Err)
	}
	return text
}

// Unwrap returns the errors of the messages, and that others are stored, where some are.
func (e *BatchError) Unwrap() []error {
	errs := make([]error, len(e.Failed), len(e.Failed)+1)
	for i, failure := range e.Failed {
		errs[i] = failure.Err
	}
	if len(e.Failed) < e.Messages {
		errs = append(errs, fault.Doubt("others are stored"))
	}
	return errs
}

// PublishBatch publishes msgs to the streams that store their subjects, many in flight at a time, and
// waits for all of them. The acknowledgements have the order of msgs. It gives the same guarantees as
// PublishToStream, for each message, and does not stop at one that fails: then it returns a
// *BatchError that tells which, and nil in their places. Without a deadline in ctx,
// Config.RequestTimeout bounds each message. Messages can be stored in another order than that of
// msgs when some have to be sent again; see PublishAtomic for all or nothing.
//
// Before anything is sent it refuses a message that cannot be published, as PublishMsgToStream does.
func (c *Client) PublishBatch(ctx context.Context, msgs []*Message) ([]*jetstream.PubAck, error) {
	for i, msg := range msgs {
		if err := c.checkBatched(opPublishBatch, i, msg); err != nil {
			return nil, err
		}
	}
	acks := make([]*jetstream.PubAck, 0, len(msgs))
	var failed []BatchFailure
	for ack, err := range c.publishSeq(ctx, slices.Values(msgs), false) {
		if err != nil {
			failed = append(failed, BatchFailure{Index: len(acks), Err: err})
		}
		acks = append(acks, ack)
	}
	if len(failed) > 0 {
		return acks, &BatchError{Messages: len(msgs), Failed: failed}
	}
	return acks, nil
}

const opPublishBatch = "publish batch"

// checkBatched refuses what can be refused without the server.
func (c *Client) checkBatched(op string, i int, msg *Message) error {
	if msg == nil {
		return fail(op, "", ErrInvalidArgument, "message %d is nil", i)
	}
	if err := c.checkToStream(op, msg, nil); err != nil {
		return fmt.Errorf("message %d: %w", i, err)
	}
	return nil
}

// PublishSeq is PublishBatch for any number of messages in constant memory: it takes a message from
// msgs when there is room for it, and yields the result of each in the order of msgs, an
// acknowledgement or an error. It goes on after an error. Header and payload of a message are
// copied when it is taken, so msgs may use them again.
//
// Leaving the loop takes no more messages; those in flight are still stored, or fail, and nobody
// learns which.
func (c *Client) PublishSeq(ctx context.Context, msgs iter.Seq[*Message]) iter.Seq2[*jetstream.PubAck, error] {
	return c.publishSeq(ctx, msgs, true)
}

func (c *Client) publishSeq(ctx context.Context, msgs iter.Seq[*Message], copied bool) iter.Seq2[*jetstream.PubAck, error] {
	return publish.Seq(msgs, func(msg *Message) (*publish.Future, error) {
		return c.publishAsync(ctx, opPublishBatch, msg, nil, copied)
	})
}
