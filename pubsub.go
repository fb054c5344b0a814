package nats

import (
	"context"
	"encoding/json"
	"errors"
	"iter"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// Publish sends data to whoever subscribes to subject at this moment. It does not wait for the
// server: a nil error means that the message is in the client's buffer. What must not be lost goes
// through PublishToStream. While disconnected, publishes are kept in the reconnect buffer until it
// is full, then they return ErrBufferFull; with Config.PublishWhenDisconnected "fail" they return
// ErrNotConnected at once. The other errors are ErrInvalidSubject, ErrPayloadTooLarge, ErrClosed
// and that of a ctx that has ended.
func (c *Client) Publish(ctx context.Context, subject string, data []byte) error {
	return c.publishContext(ctx, subject, "", nil, data)
}

// PublishMsg is Publish with headers and a reply subject. It also returns ErrInvalidArgument for a
// nil msg and ErrInvalidHeader. It neither changes nor keeps msg.
func (c *Client) PublishMsg(ctx context.Context, msg *Message) error {
	if msg == nil {
		return fail("publish", "", ErrInvalidArgument, "the message is nil")
	}
	return c.publishContext(ctx, msg.Subject, msg.Reply, msg.Header, msg.Data)
}

// PublishJSON is Publish of v in JSON. A v that does not marshal is ErrInvalidArgument.
func (c *Client) PublishJSON(ctx context.Context, subject string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fail("publish", subject, ErrInvalidArgument, "%w", err)
	}
	return c.Publish(ctx, subject, data)
}

// PublishWithReply is Publish that tells receivers where to answer. An empty reply is a plain
// Publish, which makes it fit for answering: PublishWithReply(ctx, msg.Reply, "", data).
func (c *Client) PublishWithReply(ctx context.Context, subject, reply string, data []byte) error {
	return c.publishContext(ctx, subject, reply, nil, data)
}

func (c *Client) publishContext(ctx context.Context, subject, reply string, header natsgo.Header, data []byte) error {
	if ctx == nil {
		return errNilContext("publish", subject)
	}
	if err := fault.Ended(ctx); err != nil {
		return wrap("publish", subject, err)
	}
	return c.publish(ctx, "publish", subject, reply, header, data)
}

// publish checks and sends, with the interceptors in between, which may change what is checked again then.
func (c *Client) publish(ctx context.Context, op, subject, reply string, header natsgo.Header, data []byte) error {
	if err := c.checkPublish(op, subject, reply, header, data); err != nil {
		return err
	}
	if !c.isIntercepted(c.around.Publish != nil) {
		return c.send(ctx, op, subject, reply, header, data)
	}
	msg := Message{Subject: subject, Reply: reply, Header: header, Data: data}
	return c.intercept(ctx, op, msg, func(ctx context.Context, msg *Message) error {
		if err := c.checkPublish(op, msg.Subject, msg.Reply, msg.Header, msg.Data); err != nil {
			return err
		}
		return c.send(ctx, op, msg.Subject, msg.Reply, msg.Header, msg.Data)
	})
}

func (c *Client) checkPublish(op, subject, reply string, header natsgo.Header, data []byte) error {
	if err := c.checkMessage(op, subject, len(reply), header, data); err != nil {
		return err
	}
	if reply != "" {
		if fault := subjects.Fault(reply, false); fault != "" {
			return fail(op, subject, ErrInvalidSubject, "reply %q: %s", reply, fault)
		}
	}
	return nil
}

// send gives a message to the connection. Upstream copies header and data before it returns.
func (c *Client) send(ctx context.Context, op, subject, reply string, header natsgo.Header, data []byte) error {
	if c.failing && !c.conn.IsUp() && !c.conn.IsClosed() {
		return c.conn.Refused(op, subject)
	}
	if len(header) == 0 {
		header = nil
	}
	err := c.conn.Publish(ctx, subject, reply, header, data)
	switch {
	case err == nil:
		return c.sent(nil)
	case errors.Is(err, natsgo.ErrHeadersNotSupported) && !c.conn.IsUp():
		// Before the first connection upstream knows no server that supports them.
		return fail(op, subject, ErrNotConnected, "headers need a connection: %w", err)
	}
	return wrap(op, subject, wire.Sized(err, header, data, c.conn.MaxPayload()))
}

// Subscribe calls h for every message on subject, which may have wildcards: * for one token, > for
// one or more at the end. One message is handled at a time, in order; see WithConcurrency. When
// Subscribe returns, the server knows of the subscription. It lives until Unsubscribe, Drain, the
// end of ctx, or Close, over reconnects and over errors and panics of h. The end of ctx is a graceful
// one: no more is received, what was received is handled, by handlers whose contexts live on, and
// Subscription.Done tells when it is over, after Config.DrainTimeout at the latest.
//
// The errors are ErrInvalidSubject, ErrInvalidArgument for a nil h, ErrPermission when the server
// denies the subject, upstream's ErrMaxSubscriptionsExceeded when it has no room for one more,
// ErrNotConnected when no connection stands within ctx (without a deadline: Config.RequestTimeout), and
// ErrClosed.
func (c *Client) Subscribe(ctx context.Context, subject string, h Handler, opts ...SubscribeOption) (*Subscription, error) {
	return c.subscribe(ctx, subject, "", c.handled(h), opts)
}

// QueueSubscribe is Subscribe as a member of a queue group: each message goes to one member of the
// group. The queue's name must be a plain token or tokens without wildcards; another one is ErrInvalidSubject.
func (c *Client) QueueSubscribe(ctx context.Context, subject, queue string, h Handler, opts ...SubscribeOption) (*Subscription, error) {
	if err := checkQueue(subject, queue); err != nil {
		return nil, err
	}
	return c.subscribe(ctx, subject, queue, c.handled(h), opts)
}

// Messages returns the messages on subject as a sequence. The subscription is made when the
// sequence is ranged over and ends with the loop, with ctx, or with Close. A subscription that
// cannot be made yields one error, as Subscribe returns it; the end of ctx or of the client ends
// the sequence without one.
func (c *Client) Messages(ctx context.Context, subject string, opts ...SubscribeOption) iter.Seq2[*Message, error] {
	return func(yield func(*Message, error) bool) {
		if ctx == nil {
			yield(nil, errNilContext("subscribe", subject))
			return
		}
		messages, over := make(chan *Message), make(chan struct{})
		sub, err := c.subscribe(ctx, subject, "", func(msg *Message) error {
			select {
			case messages <- msg:
			case <-over:
			case <-ctx.Done():
			}
			return nil
		}, opts)
		if err != nil {
			yield(nil, err)
			return
		}
		defer func() {
			close(over)
			_ = sub.Unsubscribe() // what is left has no taker
		}()
		for ctx.Err() == nil {
			select {
			case msg := <-messages:
				if ctx.Err() != nil || !yield(msg, nil) {
					return
				}
			case <-ctx.Done():
			case <-sub.Done():
				return
			}
		}
	}
}
