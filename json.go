package nats

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	keyvalue "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/kv"
)

// JSON returns a Handler that unmarshals the payload and calls h with the message's context and the
// value; MessageFrom has the message itself. A payload that does not decode is a Permanent error: a
// Consumption moves the message to the dead letters at once.
func JSON[T any](h func(ctx context.Context, v T) error) Handler {
	return func(msg *Message) error {
		var v T
		if err := msg.DecodeJSON(&v); err != nil {
			return Permanent(err)
		}
		return h(msg.carried(), v)
	}
}

// JSONRequest returns a RequestHandler that unmarshals the payload, calls h with the message's context and the value,
// and marshals what h returns. A payload that does not decode is answered with code 400.
func JSONRequest[Req, Resp any](h func(ctx context.Context, req Req) (Resp, error)) RequestHandler {
	return func(msg *Message) ([]byte, error) {
		var req Req
		if err := msg.DecodeJSON(&req); err != nil {
			return nil, fmt.Errorf("%w: %w", &ServiceError{Code: http.StatusBadRequest, Description: "the request does not decode"}, err)
		}
		resp, err := h(msg.carried(), req)
		if err != nil {
			return nil, err
		}
		return json.Marshal(resp)
	}
}

// RequestJSON is Client.Request with both payloads in JSON. A req that does not marshal is ErrInvalidArgument, and an
// answer that does not decode an error of encoding/json in the chain.
func RequestJSON[Resp any](ctx context.Context, c *Client, subject string, req any, timeout time.Duration) (resp Resp, err error) {
	if c == nil {
		return resp, fail("request", subject, ErrInvalidArgument, "the client is nil")
	}
	data, err := json.Marshal(req)
	if err != nil {
		return resp, fail("request", subject, ErrInvalidArgument, "%w", err)
	}
	answer, err := c.Request(ctx, subject, data, timeout)
	if err != nil {
		return resp, err
	}
	if err := json.Unmarshal(answer.Data, &resp); err != nil {
		var zero Resp
		return zero, fail("decode JSON of the answer from", subject, nil, "%w", err)
	}
	return resp, nil
}

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
