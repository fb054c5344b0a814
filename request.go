package nats

import (
	"context"
	"fmt"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// Request publishes data to subject and returns the first answer. It waits no longer than timeout
// and ctx allow, whichever is earlier; a timeout of zero means Config.RequestTimeout.
//
// When nobody listens on the subject it returns ErrNoResponders at once, and when nobody answers
// in time ErrTimeout. While disconnected it waits for the connection and then returns
// ErrNotConnected: nothing was sent. When the connection breaks while the request is in flight it
// waits on, since the answer may still come after a quick reconnect, and then returns
// ErrConnectionLost: the request may have been handled, and the caller decides whether to repeat
// it. The other errors are those of Publish.
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
	return c.request(ctx, op, subject, header, data, timeout)
}

// request sends and waits for one answer. Unlike upstream's it outlives a reconnect, tells a
// broken connection from a silent responder, and needs no context for its timeout.
func (c *Client) request(ctx context.Context, op, subject string, header natsgo.Header, data []byte, timeout time.Duration) (*Message, error) {
	switch {
	case timeout < 0:
		return nil, fail(op, subject, ErrInvalidArgument, "the timeout must not be negative, got %v", timeout)
	case timeout == 0:
		timeout = c.cfg.RequestTimeout
	}
	if err := ctx.Err(); err != nil {
		return nil, wrap(op, subject, err)
	}
	c.passGate() // before the request is open: a move waits for the answers to those that are
	w := c.replies.waiter(timeout)
	defer c.replies.close(w)
	breaks, err := c.openRequest(ctx, w, op, subject)
	if err != nil {
		return nil, err
	}
	if header == nil {
		err = c.nc.PublishRequest(subject, w.reply, data)
	} else {
		err = c.nc.PublishMsg(&natsgo.Msg{Subject: subject, Reply: w.reply, Header: header, Data: data})
	}
	if err != nil {
		return nil, wrap(op, subject, c.sized(err, header, data))
	}

	select {
	case m := <-w.answer:
		if m == nil {
			return nil, wrap(op, subject, w.denied)
		}
		if isNoResponders(m) {
			return nil, wrap(op, subject, natsgo.ErrNoResponders)
		}
		return c.pulled.message(m), nil
	case <-w.timer.C:
		return nil, c.unanswered(op, subject, breaks, fmt.Errorf("%w after %v", natsgo.ErrTimeout, timeout))
	case <-ctx.Done():
		return nil, c.unanswered(op, subject, breaks, context.Cause(ctx))
	case <-c.life.Context().Done():
		return nil, fail(op, subject, ErrClosed, "while waiting for the answer")
	}
}

// openRequest opens w when the connection stands, and returns how often it broke so far.
func (c *Client) openRequest(ctx context.Context, w *waiter, op, subject string) (uint64, error) {
	for {
		up, breaks, wait := c.link.state()
		switch {
		case up:
			return breaks, wrap(op, subject, c.replies.open(w, subject))
		case c.nc.IsClosed():
			return 0, fail(op, subject, ErrClosed, "")
		case c.failing:
			return 0, c.refused(op, subject)
		}
		select {
		case <-wait:
		case <-w.timer.C:
			return 0, &fault.Error{Op: op, Target: subject, Kind: ErrNotConnected, Cause: c.nc.LastError()}
		case <-ctx.Done():
			return 0, c.unreachable(ctx, op, subject, ErrNotConnected)
		}
	}
}

// unanswered tells a broken connection from a slow or silent responder.
func (c *Client) unanswered(op, subject string, breaks uint64, cause error) error {
	if up, now, _ := c.link.state(); !up || now != breaks {
		return &fault.Error{Op: op, Target: subject, Kind: ErrConnectionLost, Cause: cause}
	}
	return wrap(op, subject, cause)
}

// The status that the server itself answers with when nobody subscribes to a request's subject
// (ADR-4).
const (
	statusHeader       = "Status"
	statusNoResponders = "503"
)

func isNoResponders(m *natsgo.Msg) bool {
	return len(m.Data) == 0 && m.Header != nil && m.Header.Get(statusHeader) == statusNoResponders
}
