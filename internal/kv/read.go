package kv

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// Get returns the value that key had at a revision, the latest for 0, as any replica has it, or
// jetstream.ErrKeyNotFound.
func (b *Bucket) Get(ctx context.Context, key string, revision uint64) (found jetstream.KeyValueEntry, err error) {
	if revision == 0 {
		found, err = b.last(ctx, key)
	} else {
		found, err = b.ask(ctx, key, wire.Get{Sequence: revision})
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
	return b.ask(ctx, key, wire.Get{LastFor: b.prefix + key})
}

// ask asks any replica for an entry of key or, where the bucket does not allow that, the leader.
func (b *Bucket) ask(ctx context.Context, key string, of wire.Get) (jetstream.KeyValueEntry, error) {
	if b.facts.Load().direct {
		if found, err := b.replica(ctx, key, of); !errors.Is(err, jsapi.ErrNotDirect) {
			return found, err
		}
	}
	return b.found(b.api.Stored(ctx, b.stream, of))
}

// lookTime bounds, but for the way, a question beside another one.
const lookTime = time.Second

// replica asks any replica for an entry. When nobody answers, the bucket may not allow it any more: that is looked up,
// until it is known.
func (b *Bucket) replica(ctx context.Context, key string, of wire.Get) (jetstream.KeyValueEntry, error) {
	ctx, cancel := b.conn.Deadline(ctx)
	defer cancel()
	question := &natsgo.Msg{Subject: b.getPrefix + key}
	if of.Sequence > 0 {
		question.Subject = b.api.Subject("DIRECT.GET." + b.stream)
		question.Data, _ = json.Marshal(of) // of a number
	}
	looked := false
	found, _, end, err := jsapi.Send(ctx, b.api, question, b.prefix+key, func(m *natsgo.Msg) (jetstream.KeyValueEntry, error) {
		found, err := b.found(wire.ParseDirect(m))
		if !errors.Is(err, natsgo.ErrNoResponders) {
			return found, err
		}
		if b.facts.Load().direct && !looked { // else others have found out
			_, trip := b.conn.Peer()
			looking, cancel := context.WithTimeout(ctx, lookTime+2*trip)
			defer cancel()
			_, failed := b.inquire(looking)
			looked = failed == nil
		}
		if !b.facts.Load().direct {
			err = jsapi.ErrNotDirect
		}
		return found, err
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
	if b.facts.Load().direct {
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
		switch {
		case err == nil:
			return entries, nil
		case !errors.Is(err, jsapi.ErrNotDirect):
			return nil, err
		}
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
