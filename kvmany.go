package nats

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// GetMany returns the latest values of the keys, by key, in one round trip for some hundreds of them.
// Keys that do not exist are not in the map: none of them does is no error. The errors are those of
// Get. It needs server 2.11.
func (kv *KeyValue) GetMany(ctx context.Context, keys ...string) (map[string]jetstream.KeyValueEntry, error) {
	const op = "get keys"
	for _, key := range keys {
		if err := kv.checkKey(ctx, op, key); err != nil {
			return nil, err
		}
	}
	if ctx == nil {
		return nil, errNilContext(op, kv.bucket)
	}
	ctx, cancel := kv.client.deadline(ctx)
	defer cancel()
	entries := make(map[string]jetstream.KeyValueEntry, len(keys))
	take := func(entry *keyEntry, err error) error {
		if err == nil && !entry.deleted() {
			entries[entry.key] = entry
		}
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			return nil
		}
		return err
	}
	var err error
	if kv.direct {
		subjects := make([]string, len(keys))
		for i, key := range keys {
			subjects[i] = kv.prefix + key
		}
		err = kv.client.api.LastOf(ctx, kv.stream, subjects, func(m wire.Stored) error { return take(kv.found(m, nil)) })
	} else { // then only one at a time can be asked for
		for i := 0; i < len(keys) && err == nil; i++ {
			err = take(kv.last(ctx, keys[i]))
		}
	}
	if err != nil {
		return nil, kv.fault(op, "", err)
	}
	return entries, nil
}
