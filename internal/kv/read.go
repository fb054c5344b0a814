package kv

import (
	"context"
	"encoding/json"
	"errors"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// Get returns the value that key had at a revision, the latest for 0, as any replica has it, or
// jetstream.ErrKeyNotFound.
func (b *Bucket) Get(ctx context.Context, key string, revision uint64) (found jetstream.KeyValueEntry, err error) {
	switch question := (wire.Get{Sequence: revision}); {
	case revision == 0:
		found, err = b.last(ctx, key)
	case b.direct:
		body, _ := json.Marshal(question) // of a number
		found, err = b.replica(ctx, key, b.api.Subject("DIRECT.GET."+b.stream), body)
	default:
		found, err = b.found(b.api.Stored(ctx, b.stream, question))
	}
	if err == nil && (deleted(found) || found.Key() != key) {
		return nil, jetstream.ErrKeyNotFound
	}
	return found, err
}

// Latest returns the latest entry of key as the stream's leader has it, which may be its deletion, or
// jetstream.ErrKeyNotFound.
func (b *Bucket) Latest(ctx context.Context, key string) (jetstream.KeyValueEntry, error) {
	return b.found(b.api.Stored(ctx, b.stream, wire.Get{LastFor: b.prefix + key}))
}

// last is Latest of any replica, where the bucket allows it.
func (b *Bucket) last(ctx context.Context, key string) (jetstream.KeyValueEntry, error) {
	if !b.direct {
		return b.Latest(ctx, key)
	}
	return b.replica(ctx, key, b.getPrefix+key, nil)
}

// replica asks any replica for an entry.
func (b *Bucket) replica(ctx context.Context, key, subject string, body []byte) (jetstream.KeyValueEntry, error) {
	ctx, cancel := b.conn.Deadline(ctx)
	defer cancel()
	question := &natsgo.Msg{Subject: subject, Data: body}
	found, _, end, err := jsapi.Send(ctx, b.api, question, b.prefix+key, func(m *natsgo.Msg) (jetstream.KeyValueEntry, error) {
		return b.found(wire.ParseDirect(m))
	})
	if end != nil {
		return nil, b.api.Unanswered(ctx, end, err)
	}
	return found, err
}

func (b *Bucket) found(m wire.Stored, err error) (jetstream.KeyValueEntry, error) {
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return nil, jetstream.ErrKeyNotFound
	case err != nil:
		return nil, err
	}
	return b.entry(m, 0), nil
}

// Many returns the latest values of those keys that exist, as any replica has them.
func (b *Bucket) Many(ctx context.Context, keys []string) (map[string]jetstream.KeyValueEntry, error) {
	ctx, cancel := b.conn.Deadline(ctx)
	defer cancel()
	entries := make(map[string]jetstream.KeyValueEntry, len(keys))
	if b.direct {
		subjects := make([]string, len(keys))
		for i, key := range keys {
			subjects[i] = b.prefix + key
		}
		err := b.api.LastOf(ctx, b.stream, subjects, func(m wire.Stored) error {
			if found := b.entry(m, 0); !deleted(found) {
				entries[found.key] = found
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		return entries, nil
	}
	for _, key := range keys { // only one at a time can be asked for
		switch found, err := b.Get(ctx, key, 0); {
		case err == nil:
			entries[key] = found
		case !errors.Is(err, jetstream.ErrKeyNotFound):
			return nil, err
		}
	}
	return entries, nil
}
