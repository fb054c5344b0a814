package nats

import (
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// PublishToStream publishes data to the stream that stores subject and waits until it is stored. A
// nil error means stored exactly once: a message without an ID (jetstream.WithMsgID) gets one, and
// is sent again under the same ID, over restarts, elections and lost answers, until ctx ends. Without
// a deadline in ctx, Config.RequestTimeout applies; an election in a cluster can take longer. The
// stream knows the IDs of its duplicate window, 2 minutes unless set: a ctx that lasts longer than
// that can store a message twice.
//
// The errors are ErrNoStream when no stream stores the subject, within a second; ErrStreamFull,
// ErrPayloadTooLarge, and ErrConflict when an expected sequence or message ID is not the last, at
// once; ErrNotConnected when nothing was sent; ErrTimeout and ErrConnectionLost when the message may
// or may not be stored, so that it is to be repeated with the same ID only; and those of Publish.
// The options WithRetryWait, WithRetryAttempts and WithStallWait of upstream change nothing. An ID
// that is made here adds 50 bytes, which count for the server's and the stream's size limits. Streams
// are looked for in the client's own account: a stream of another account, behind an import, that
// does not answer within 500 ms is ErrNoStream, although it may have stored the message.
func (c *Client) PublishToStream(ctx context.Context, subject string, data []byte, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	return c.publishToStream(ctx, subject, nil, data, opts)
}

// PublishMsgToStream is PublishToStream with headers. A header that the server takes for a command is
// ErrReservedHeader: it is set by an option, see WithHeader. PublishMsgToStream ignores msg.Reply, and
// neither changes nor keeps msg.
func (c *Client) PublishMsgToStream(ctx context.Context, msg *Message, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	if msg == nil {
		return nil, fail(opPublishToStream, "", ErrInvalidArgument, "the message is nil")
	}
	return c.publishToStream(ctx, msg.Subject, msg.Header, msg.Data, opts)
}

const opPublishToStream = "publish to stream"

func (c *Client) publishToStream(ctx context.Context, subject string, header natsgo.Header, data []byte, opts []jetstream.PublishOpt) (*jetstream.PubAck, error) {
	m, err := c.publication(ctx, opPublishToStream, subject, header, data, opts)
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	return c.store(ctx, opPublishToStream, m)
}

// publication checks a message for a stream and returns it with the options applied and an ID. It
// shares nothing with the caller but data.
func (c *Client) publication(ctx context.Context, op, subject string, header natsgo.Header, data []byte, opts []jetstream.PublishOpt) (*natsgo.Msg, error) {
	js, err := c.jetStreamHandle(ctx, op, subject)
	if err != nil {
		return nil, err
	}
	if err := c.checkToStream(op, subject, header, data); err != nil {
		return nil, err
	}
	if up, _, _ := c.conn.State(); !up && c.failing {
		return nil, c.refused(op, subject)
	}
	own, err := publishHeader(js, op, subject, header, opts)
	if err != nil {
		return nil, err
	}
	if own.Get(jetstream.MsgIDHeader) == "" {
		own[jetstream.MsgIDHeader] = []string{c.msgIDs.next()}
	}
	return &natsgo.Msg{Subject: subject, Header: own, Data: data}, nil
}

// checkToStream refuses what can be refused without the server.
func (c *Client) checkToStream(op, subject string, header natsgo.Header, data []byte) error {
	if err := c.checkMessage(op, subject, c.lineRoom(), header, data); err != nil {
		return err
	}
	return checkReserved(op, subject, header)
}

// idSource makes message IDs.
type idSource struct {
	start  sync.Once
	prefix string
	last   atomic.Uint64
}

func (s *idSource) next() string {
	s.start.Do(func() { s.prefix = rand.Text()[:16] + "." })
	id := make([]byte, 0, 64) // on the stack
	return string(strconv.AppendUint(append(id, s.prefix...), s.last.Add(1), 36))
}

// store publishes m until it is stored or refused, or ctx ends, which must have a deadline.
func (c *Client) store(ctx context.Context, op string, m *natsgo.Msg) (*jetstream.PubAck, error) {
	ack, _, err := c.storeOnce(ctx, op, m)
	return ack, err
}

// storeOnce is store that also tells whether a sending went unanswered: it may have stored the message.
func (c *Client) storeOnce(ctx context.Context, op string, m *natsgo.Msg) (_ *jetstream.PubAck, doubted bool, _ error) {
	if err := fault.Ended(ctx); err != nil {
		return nil, false, wrap(op, m.Subject, err)
	}
	return c.storeCall(ctx, op, m, c.conn.Ask(m))
}

// storeCall is storeOnce for a call that has been begun, which it ends.
func (c *Client) storeCall(ctx context.Context, op string, m *natsgo.Msg, call *conn.Call) (_ *jetstream.PubAck, doubted bool, _ error) {
	ack, doubted, end, err := jsapi.GoOn(ctx, c.api, call, m.Subject, wire.ParsePubAck)
	switch {
	case end != nil:
		return nil, doubted, c.unstored(ctx, op, m.Subject, end, err, doubted)
	case err == nil:
		return ack, doubted, nil
	case doubted && fault.Kind(err) == ErrConflict: //nolint:errorlint // a sentinel of our own table
		ack, err = c.storedBefore(ctx, op, m, err)
		return ack, doubted, err
	}
	return nil, doubted, wrap(op, m.Subject, c.sized(err, m.Header, m.Data))
}

// unstored says why a publish ended without an acknowledgement: kind is what ended it, last what
// became of the last attempt.
func (c *Client) unstored(ctx context.Context, op, subject string, kind, last error, doubted bool) error {
	var cause fault.Joined
	switch {
	case errors.Is(kind, ErrClosed):
	case errors.Is(fault.Ended(ctx), context.Canceled):
		kind, cause = nil, fault.Joined{fault.Ended(ctx)}
	case errors.Is(kind, ErrNotConnected) && !doubted: // nothing was sent
		return c.unreachable(ctx, op, subject, kind)
	case errors.Is(kind, ErrNotConnected), errors.Is(last, conn.ErrBroken):
		kind, cause = ErrConnectionLost, fault.Joined{fault.Ended(ctx)}
	default:
		cause = fault.Joined{fault.Ended(ctx)}
	}
	if last != nil {
		cause = append(cause, last)
	}
	if cause == nil {
		return fail(op, subject, kind, "")
	}
	return &fault.Error{Op: op, Target: subject, Kind: kind, Cause: cause}
}
