package kv

import (
	"context"
	"errors"
	"maps"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// squeezed stores what the server has refused since the bucket is full: a value in the place of one as
// large, or the mark of a deletion, which needs room as well. First it goes without a message ID, and so only
// once; then after as little of the key's history as is enough has been removed, the oldest first. The last
// value goes only for a deletion, and the mark follows at once. Where it is larger than what it is to replace
// the key is deleted without one, as where the process ends in between: the next deletion leaves a mark.
func (b *Bucket) squeezed(ctx context.Context, key string, m *natsgo.Msg, w Write, refusal error) (*jetstream.PubAck, error) {
	if b.origin != "" {
		return nil, refusal // the keys are those of another bucket
	}
	entry, err := b.Latest(ctx, key)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound) && w.Op != jetstream.KeyValuePut && !w.Expect:
		return &jetstream.PubAck{Stream: b.stream}, nil
	case err != nil, w.Op == jetstream.KeyValuePut && len(m.Data) > len(entry.Value()): // what it has is not touched in vain
		return nil, refusal
	case w.Expect && entry.Revision() != w.Revision:
		return nil, &ConflictError{Expected: w.Revision, Revision: entry.Revision(), cause: refusal}
	}
	if ack, err := b.storeBare(ctx, m); !fault.IsFull(err) {
		return ack, err
	}
	counts, err := b.names(ctx, []string{key})
	if err != nil {
		return nil, refusal
	}
	for keep := counts[key]; keep > 1; {
		keep--
		if err := b.purgeKey(ctx, key, 0, keep); err != nil {
			return nil, err
		}
		if ack, _, err := b.publisher.Store(ctx, "", m); !fault.IsFull(err) {
			return ack, err
		}
	}
	if w.Op == jetstream.KeyValuePut {
		return nil, refusal
	}
	if err := b.purgeKey(ctx, key, entry.Revision()+1, 0); err != nil {
		return nil, err
	}
	if w.Expect {
		w.Revision = 0
		w.demand(m.Header)
	}
	ack, _, err := b.publisher.Store(ctx, "", m)
	if fault.IsFull(err) {
		ack, err = b.storeBare(ctx, m)
	}
	if fault.IsFull(err) {
		return &jetstream.PubAck{Stream: b.stream}, nil
	}
	return ack, err
}

// storeBare sends m once, without a message ID.
func (b *Bucket) storeBare(ctx context.Context, m *natsgo.Msg) (*jetstream.PubAck, error) {
	bare := &natsgo.Msg{Subject: m.Subject, Header: maps.Clone(m.Header), Data: m.Data}
	delete(bare.Header, jetstream.MsgIDHeader)
	deadline, _ := ctx.Deadline()
	answer, err := b.conn.Exchange(ctx, bare, time.Until(deadline))
	switch {
	case errors.Is(err, conn.ErrBroken):
		return nil, &fault.Error{Kind: fault.ErrConnectionLost, Cause: err}
	case errors.Is(err, conn.ErrUnanswered):
		return nil, &fault.Error{Kind: fault.ErrTimeout, Cause: err}
	case err != nil:
		return nil, fault.Wrap("", m.Subject, err)
	}
	ack, err := wire.ParsePubAck(answer)
	return ack, fault.Wrap("", m.Subject, err)
}

// purgeKey removes the messages of a key: those before a revision, or all but the last ones.
func (b *Bucket) purgeKey(ctx context.Context, key string, before, keep uint64) error {
	question := jetstream.StreamPurgeRequest{Subject: b.prefix + key, Sequence: before, Keep: keep}
	return b.api.Ask(ctx, "STREAM.PURGE."+b.stream, question, nil)
}
