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
func (b *Bucket) Get(ctx context.Context, key string, revision uint64) (*Entry, error) {
	entry, err := (*Entry)(nil), error(nil)
	if revision == 0 {
		entry, err = b.last(ctx, key)
	} else {
		entry, err = b.at(ctx, key, revision)
	}
	if err == nil && (entry.Deleted() || entry.key != key) {
		return nil, jetstream.ErrKeyNotFound
	}
	return entry, err
}

// at returns what has a revision, be it of another key.
func (b *Bucket) at(ctx context.Context, key string, revision uint64) (*Entry, error) {
	question := wire.Get{Sequence: revision}
	if !b.direct {
		return b.found(b.api.Stored(ctx, b.stream, question))
	}
	body, err := json.Marshal(question)
	if err != nil {
		return nil, err
	}
	return b.ask(ctx, key, b.api.Subject("DIRECT.GET."+b.stream), body)
}

// Latest returns the latest entry of key as the stream's leader has it, which may be its deletion, or
// jetstream.ErrKeyNotFound.
func (b *Bucket) Latest(ctx context.Context, key string) (*Entry, error) {
	return b.found(b.api.Stored(ctx, b.stream, wire.Get{LastFor: b.prefix + key}))
}

// last is Latest of any replica, where the bucket allows it.
func (b *Bucket) last(ctx context.Context, key string) (*Entry, error) {
	if !b.direct {
		return b.Latest(ctx, key)
	}
	return b.ask(ctx, key, b.getPrefix+key, nil)
}

// ask asks any replica for an entry.
func (b *Bucket) ask(ctx context.Context, key, subject string, body []byte) (*Entry, error) {
	ctx, cancel := b.conn.Deadline(ctx)
	defer cancel()
	entry, _, end, err := jsapi.Send(ctx, b.api, &natsgo.Msg{Subject: subject, Data: body}, b.prefix+key, func(m *natsgo.Msg) (*Entry, error) {
		return b.found(wire.ParseDirect(m))
	})
	if end != nil {
		return nil, b.api.Unanswered(ctx, end, err)
	}
	return entry, err
}

func (b *Bucket) found(m wire.Stored, err error) (*Entry, error) {
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return nil, jetstream.ErrKeyNotFound
	case err != nil:
		return nil, err
	}
	return b.stored(m), nil
}

// Many returns the latest values of those keys that exist, as any replica has them.
func (b *Bucket) Many(ctx context.Context, keys []string) (map[string]jetstream.KeyValueEntry, error) {
	ctx, cancel := b.conn.Deadline(ctx)
	defer cancel()
	entries := make(map[string]jetstream.KeyValueEntry, len(keys))
	take := func(entry *Entry) {
		if !entry.Deleted() {
			entries[entry.key] = entry
		}
	}
	if !b.direct { // then only one at a time can be asked for
		for _, key := range keys {
			switch entry, err := b.Latest(ctx, key); {
			case err == nil:
				take(entry)
			case !errors.Is(err, jetstream.ErrKeyNotFound):
				return nil, err
			}
		}
		return entries, nil
	}
	subjects := make([]string, len(keys))
	for i, key := range keys {
		subjects[i] = b.prefix + key
	}
	return entries, b.api.LastOf(ctx, b.stream, subjects, func(m wire.Stored) error {
		take(b.stored(m))
		return nil
	})
}
