package nats

import (
	"cmp"
	"context"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// Request publishes data to subject and returns the first answer. It waits no longer than timeout
// and ctx allow, whichever is earlier; a timeout of zero means Config.RequestTimeout.
//
// When nobody listens on the subject it returns ErrNoResponders at once, and when nobody answers
// in time ErrTimeout. While disconnected it waits for the connection and then returns
// ErrNotConnected: nothing was sent. When the connection breaks while the request is in flight it
// waits on, since the answer may still come after a quick reconnect, and then returns
// ErrConnectionLost: the request may have been handled, and the caller decides whether to repeat
// it. An answer that is the error of a service is returned beside a *ServiceError. The other errors are those of
// Publish.
func (c *Client) Request(ctx context.Context, subject string, data []byte, timeout time.Duration) (*Message, error) {
	return c.requestChecked(ctx, subject, nil, data, timeout)
}

// RequestMsg is Request with headers. It ignores msg.Reply, and neither changes nor keeps msg.
func (c *Client) RequestMsg(ctx context.Context, msg *Message, timeout time.Duration) (*Message, error) {
	if msg == nil {
		return nil, fail("request", "", ErrInvalidArgument, "the message is nil")
	}
	return c.requestChecked(ctx, msg.Subject, msg.Header, msg.Data, timeout)
}

func (c *Client) requestChecked(ctx context.Context, subject string, header natsgo.Header, data []byte, timeout time.Duration) (*Message, error) {
	const op = "request"
	if ctx == nil {
		return nil, errNilContext(op, subject)
	}
	if err := c.checkMessage(op, subject, c.lineRoom(), header, data); err != nil {
		return nil, err
	}
	if c.around.Request == nil {
		return c.sendRequest(ctx, op, subject, header, data, timeout)
	}
	if timeout >= 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cmp.Or(timeout, c.cfg.RequestTimeout))
		defer cancel()
	}
	msg := Message{Subject: subject, Header: header, Data: data}
	return c.interceptRequest(ctx, op, msg, func(ctx context.Context, msg *Message) (*Message, error) {
		if err := c.checkMessage(op, msg.Subject, c.lineRoom(), msg.Header, msg.Data); err != nil {
			return nil, err
		}
		return c.sendRequest(ctx, op, msg.Subject, msg.Header, msg.Data, timeout)
	})
}

func (c *Client) sendRequest(ctx context.Context, op, subject string, header natsgo.Header, data []byte, timeout time.Duration) (*Message, error) {
	m, err := c.conn.Request(ctx, op, subject, header, data, timeout)
	if c.sentRequest(err); err != nil {
		return nil, err
	}
	return c.pulled.message(m), wrap(op, subject, serviceErrorOf(m))
}
