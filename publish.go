package nats

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/publish"
)

// PublishToStream publishes data to the stream that stores subject and waits until it is stored. A
// nil error means stored exactly once: a message without an ID (jetstream.WithMsgID) gets one, and
// is sent again under the same ID, over restarts, elections and lost answers, until ctx ends. Without
// a deadline in ctx, Config.RequestTimeout applies; an election in a cluster can take longer. The
// stream knows the IDs of its duplicate window, 2 minutes unless set, for which it is asked once before
// the first repetition: beyond that a message that may be stored is not sent again, and what is waited
// for is the answer to the first sending. WithoutMessageID does without.
//
// The errors are ErrNoStream when no stream stores the subject, within a second; ErrStreamFull,
// ErrPayloadTooLarge, and ErrConflict when an expected sequence or message ID is not the last, at
// once; ErrFeatureDisabled when the stream acknowledges nothing (NoAck), after half a second; ErrNotConnected
// when nothing was sent; ErrTimeout and ErrConnectionLost when the message may or may not be stored, so that
// it is to be repeated with the same ID only; and those of Publish.
// The options WithRetryWait, WithRetryAttempts and WithStallWait of upstream change nothing. An ID
// that is made here adds 50 bytes, which count for the server's and the stream's size limits.
//
// Whether there is a stream is looked up in the client's own account. Where the account imports the subject from
// another one, a server before 2.11 cannot tell, and a stream that is silent for a second is ErrNoStream. Where
// there is no right to look and nobody listens, that is final after 2 seconds on a server that is in no
// cluster; elsewhere the error is both ErrNoStream and ErrTimeout when ctx ends. An acknowledgement of another
// domain than the configured one is ErrWrongDomain when the right one does not come.
//
// A schedule (jetstream.WithScheduleAt and its kin) that would lose messages in silence is refused: ErrConflict on a
// subject that holds another schedule, which the server would remove, unless
// jetstream.WithExpectLastSequencePerSubject means that; ErrInvalidArgument for a time beyond the stream's MaxAge or
// the message's TTL. A schedule that repeats ends at its MaxAge without a TTL of "never".
func (c *Client) PublishToStream(ctx context.Context, subject string, data []byte, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	return c.publishToStream(ctx, &Message{Subject: subject, Data: data}, opts)
}

// PublishMsgToStream is PublishToStream with headers. A header that the server takes for a command is
// ErrReservedHeader: it is set by an option, see WithHeader. PublishMsgToStream ignores msg.Reply, and
// neither changes nor keeps msg.
func (c *Client) PublishMsgToStream(ctx context.Context, msg *Message, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	if msg == nil {
		return nil, fail(opPublishToStream, "", ErrInvalidArgument, "the message is nil")
	}
	return c.publishToStream(ctx, msg, opts)
}

const opPublishToStream = "publish to stream"

func (c *Client) publishToStream(ctx context.Context, msg *Message, opts []jetstream.PublishOpt) (*jetstream.PubAck, error) {
	m, err := c.publication(ctx, opPublishToStream, msg, opts)
	if err != nil {
		return nil, err
	}
	ctx, cancel := c.conn.Deadline(ctx)
	defer cancel()
	ack, err := c.publisher.Publish(ctx, opPublishToStream, m)
	return ack, c.sent(err)
}

// publication checks a message for a stream and returns it with the options applied. It shares nothing with the
// caller but data.
func (c *Client) publication(ctx context.Context, op string, msg *Message, opts []jetstream.PublishOpt) (*natsgo.Msg, error) {
	if err := c.checkJetStream(ctx, op, msg.Subject); err != nil {
		return nil, err
	}
	if err := c.checkToStream(op, msg, nil); err != nil {
		return nil, err
	}
	if c.failing && !c.conn.IsUp() {
		return nil, c.conn.Refused(op, msg.Subject)
	}
	return c.publisher.Message(op, msg.Subject, msg.Header, msg.Data, opts)
}

// checkToStream refuses what can be refused without the server. Headers that command the server must be meant.
func (c *Client) checkToStream(op string, msg *Message, meant natsgo.Header) error {
	if err := c.checkMessage(op, msg.Subject, c.conn.LineRoom(), msg.Header, msg.Data); err != nil {
		return err
	}
	if msg.with == nil {
		return publish.Check(op, msg.Subject, msg.Header, meant)
	}
	if msg.with.err != nil {
		return fault.Wrap(op, msg.Subject, msg.with.err)
	}
	return publish.Check(op, msg.Subject, msg.Header, meant, msg.with.set)
}

// messageOptions are what With said.
type messageOptions struct {
	set natsgo.Header
	err error
}

