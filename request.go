package nats

import (
	"cmp"
	"context"
	"iter"
	"slices"
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

const opRequest = "request"

func (c *Client) requestChecked(ctx context.Context, subject string, header natsgo.Header, data []byte, timeout time.Duration) (*Message, error) {
	const op = opRequest
	if ctx == nil {
		return nil, errNilContext(op, subject)
	}
	if err := c.checkMessage(op, subject, c.lineRoom(), header, data); err != nil {
		return nil, err
	}
	if !c.isIntercepted(c.around.Request != nil) {
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

// RequestMany publishes data to subject and returns the answers that come within the time of ctx, which is
// Config.RequestTimeout when it has no deadline: the end of that time is a regular end. WithMaxReplies, WithStall and
// WithSentinel end the sequence earlier. The request is sent when the sequence is ranged over.
//
// An answer that is the error of a service comes beside a *ServiceError, and others may follow. An error without an
// answer is the last: ErrTimeout when there was none, ErrConnectionLost when the connection broke, so that answers may
// be missing, ErrSlowConsumer when more than 64 MiB of them waited for the loop, and otherwise those of Request.
func (c *Client) RequestMany(ctx context.Context, subject string, data []byte, opts ...RequestManyOption) iter.Seq2[*Message, error] {
	const op = opRequest
	return func(yield func(*Message, error) bool) {
		if ctx == nil {
			yield(nil, errNilContext(op, subject))
			return
		}
		m, err := c.requestOfMany(ctx, op, &Message{Subject: subject, Data: data})
		if err == nil {
			var o requestManyOptions
			for _, opt := range opts {
				if opt != nil {
					opt(&o)
				}
			}
			answers := 0
			err = c.conn.RequestMany(ctx, op, m, o.stall, func(m *natsgo.Msg) bool {
				msg := c.pulled.message(m)
				if o.isLast != nil && o.isLast(msg) {
					return false
				}
				answers++
				return yield(msg, wrap(op, subject, serviceErrorOf(m))) && answers != o.most
			})
			c.sentRequest(err)
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

// requestOfMany returns what is to be sent: what the interceptors make of msg.
func (c *Client) requestOfMany(ctx context.Context, op string, msg *Message) (m *natsgo.Msg, err error) {
	intercepted := c.isIntercepted(c.around.Publish != nil)
	check := func(_ context.Context, msg *Message) error {
		m = &natsgo.Msg{Subject: msg.Subject, Header: msg.Header, Data: msg.Data}
		if intercepted {
			m.Data = slices.Clone(msg.Data) // which may be a buffer of the interceptor's
		}
		return c.checkMessage(op, msg.Subject, c.lineRoom(), msg.Header, msg.Data)
	}
	if err = check(ctx, msg); err != nil || !intercepted {
		return m, err
	}
	m = nil
	if err = c.intercept(ctx, op, *msg, check); err == nil && m == nil {
		err = fail(op, msg.Subject, ErrInvalidArgument, "the interceptor has neither called next nor returned an error")
	}
	return m, err
}

// RequestManyOption says when RequestMany has enough.
type RequestManyOption func(*requestManyOptions)

type requestManyOptions struct {
	most   int
	stall  time.Duration
	isLast func(*Message) bool
}

// WithMaxReplies ends RequestMany after n answers. Zero is no limit.
func WithMaxReplies(n int) RequestManyOption { return func(o *requestManyOptions) { o.most = n } }

// WithStall ends RequestMany when nothing has come for d since the last answer; the first one has all the time. Zero
// is no limit.
func WithStall(d time.Duration) RequestManyOption { return func(o *requestManyOptions) { o.stall = d } }

// WithSentinel ends RequestMany with the answer for which isLast is true, which is not part of the sequence.
func WithSentinel(isLast func(*Message) bool) RequestManyOption {
	return func(o *requestManyOptions) { o.isLast = isLast }
}
