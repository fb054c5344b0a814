package nats

import (
	"cmp"
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
)

// CreateConsumer creates a consumer on a stream and returns upstream's handle of it. A consumer
// with a Name is durable: it keeps its progress until it is deleted. Upstream makes it ephemeral,
// and the server drops it 5 s after the last pull. For an ephemeral one leave the Name empty or set
// InactiveThreshold. Creating it again with the same configuration is no error, with another one it
// is ErrAlreadyExists. The other errors are ErrStreamNotFound and, for a nil cfg or bad names,
// ErrInvalidArgument.
func (c *Client) CreateConsumer(ctx context.Context, stream string, cfg *jetstream.ConsumerConfig) (jetstream.Consumer, error) {
	const op = "create consumer"
	own, err := c.consumerConfig(ctx, op, stream, cfg, c.checkCall)
	if err != nil {
		return nil, err
	}
	consumer, err := c.api.CreateConsumer(ctx, stream, own)
	return consumer, jsapi.Wrap(op, path(stream, own.Name), err)
}

// consumerConfig checks a consumer's configuration, and its names by check, and returns a copy that is durable unless it is
// to be dropped when inactive.
func (c *Client) consumerConfig(
	ctx context.Context, op, stream string, cfg *jetstream.ConsumerConfig, check func(ctx context.Context, op, stream, consumer string) error,
) (own jetstream.ConsumerConfig, err error) {
	if cfg == nil {
		return own, fail(op, stream, ErrInvalidArgument, "the ConsumerConfig is nil")
	}
	if err := check(ctx, op, stream, cmp.Or(cfg.Name, cfg.Durable)); err != nil {
		return own, err
	}
	return c.api.ConsumerConfig(op, stream, *cfg)
}

// GetConsumer returns upstream's handle of a consumer, or ErrStreamNotFound or ErrConsumerNotFound.
func (c *Client) GetConsumer(ctx context.Context, stream, consumer string) (jetstream.Consumer, error) {
	const op = "get consumer"
	if err := c.checkNamed(ctx, op, stream, consumer); err != nil {
		return nil, err
	}
	handle, err := jsapi.Look(ctx, c.api, func(ctx context.Context, js jetstream.JetStream) (jetstream.Consumer, error) {
		return js.Consumer(ctx, stream, consumer)
	})
	return handle, jsapi.Wrap(op, path(stream, consumer), err)
}

// GetConsumerInfo asks the server for a consumer's configuration and progress. It returns
// ErrStreamNotFound or ErrConsumerNotFound when there is no such consumer.
func (c *Client) GetConsumerInfo(ctx context.Context, stream, consumer string) (*jetstream.ConsumerInfo, error) {
	const op = "get consumer"
	if err := c.checkNamed(ctx, op, stream, consumer); err != nil {
		return nil, err
	}
	info, err := c.api.ConsumerInfo(ctx, stream, consumer)
	return info, jsapi.Wrap(op, path(stream, consumer), err)
}

// DeleteConsumer deletes a consumer and its progress. It returns ErrStreamNotFound or
// ErrConsumerNotFound when there is no such consumer.
func (c *Client) DeleteConsumer(ctx context.Context, stream, consumer string) error {
	return c.askConsumer(ctx, "delete consumer", "DELETE", stream, consumer, nil)
}

// PauseConsumer stops a consumer's deliveries until the given time or ResumeConsumer, on the server
// and so for all who pull from it. What was delivered already can be acknowledged. A time in the past
// resumes it. It needs server 2.11. The errors are those of GetConsumer.
func (c *Client) PauseConsumer(ctx context.Context, stream, consumer string, until time.Time) error {
	question := map[string]time.Time{"pause_until": until}
	return c.askConsumer(ctx, "pause consumer", "PAUSE", stream, consumer, question)
}

// ResumeConsumer ends a pause; a consumer that is not paused stays as it is. The errors are those of
// GetConsumer.
func (c *Client) ResumeConsumer(ctx context.Context, stream, consumer string) error {
	return c.askConsumer(ctx, "resume consumer", "PAUSE", stream, consumer, struct{}{})
}

func (c *Client) askConsumer(ctx context.Context, op, verb, stream, consumer string, question any) error {
	if err := c.checkNamed(ctx, op, stream, consumer); err != nil {
		return err
	}
	return jsapi.Wrap(op, path(stream, consumer), c.api.Ask(ctx, "CONSUMER."+verb+"."+stream+"."+consumer, question, nil))
}

