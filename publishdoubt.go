package nats

import (
	"context"
	"errors"
	"strconv"
	"strings"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// storedBefore returns the acknowledgement of a message that an earlier, unanswered attempt has
// stored, or refusal when none has. It is asked when the stream refuses the message for its expected
// sequence: a server that is not in a cluster looks at that before it looks at the message ID, and the
// sequence is not the expected one because the message itself is there. Then it is the first one after
// that sequence.
func (c *Client) storedBefore(ctx context.Context, op string, m *natsgo.Msg, refusal error) (*jetstream.PubAck, error) {
	question, expected := wire.Get{}, m.Header.Get(jetstream.ExpectedLastSeqHeader)
	if expected == "" {
		expected = m.Header.Get(jetstream.ExpectedLastSubjSeqHeader)
		question.NextFor = strings.TrimPrefix(m.Subject, c.api.Subject(""))
	}
	sequence, err := strconv.ParseUint(expected, 10, 64)
	if err != nil {
		return nil, wrap(op, m.Subject, refusal) // it expects a message ID
	}
	question.Sequence = sequence + 1
	stream, found, err := c.storedFor(ctx, m.Subject, question)
	switch {
	case err == nil && found.Header.Get(jetstream.MsgIDHeader) == m.Header.Get(jetstream.MsgIDHeader):
		return &jetstream.PubAck{Stream: stream, Sequence: found.Sequence, Duplicate: true}, nil
	case err == nil, errors.Is(err, jetstream.ErrMsgNotFound):
		// Or it was stored and another writer has replaced it already.
		return nil, wrap(op, m.Subject, fault.Joined{refusal, conn.ErrUnanswered})
	}
	return nil, c.unstored(ctx, op, m.Subject, ErrTimeout, refusal, true)
}

// storedFor asks the leader of the stream that stores subject for a message, and returns the stream's name.
func (c *Client) storedFor(ctx context.Context, subject string, question wire.Get) (string, wire.Stored, error) {
	name, err := c.api.StreamOf(ctx, subject)
	if err != nil {
		return "", wire.Stored{}, err
	}
	found, err := c.api.Stored(ctx, name, question)
	return name, found, err
}
