package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// The headers of an atomic batch (ADR-50).
const (
	batchIDHeader       = "Nats-Batch-Id"
	batchSequenceHeader = "Nats-Batch-Sequence"
	batchCommitHeader   = "Nats-Batch-Commit"
)

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
// of one of msgs, and ErrInvalidArgument for a batch that is empty or too large, or a stream that
// allows none. ErrTimeout and ErrConnectionLost leave open whether all or none are stored; ErrTimeout
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
		m, err := c.publication(ctx, opPublishAtomic, msg.Subject, msg.Header, msg.Data, nil)
		if err != nil {
			return nil, fmt.Errorf("message %d: %w", i, err)
		}
		m.Header[batchSequenceHeader] = []string{strconv.Itoa(i + 1)}
		batch[i] = m
	}
	batch[len(batch)-1].Header[batchCommitHeader] = []string{"1"}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	return c.storeAtomic(ctx, batch)
}

// storeAtomic sends the batch until it is stored or refused, or ctx ends. It follows Client.store,
// but only an attempt that got as far as the commit leaves a doubt.
func (c *Client) storeAtomic(ctx context.Context, batch []*natsgo.Msg) (*BatchAck, error) {
	subject := batch[0].Subject
	if err := fault.Ended(ctx); err != nil {
		return nil, wrap(opPublishAtomic, subject, err)
	}
	var last error
	var doubted, careful bool
	for sending := 1; ; sending++ {
		if err := c.conn.Wait(ctx); err != nil {
			return nil, c.unstored(ctx, opPublishAtomic, subject, err, last, doubted)
		}
		ack, at, err := c.attemptAtomic(ctx, batch, careful, pause.Doubled(sending))
		var api *jetstream.APIError
		isAPI := errors.As(err, &api)
		switch {
		case err == nil:
			return ack, nil
		case isAPI && api.ErrorCode == fault.CodeAtomicDuplicate && doubted:
			return c.findAtomic(ctx, batch), nil
		case errors.Is(err, conn.ErrUnanswered), errors.Is(err, conn.ErrBroken):
			doubted = doubted || at == len(batch)-1
		case isAPI && api.ErrorCode == fault.CodeAtomicIncomplete:
			// The leader has changed, or one of the messages was refused, or lost on the way. Nothing is
			// stored.
			careful = true
		case !jsapi.Passes(err):
			return nil, wrap(opPublishAtomic, batch[at].Subject, c.sized(err, batch[at].Header, batch[at].Data))
		}
		last = err
		if !errors.Is(err, conn.ErrBroken) && c.api.Missing(ctx, batch[at].Subject) {
			return nil, wrap(opPublishAtomic, batch[at].Subject, jetstream.ErrNoStreamResponse)
		}
		pause.Sleep(ctx, jsapi.Pause)
		if ctx.Err() != nil {
			return nil, c.unstored(ctx, opPublishAtomic, subject, ErrTimeout, last, doubted)
		}
	}
}

// attemptAtomic sends the batch once, under an ID of its own. The first message is answered, so that
// a stream that refuses the batch says so before the rest is sent; in a careful attempt every message
// is, so that the one to blame is found. The last one commits. It returns which message the answer
// or the error belongs to.
func (c *Client) attemptAtomic(ctx context.Context, batch []*natsgo.Msg, careful bool, patience time.Duration) (ack *BatchAck, at int, err error) {
	id := c.msgIDs.next()
	final := len(batch) - 1
	for i, m := range batch[:final] {
		m.Header[batchIDHeader] = []string{id}
		if i == 0 || careful {
			err = c.addToBatch(ctx, m, patience)
		} else {
			m.Reply = ""
			err = c.conn.PublishMsg(ctx, m)
		}
		if err != nil {
			return nil, i, err
		}
	}
	batch[final].Header[batchIDHeader] = []string{id}
	answer, err := c.conn.Exchange(ctx, batch[final], 2*patience)
	if err != nil {
		return nil, final, err
	}
	if _, err := wire.ParsePubAck(answer); err != nil {
		return nil, final, err
	}
	ack = &BatchAck{}
	switch err := json.Unmarshal(answer.Data, ack); {
	case err != nil:
		return nil, final, err
	case ack.BatchID != id || ack.Size != len(batch):
		return nil, final, errNoBatches(batch[final])
	}
	return ack, final, nil
}

// errNoBatches is the error for a server before 2.12, which takes the headers for any others.
func errNoBatches(m *natsgo.Msg) error {
	return fail(opPublishAtomic, m.Subject, ErrInvalidArgument, "the server knows no atomic batches and has stored the message by itself")
}

// addToBatch sends a message and waits until the server has it, which then answers with nothing.
func (c *Client) addToBatch(ctx context.Context, m *natsgo.Msg, patience time.Duration) error {
	answer, err := c.conn.Exchange(ctx, m, patience)
	if err != nil || (len(answer.Data) == 0 && !wire.NoResponders(answer)) {
		return err
	}
	if _, err := wire.ParsePubAck(answer); err != nil {
		return err
	}
	return errNoBatches(m)
}

// findAtomic makes up for an acknowledgement that was lost.
func (c *Client) findAtomic(ctx context.Context, batch []*natsgo.Msg) *BatchAck {
	final := batch[len(batch)-1]
	ack := &BatchAck{Size: len(batch), BatchID: final.Header.Get(batchIDHeader), Duplicate: true}
	stream, found, err := c.storedFor(ctx, final.Subject, wire.Get{LastFor: final.Subject})
	ack.Stream = stream
	if err == nil && found.Header.Get(jetstream.MsgIDHeader) == final.Header.Get(jetstream.MsgIDHeader) {
		ack.Sequence, ack.BatchID = found.Sequence, found.Header.Get(batchIDHeader)
	}
	return ack
}
