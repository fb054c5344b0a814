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
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
)

// storedBefore returns the acknowledgement of a message that an earlier, unanswered attempt has
// stored, or refusal when none has. It is asked when the stream refuses the message for its expected
// sequence: a server that is not in a cluster looks at that before it looks at the message ID, and the
// sequence is not the expected one because the message itself is there. Then it is the first one after
// that sequence.
func (c *Client) storedBefore(ctx context.Context, op string, m *natsgo.Msg, refusal error) (*jetstream.PubAck, error) {
	var opts []jetstream.GetMsgOpt
	expected := m.Header.Get(jetstream.ExpectedLastSeqHeader)
	if expected == "" {
		expected = m.Header.Get(jetstream.ExpectedLastSubjSeqHeader)
		opts = append(opts, jetstream.WithGetMsgSubject(strings.TrimPrefix(m.Subject, c.jsPrefix)))
	}
	sequence, err := strconv.ParseUint(expected, 10, 64)
	if err != nil {
		return nil, wrap(op, m.Subject, refusal) // it expects a message ID
	}
	stream, err := c.streamOf(ctx, m.Subject)
	if err != nil {
		return nil, c.unstored(ctx, op, m.Subject, ErrTimeout, refusal, true)
	}
	found, err := persist(ctx, func(ctx context.Context) (*jetstream.RawStreamMsg, error) {
		return stream.GetMsg(ctx, sequence+1, opts...)
	})
	switch {
	case err == nil && found.Header.Get(jetstream.MsgIDHeader) == m.Header.Get(jetstream.MsgIDHeader):
		return &jetstream.PubAck{Stream: stream.CachedInfo().Config.Name, Sequence: found.Sequence, Duplicate: true}, nil
	case err == nil, errors.Is(err, jetstream.ErrMsgNotFound):
		// Or it was stored and another writer has replaced it already.
		return nil, wrap(op, m.Subject, fault.Joined{refusal, conn.ErrUnanswered})
	}
	return nil, c.unstored(ctx, op, m.Subject, ErrTimeout, refusal, true)
}

// streamOf returns upstream's handle of the stream that stores subject.
func (c *Client) streamOf(ctx context.Context, subject string) (jetstream.Stream, error) {
	return persist(ctx, func(ctx context.Context) (jetstream.Stream, error) {
		name, err := c.js.StreamNameBySubject(ctx, strings.TrimPrefix(subject, c.jsPrefix))
		if err != nil {
			return nil, err
		}
		return c.js.Stream(ctx, name)
	})
}

// persist calls f, which asks the server something, until it is answered or ctx ends. Upstream waits
// for an answer that is lost for as long as ctx lasts, and asks once.
func persist[T any](ctx context.Context, f func(context.Context) (T, error)) (T, error) {
	for {
		short, cancel := context.WithTimeout(ctx, finderTimeout)
		answer, err := f(short)
		cancel()
		lost := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, natsgo.ErrDisconnected) || passes(err)
		if !lost || ctx.Err() != nil {
			return answer, err
		}
		pause.Sleep(ctx, attemptPause)
	}
}
