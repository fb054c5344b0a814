package nats

import (
	"context"
	"time"
)

// PullMessages takes up to limit messages from a consumer: it waits for the first one and then takes
// what is there, in one round trip. When ctx ends first, or without a deadline in ctx
// Config.RequestTimeout, it returns no messages and no error; a ctx that is cancelled is an error.
// Messages must be acknowledged, or the server delivers them again. What is on its way when ctx is cancelled
// is returned by the next call for the consumer, or handed back when there is none within 300 ms.
//
// The errors are ErrStreamNotFound, ErrConsumerNotFound, ErrPermission, ErrNotConnected, ErrNoResponders when the
// consumer has no leader until ctx ends, as during an election, for bad arguments ErrInvalidArgument, and
// ErrPullRefused when the consumer's configuration does not allow the pull: its MaxRequestBatch is less than
// limit, or its MaxRequestExpires than the time left in ctx, or it is a push consumer or has priority groups.
func (c *Client) PullMessages(ctx context.Context, stream, consumer string, limit int) ([]*Message, error) {
	const op = "pull messages"
	target := path(stream, consumer)
	if limit < 1 {
		return nil, fail(op, target, ErrInvalidArgument, "the limit must be at least 1, got %d", limit)
	}
	if err := checkName(op, "consumer", consumer); err != nil {
		return nil, err
	}
	if err := c.checkCall(ctx, op, stream, consumer); err != nil {
		return nil, err
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	pulled, err := c.puller.Messages(ctx, stream, consumer, limit)
	if len(pulled) == 0 {
		return nil, err
	}
	from := &origin{client: c, ctx: c.life.Context(), received: time.Now()} // they come together
	messages := make([]*Message, len(pulled))
	for i, m := range pulled {
		messages[i] = from.message(m)
	}
	return messages, nil
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
	var wait <-chan time.Duration
	if _, trip := c.conn.Peer(); msg.held() > 0 && msg.held()+trip >= ackWaitMin {
		wait = c.puller.AckWait(ctx, msg.msg.Reply) // beside the acknowledgement
	}
	if err := msg.AckSync(ctx); err != nil {
		return err
	}
	held := msg.held()
	if held < ackWaitMin {
		return nil
	}
	if wait == nil {
		wait = c.puller.AckWait(ctx, msg.msg.Reply)
	}
	if wait := <-wait; wait > 0 && held > wait {
		return fail(op, msg.Subject, ErrLateAck, "it was held for %v and the ack wait is %v", held.Round(time.Millisecond), wait)
	}
	return nil
}

// ackWaitMin is an ack wait that no network keeps: what was held for less is in time.
const ackWaitMin = 100 * time.Millisecond
