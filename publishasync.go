package nats

import (
	"context"
	"slices"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
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
	f := &pubAckFuture{publisher: c.async, op: op, ctx: ctx, msg: m}
	var ok bool
	if f.deadline, ok = ctx.Deadline(); !ok {
		f.deadline = time.Now().Add(c.cfg.RequestTimeout)
	}
	if err := c.async.publish(f); err != nil {
		return nil, err
	}
	return f, nil
}

// pubAckFuture is a message in flight, and what came of it. It implements jetstream.PubAckFuture.
// The fields below the first group are guarded by the publisher.
type pubAckFuture struct {
	publisher *asyncPublisher
	op        string
	ctx       context.Context
	deadline  time.Time
	chunk     *chunkFlight // nil but for a chunk of an object
	msg       *natsgo.Msg
	sequence  uint64
	reply     string // the subject of the answers to all attempts

	sent     time.Time // at the last attempt
	due      time.Time // of the next attempt
	breaks   uint64    // of the connection, at the last attempt
	attempts int
	asking   bool  // it has one of the places of those that ask again
	silent   bool  // no stream has answered the last attempt
	last     error // why the last attempt failed

	resolved bool
	ack      *jetstream.PubAck
	err      error
	okCh     chan *jetstream.PubAck // made when somebody asks, as are the others
	errCh    chan error
	done     chan struct{}
}

// Ok returns a channel that brings the acknowledgement, if there is one.
func (f *pubAckFuture) Ok() <-chan *jetstream.PubAck {
	f.publisher.mu.Lock()
	defer f.publisher.mu.Unlock()
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
	f.publisher.mu.Lock()
	defer f.publisher.mu.Unlock()
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
	f.publisher.mu.Lock()
	defer f.publisher.mu.Unlock()
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
	f.publisher.mu.Lock()
	defer f.publisher.mu.Unlock()
	return f.ack, f.err, f.resolved
}

// settle records the result. The caller holds the publisher's lock.
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
	if f.chunk != nil {
		f.chunk.ended = time.Now()
	}
}
