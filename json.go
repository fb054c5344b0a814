package nats

import (
	"context"
	"encoding/json"
	"iter"

	"github.com/nats-io/nats.go/jetstream"

	keyvalue "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/kv"
)

// KeyReader is a *KeyValue or a *KeyValueCache.
type KeyReader interface {
	entryOf(ctx context.Context, key string) (jetstream.KeyValueEntry, error)
}

func (kv *KeyValue) entryOf(ctx context.Context, key string) (jetstream.KeyValueEntry, error) {
	if kv == nil {
		return nil, errNilBucket(key)
	}
	return kv.Get(ctx, key)
}

func (c *KeyValueCache) entryOf(_ context.Context, key string) (jetstream.KeyValueEntry, error) {
	if c == nil {
		return nil, errNilBucket(key)
	}
	return c.Get(key)
}

func errNilBucket(key string) error {
	return fail("get key", key, ErrInvalidArgument, "the bucket is nil")
}

// GetJSON returns the value of key in a bucket, or in a cache of one, decoded from JSON, and its revision. A
// value that does not decode is an error of encoding/json in the chain. The other errors are those of
// KeyValue.Get, or KeyValueCache.Get.
func GetJSON[T any](ctx context.Context, from KeyReader, key string) (value T, revision uint64, err error) {
	if from == nil {
		return value, 0, errNilBucket(key)
	}
	entry, err := from.entryOf(ctx, key)
	if err != nil {
		return value, 0, err
	}
	value, err = decodeEntry[T](entry)
	return value, entry.Revision(), err
}

func decodeEntry[T any](entry jetstream.KeyValueEntry) (value T, err error) {
	if err := json.Unmarshal(entry.Value(), &value); err != nil {
		var zero T
		return zero, fail("decode JSON of", path(entry.Bucket(), entry.Key()), nil, "%w", err)
	}
	return value, nil
}

// PutJSON is Put of the JSON of v. What cannot be encoded is ErrInvalidArgument.
func (kv *KeyValue) PutJSON(ctx context.Context, key string, v any, opts ...jetstream.KVCreateOpt) (uint64, error) {
	const op = "put key"
	data, err := json.Marshal(v)
	if err != nil {
		return 0, fail(op, path(kv.bucket, key), ErrInvalidArgument, "%w", err)
	}
	return writeKey(ctx, kv, op, key, data, keyvalue.Write{}, opts)
}

// Change is an update of a key whose values are JSON.
type Change[T any] struct {
	Key string
	// Value is zero when Deleted is set.
	Value T
	// Revision is 0 for a key that is gone because its bucket was replaced.
	Revision uint64
	// Deleted tells that the key was deleted, purged or has expired.
	Deleted bool
}

// ChangesJSON is KeyValue.Changes with the values decoded from JSON. A value that does not decode comes
// as a change with its key and revision beside the error, and the sequence goes on.
func ChangesJSON[T any](ctx context.Context, kv *KeyValue, filters ...string) iter.Seq2[Change[T], error] {
	const op = "watch"
	return func(yield func(Change[T], error) bool) {
		if kv == nil {
			yield(Change[T]{}, fail(op, "", ErrInvalidArgument, "the bucket is nil"))
			return
		}
		for entry, err := range kv.Changes(ctx, filters...) {
			if err != nil {
				yield(Change[T]{}, err)
				return
			}
			change := Change[T]{Key: entry.Key(), Revision: entry.Revision(), Deleted: entry.Operation() != jetstream.KeyValuePut}
			if !change.Deleted {
				change.Value, err = decodeEntry[T](entry)
			}
			if !yield(change, err) {
				return
			}
		}
	}
}
