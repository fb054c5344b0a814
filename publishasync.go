package nats

import (
	"context"
	"slices"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
)

// How much is in flight, unacknowledged. More brings no speed, and is more to send again after an
// outage.
const (
	asyncMessages = 1024
	asyncBytes    = 32 << 20
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

func (c *Client) publishAsync(ctx context.Context, op string, msg *Message, opts []jetstream.PublishOpt, copied bool) (*pubAckFuture, error) {
	if msg == nil {
		return nil, fail(op, "", ErrInvalidArgument, "the message is nil")
	}
	m, err := c.publication(ctx, op, msg.Subject, msg.Header, msg.Data, opts)
	if err != nil {
		return nil, err
	}
	if copied {
		m.Data = slices.Clone(m.Data)
	}
	f := c.flights.future(ctx, op, m)
	if err := c.flights.start(ctx, f); err != nil {
		return nil, err
	}
	return f, nil
}

// pubAckFuture is a message in flight, and what came of it. It implements jetstream.PubAckFuture.
type pubAckFuture struct {
	flights  *flights
	op       string
	ctx      context.Context
	deadline time.Time
	msg      *natsgo.Msg
	call     *conn.Call

	patience time.Duration // of a chunk of an object; 0 is that of an event
	begun    time.Time     // of a chunk
	took     time.Duration // its answer, when the first sending was answered at once
	repeated bool          // it may have been sent more than once

	resolved bool // it and what follows are guarded by the flights
	ack      *jetstream.PubAck
	err      error
	okCh     chan *jetstream.PubAck // made when somebody asks, as are the others
	errCh    chan error
	done     chan struct{}
}

// future returns a flight that has not begun. Without a deadline in ctx, the request timeout bounds it.
func (p *flights) future(ctx context.Context, op string, m *natsgo.Msg) *pubAckFuture {
	f := &pubAckFuture{flights: p, op: op, ctx: ctx, msg: m}
	var ok bool
	if f.deadline, ok = ctx.Deadline(); !ok {
		f.deadline = time.Now().Add(p.client.cfg.RequestTimeout)
	}
	return f
}

// Ok returns a channel that brings the acknowledgement, if there is one.
func (f *pubAckFuture) Ok() <-chan *jetstream.PubAck {
	f.flights.mu.Lock()
	defer f.flights.mu.Unlock()
	if f.okCh == nil {
		f.okCh = make(chan *jetstream.PubAck, 1)
		if f.ack != nil {
			f.okCh <- f.ack
		}
	}
	return f.okCh
}

// Err returns a channel that brings the error, if there is one.
func (f *pubAckFuture) Err() <-chan error {
	f.flights.mu.Lock()
	defer f.flights.mu.Unlock()
	if f.errCh == nil {
		f.errCh = make(chan error, 1)
		if f.err != nil {
			f.errCh <- f.err
		}
	}
	return f.errCh
}

// Msg returns the message as it was sent, with its ID.
func (f *pubAckFuture) Msg() *natsgo.Msg { return f.msg }

// settled returns a channel that is closed when there is a result.
func (f *pubAckFuture) settled() <-chan struct{} {
	f.flights.mu.Lock()
	defer f.flights.mu.Unlock()
	if f.done == nil {
		f.done = make(chan struct{})
		if f.resolved {
			close(f.done)
		}
	}
	return f.done
}

// result returns what came of the message; when nothing has yet, it waits or says so.
func (f *pubAckFuture) result(wait bool) (ack *jetstream.PubAck, err error, there bool) { //nolint:revive // the error belongs to the acknowledgement
	if ack, err, there = f.peek(); there || !wait {
		return ack, err, there
	}
	<-f.settled()
	return f.peek()
}

// peek returns the result, if there is one.
func (f *pubAckFuture) peek() (ack *jetstream.PubAck, err error, there bool) { //nolint:revive // as for result
	f.flights.mu.Lock()
	defer f.flights.mu.Unlock()
	return f.ack, f.err, f.resolved
}

// settle records the result. The caller holds the flights' lock.
func (f *pubAckFuture) settle(ack *jetstream.PubAck, err error) {
	f.resolved, f.ack, f.err = true, ack, err
	if err == nil && f.okCh != nil {
		f.okCh <- ack
	}
	if err != nil && f.errCh != nil {
		f.errCh <- err
	}
	if f.done != nil {
		close(f.done)
	}
}
