package nats

import (
	"context"
	"errors"
	"maps"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// squeezed stores what the server has refused since the bucket is full: a value in the place of one as
// large, or the mark of a deletion, which needs room as well. First it goes without a message ID, and so only
// once; then after as little of the key's history as is enough has been removed, the oldest first. The last
// value goes only for a deletion, and the mark follows at once. Where it is larger than what it is to replace
// the key is deleted without one, as where the process ends in between: the next deletion leaves a mark.
func (kv *KeyValue) squeezed(ctx context.Context, op, key string, m *natsgo.Msg, w keyWrite, refusal error) (*jetstream.PubAck, error) {
	if kv.origin != "" {
		return nil, refusal // the keys are those of another bucket
	}
	entry, err := kv.latest(ctx, key)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound) && w.delete != "" && !w.expect:
		return &jetstream.PubAck{Stream: kv.stream}, nil
	case err != nil, w.delete == "" && len(m.Data) > len(entry.value): // what it has is not touched in vain
		return nil, refusal
	case w.expect && entry.revision != w.revision:
		return nil, &ConflictError{Bucket: kv.bucket, Key: key, Expected: w.revision, Revision: entry.revision, cause: refusal}
	}
	if ack, err := kv.storeBare(ctx, op, m); !errors.Is(err, ErrStreamFull) {
		return ack, err
	}
	counts, err := kv.names(ctx, []string{key})
	if err != nil {
		return nil, refusal
	}
	for keep := counts[key]; keep > 1; {
		keep--
		if err := kv.purgeKey(ctx, key, 0, keep); err != nil {
			return nil, err
		}
		if ack, _, err := kv.client.publisher.Store(ctx, op, m); !errors.Is(err, ErrStreamFull) {
			return ack, err
		}
	}
	if w.delete == "" {
		return nil, refusal
	}
	if err := kv.purgeKey(ctx, key, entry.revision+1, 0); err != nil {
		return nil, err
	}
	if w.expect {
		w.revision = 0
		w.demand(m.Header)
	}
	ack, _, err := kv.client.publisher.Store(ctx, op, m)
	if errors.Is(err, ErrStreamFull) {
		ack, err = kv.storeBare(ctx, op, m)
	}
	if errors.Is(err, ErrStreamFull) {
		return &jetstream.PubAck{Stream: kv.stream}, nil
	}
	return ack, err
}

// storeBare sends m once, without a message ID.
func (kv *KeyValue) storeBare(ctx context.Context, op string, m *natsgo.Msg) (*jetstream.PubAck, error) {
	bare := &natsgo.Msg{Subject: m.Subject, Header: maps.Clone(m.Header), Data: m.Data}
	delete(bare.Header, jetstream.MsgIDHeader)
	deadline, _ := ctx.Deadline()
	answer, err := kv.client.conn.Exchange(ctx, bare, time.Until(deadline))
	if err != nil {
		kind := ErrTimeout
		if errors.Is(err, conn.ErrBroken) {
			kind = ErrConnectionLost
		}
		return nil, &fault.Error{Op: op, Target: m.Subject, Kind: kind, Cause: err}
	}
	ack, err := wire.ParsePubAck(answer)
	return ack, wrap(op, m.Subject, err)
}

// purgeKey removes the messages of a key: those before a revision, or all but the last ones.
func (kv *KeyValue) purgeKey(ctx context.Context, key string, before, keep uint64) error {
	question := struct {
		Filter string `json:"filter"`
		Before uint64 `json:"seq,omitempty"`
		Keep   uint64 `json:"keep,omitempty"`
	}{kv.prefix + key, before, keep}
	return kv.client.api.Ask(ctx, "STREAM.PURGE."+kv.stream, question, &jsapi.Refusal{})
}
