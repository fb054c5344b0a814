package nats

import (
	"context"
	"iter"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	keyvalue "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/kv"
)

// KeyValueCache holds the present values of a bucket's keys in memory and keeps them up to date. It is
// made by KeyValue.Cached and is safe for concurrent use.
type KeyValueCache struct {
	kv    *KeyValue
	cache *keyvalue.Cache
}

// Cached reads the keys that match one of the filters, all keys without filters, into memory, in one
// pass, and follows them from then on, as Watch does. It returns when all present values are there. The
// cache lives until Close, the end of ctx, or that of the client. The errors are those of Watch.
func (kv *KeyValue) Cached(ctx context.Context, filters ...string) (*KeyValueCache, error) {
	const op = "cache"
	if err := kv.checkKeys(ctx, op, true, filters); err != nil {
		return nil, err
	}
	cache, err := kv.keys.Cache(ctx, filters)
	if err != nil {
		return nil, kv.wrap(op, strings.Join(filters, ","), err)
	}
	return &KeyValueCache{kv, cache}, nil
}

// Get returns the value of key from memory, as of the last update received, or ErrKeyNotFound. It never
// waits for the network, and after the cache has ended it returns what it last knew: Stale tells. The
// value belongs to all who get it and must not be changed. Values that have a time to live, their own or
// the bucket's, are dropped by the server's clock. A change of the bucket's time and a purge of its stream,
// of which nobody is told, are noticed within some five seconds; in a bucket of many keys that expire, a
// purge of some of them later.
func (c *KeyValueCache) Get(key string) (jetstream.KeyValueEntry, error) {
	entry, err := c.cache.Get(key)
	return entry, c.kv.wrap("get key", key, err)
}

// Len returns the number of keys. It may count some that have just expired.
func (c *KeyValueCache) Len() int { return c.cache.Len() }

// All returns the keys and values of one moment, in no particular order.
func (c *KeyValueCache) All() iter.Seq2[string, jetstream.KeyValueEntry] { return c.cache.All() }

// Revision returns the revision of the last update received; 0 when there was none.
func (c *KeyValueCache) Revision() uint64 { return c.cache.Revision() }

// Stale tells whether the bucket may have updates that the cache does not know of, as
// KeyWatcher.Stale does. It is true for good when the cache has ended.
func (c *KeyValueCache) Stale() bool { return c.cache.Stale() }

// WaitFor returns when the cache has received the given revision or a later one: after a Put, Get
// then returns what was put, or something newer. The revision must be that of a key that the cache's
// filters match. The errors are ErrTimeout when ctx ends first, or without a deadline
// Config.RequestTimeout, and ErrClosed when the cache has ended.
func (c *KeyValueCache) WaitFor(ctx context.Context, revision uint64) error {
	const op = "wait for revision in"
	if ctx == nil {
		return errNilContext(op, c.kv.bucket)
	}
	return c.kv.wrap(op, "", c.cache.WaitFor(ctx, revision))
}

// Close ends the cache and waits until it has. It returns nil always, and may be called more than once.
func (c *KeyValueCache) Close() error {
	c.cache.Close()
	return nil
}
