package nats

import (
	"context"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
)

// Upstream returns the bucket for code that takes a jetstream.KeyValue: with upstream's signatures, and
// with the promises and the errors of KeyValue, which are upstream's as well.
func (kv *KeyValue) Upstream() jetstream.KeyValue { return upstreamKeyValue{kv} }

// upstreamKeyValue has those methods of jetstream.KeyValue that KeyValue has in another shape.
type upstreamKeyValue struct{ *KeyValue }

func (u upstreamKeyValue) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	return u.KeyValue.Put(ctx, key, value)
}

func (u upstreamKeyValue) PutString(ctx context.Context, key, value string) (uint64, error) {
	return u.KeyValue.PutString(ctx, key, value)
}

func (u upstreamKeyValue) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	return u.KeyValue.Update(ctx, key, value, revision)
}

func (u upstreamKeyValue) Watch(ctx context.Context, keys string, opts ...jetstream.WatchOpt) (jetstream.KeyWatcher, error) {
	return u.WatchFiltered(ctx, []string{keys}, opts...)
}

func (u upstreamKeyValue) WatchAll(ctx context.Context, opts ...jetstream.WatchOpt) (jetstream.KeyWatcher, error) {
	return u.WatchFiltered(ctx, nil, opts...)
}

func (u upstreamKeyValue) WatchFiltered(ctx context.Context, keys []string, opts ...jetstream.WatchOpt) (jetstream.KeyWatcher, error) {
	w, err := u.KeyValue.WatchFiltered(ctx, keys, opts...)
	if err != nil {
		return nil, err // and no nil pointer in an interface
	}
	return w, nil
}

// Keys returns jetstream.ErrNoKeysFound for an empty bucket, as upstream's does.
func (u upstreamKeyValue) Keys(ctx context.Context, opts ...jetstream.WatchOpt) ([]string, error) {
	options, err := watchOptionsOf(slices.Concat(opts, []jetstream.WatchOpt{jetstream.IgnoreDeletes(), jetstream.MetaOnly()}))
	if err != nil {
		return nil, fail(opListKeys, u.bucket, ErrInvalidArgument, "%w", err)
	}
	var keys []string
	for entry, err := range u.present(ctx, opListKeys, nil, options) {
		if err != nil {
			return nil, err
		}
		keys = append(keys, entry.key)
	}
	if len(keys) == 0 {
		return nil, u.fault(opListKeys, "", jetstream.ErrNoKeysFound)
	}
	return keys, nil
}