// With sets options of m that hold wherever it is published to a stream: by PublishBatch, PublishSeq and
// PublishAtomic, too, which take none. Upstream's options become headers of m, in a map of its own; WithHeader
// and WithoutMessageID are among them. PublishMsg sends the headers, and hears no answer to them. An option that is
// wrong is the error of the publish. It returns m.
func (m *Message) With(opts ...jetstream.PublishOpt) *Message {
	header, set, err := publish.Set(m.Subject, m.Header, opts)
	if m.with != nil {
		maps.Copy(set, m.with.set)
		err = cmp.Or(m.with.err, err)
	}
	m.Header, m.with = header, &messageOptions{set: set, err: err}
	return m
}

// WithoutMessageID lets a message be stored at least once in the place of once: it gets no ID, and a sending whose
// acknowledgement was lost is followed by another one all the same. For each ID the server keeps some 130 bytes
// of memory for the duplicate window of the stream, on every replica: 10,000 messages a second take 140 MiB with
// the window of 2 minutes. IDs make publishing a tenth to a half slower, too. An ID that the message has is
// taken away.
func WithoutMessageID() jetstream.PublishOpt { return publish.Header(jetstream.MsgIDHeader) }

// PublishJSONToStream is PublishToStream of v as JSON. A v that cannot be encoded is ErrInvalidArgument.
func (c *Client) PublishJSONToStream(ctx context.Context, subject string, v any, opts ...jetstream.PublishOpt) (*jetstream.PubAck, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fail(opPublishToStream, subject, ErrInvalidArgument, "%w", err)
	}
	return c.PublishToStream(ctx, subject, data, opts...)
}

// WithHeader sets a header of one message that is published to a stream, also one that commands the
// server and is refused in Message.Header, such as Nats-Rollup (ADR-28) or Nats-Incr (ADR-49). It is
// for PublishToStream, PublishMsgToStream and PublishAsync of this package; upstream's own methods
// refuse it.
func WithHeader(name, value string) jetstream.PublishOpt {
	return publish.Header(name, value)
}

// BatchAck is the acknowledgement of a PublishAtomic.
type BatchAck struct {
	// Stream is where the messages are stored.
	Stream string `json:"stream"`
	// Domain is the stream's JetStream domain, empty when it has none.
	Domain string `json:"domain"`
	// Sequence of the last message; those before it have the sequences before it, without a gap. It
	// is 0 when Duplicate is set and the message could not be found any more.
	Sequence uint64 `json:"seq"`
	// BatchID is what the server knew the batch by.
	BatchID string `json:"batch"`
	// Size is the number of messages.
	Size int `json:"count"`
	// Duplicate tells that an earlier attempt of the same call had stored the messages, and only its
	// acknowledgement was lost.
	Duplicate bool `json:"-"`
}

const opPublishAtomic = "publish atomic"

// PublishAtomic stores all msgs in one stream, next to each other, or none of them: no consumer and
// no reader ever sees a part. The stream must have AllowAtomicPublish set (server 2.12, ADR-50). The
// server takes at most 1,000 messages in a batch unless configured otherwise, and 50 batches at a
// time for a stream; while there are more, PublishAtomic waits.
//
// It is sent again until it is stored or refused, or ctx ends, as PublishToStream does, and stored
// once: every message has an ID. Expected sequences may stand in the headers of the messages; an
// expected last sequence of the stream in that of the first only.
//
// The errors are those of PublishToStream, ErrAlreadyExists when the stream has a message with the ID
// of one of msgs, ErrFeatureDisabled when it allows no batches, and ErrInvalidArgument for a batch that is
// empty or too large. ErrTimeout and ErrConnectionLost leave open whether all or none are stored; ErrTimeout
// is also the error of a batch whose messages go to more than one stream, of which none stores any.
func (c *Client) PublishAtomic(ctx context.Context, msgs []*Message) (*BatchAck, error) {
	if len(msgs) == 0 {
		return nil, fail(opPublishAtomic, "", ErrInvalidArgument, "there are no messages")
	}
	batch := make([]*natsgo.Msg, len(msgs))
	for i, msg := range msgs {
		if msg == nil {
			return nil, fail(opPublishAtomic, "", ErrInvalidArgument, "message %d is nil", i)
		}
		m, err := c.publication(ctx, opPublishAtomic, msg, nil)
		if err != nil {
			return nil, fmt.Errorf("message %d: %w", i, err)
		}
		batch[i] = m
	}
	ctx, cancel := c.conn.Deadline(ctx)
	defer cancel()
	ack, err := c.publisher.Atomic(ctx, opPublishAtomic, batch)
	if err == nil {
		c.totals.sent.Add(uint64(len(msgs)))
	}
	return (*BatchAck)(ack), err
}