// checkCall checks what every call on a stream, and unless its name is empty on a consumer, needs.
func (c *Client) checkCall(ctx context.Context, op, stream, consumer string) error {
	if err := c.jetStream(ctx, op, path(stream, consumer)); err != nil {
		return err
	}
	if err := checkName(op, "stream", stream); err != nil || consumer == "" {
		return err
	}
	return checkName(op, "consumer", consumer)
}

// checkNamed is checkCall for a consumer that must have a name.
func (c *Client) checkNamed(ctx context.Context, op, stream, consumer string) error {
	if err := checkName(op, "consumer", consumer); err != nil {
		return err
	}
	return c.checkCall(ctx, op, stream, consumer)
}

// path names a consumer in error texts.
func path(stream, consumer string) string { return fault.Path(stream, consumer) }

// PullMessages takes up to limit messages from a consumer, or 4 MiB of them: it waits for the first one and then
// takes what is there, in one round trip. When ctx ends first, or without a deadline in ctx
// Config.RequestTimeout, it returns no messages and no error; a ctx that is cancelled is an error.
// Messages must be acknowledged, or the server delivers them again. What is on its way when ctx is cancelled
// is returned by the next call for the consumer, or handed back when there is none within 300 ms.
//
// The errors are ErrStreamNotFound, ErrConsumerNotFound, ErrPermission, ErrNotConnected, ErrNoResponders when the
// consumer has no leader until ctx ends, as during an election, ErrTimeout when nobody has answered for longer than six
// seconds, which a shorter call does not tell from a consumer without messages, for bad arguments ErrInvalidArgument, and
// ErrPullRefused when the consumer's configuration does not allow the pull: its MaxRequestBatch is less than
// limit, or its MaxRequestExpires than the time left in ctx, or it is a push consumer or has priority groups.
func (c *Client) PullMessages(ctx context.Context, stream, consumer string, limit int) ([]*Message, error) {
	const op = "pull messages"
	target := path(stream, consumer)
	if limit < 1 {
		return nil, fail(op, target, ErrInvalidArgument, "the limit must be at least 1, got %d", limit)
	}
	if err := c.checkNamed(ctx, op, stream, consumer); err != nil {
		return nil, err
	}
	ctx, cancel := c.conn.Deadline(ctx)
	defer cancel()
	begun := time.Now()
	pulled, err := c.puller.Messages(ctx, stream, consumer, limit)
	now := time.Now()
	var messages []*Message
	if len(pulled) > 0 {
		from := &origin{client: c, ctx: c.life.Context(), received: now} // they come together
		messages, err = make([]*Message, len(pulled)), nil
		for i, m := range pulled {
			messages[i] = from.message(m)
		}
	}
	if c.isIntercepted(c.around.Received != nil) {
		c.around.Received(ctx, Pull{Stream: stream, Consumer: consumer, Took: now.Sub(begun), Messages: messages, Err: err})
	}
	return messages, err
}

// AckMessage acknowledges msg and returns when the server has confirmed it, as Message.AckSync does.
//
// Acknowledging a message twice is ErrAlreadyAcked. The server does not tell a late acknowledgement
// from another: it confirms it, and it counts, also when the server has delivered the message again,
// and even when somebody else has acknowledged it. So AckMessage goes by the clock: when a message
// that PullMessages returned was held for longer than its consumer's ack wait, or than the BackOff of
// its delivery, it returns ErrLateAck. The acknowledgement holds all the same: the message will not
// come again, but another worker may have got it, and its effects may have happened twice. InProgress
// starts the time anew. The consumer's ack wait is asked for once a minute, and only when a message
// was held for 100 ms or longer.
//
// A consumer that is gone is ErrNoResponders. The other errors are ErrNotJetStream, ErrPermission, ErrNotConnected,
// and ErrTimeout, after which AckMessage may be called again.
func (c *Client) AckMessage(ctx context.Context, msg *Message) error {
	const op = "ack"
	if msg == nil {
		return fail(op, "", ErrInvalidArgument, "the message is nil")
	}
	reply := ""
	if msg.msg != nil {
		reply = msg.msg.Reply
	}
	held, wait, err := c.puller.Acknowledge(ctx, reply, msg.held, func() error { return msg.AckSync(ctx) })
	if err == nil && wait > 0 {
		err = fail(op, msg.Subject, ErrLateAck, "it was held for %v and the ack wait is %v", held.Round(time.Millisecond), wait)
	}
	return err
}
