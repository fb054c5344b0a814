package nats

import (
	"context"
	"iter"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	keyvalue "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/kv"
)

// KeyWatcher implements jetstream.KeyWatcher. It is safe for concurrent use.
type KeyWatcher struct{ watcher *keyvalue.Watcher }

// Updates returns the channel of the updates. It is closed when the watcher ends.
func (w *KeyWatcher) Updates() <-chan jetstream.KeyValueEntry { return w.watcher.Updates() }

// Stop ends the watcher. It returns nil always, and may be called more than once.
func (w *KeyWatcher) Stop() error { return w.watcher.Stop() }

// Stale tells whether the bucket may have updates that the watcher does not know of: while the present
// values are not all received, the connection is down, the server is silent for more than a second or
// two, or the bucket is gone. EventWatchStale and EventWatchFresh tell of the changes. It is true, too,
// while the updates that the watcher has are not taken for some seconds.
func (w *KeyWatcher) Stale() bool { return w.watcher.Stale() }

// Watch reports the present values of the keys that match filter, which may have wildcards, then a
// nil, then every change, until the watcher is stopped, ctx ends, or the client is closed: then
// Updates is closed. Ctx is the watcher's life, not the time of the call. The options are
// upstream's. Nobody is told when a value expires, where no marks are on (WithKeyTTLs); keys that go with a
// purge of the stream are reported within some five seconds, as deletions with a revision of 0.
//
// A watcher goes on over reconnects, restarts and elections, after the last revision that it has
// reported, so that it misses no key's last value and reports none twice; of a key that changed more
// than once meanwhile it reports what the bucket's history still has. When the bucket is deleted and
// created again, all its values are reported, and a deletion, with a revision of 0, for each key that
// is gone.
//
// The errors are ErrBucketNotFound, ErrInvalidArgument for a filter or an option, and ErrNotConnected.
func (kv *KeyValue) Watch(ctx context.Context, filter string, opts ...jetstream.WatchOpt) (*KeyWatcher, error) {
	return kv.WatchFiltered(ctx, []string{filter}, opts...)
}

// WatchAll is Watch of all keys.
func (kv *KeyValue) WatchAll(ctx context.Context, opts ...jetstream.WatchOpt) (*KeyWatcher, error) {
	return kv.WatchFiltered(ctx, nil, opts...)
}

// WatchFiltered is Watch of the keys that match one of the filters; without filters, of all keys. The server compares
// each filter with each: some thousands take it seconds, 10,000 half a minute, for which Config.RequestTimeout must last.
func (kv *KeyValue) WatchFiltered(ctx context.Context, filters []string, opts ...jetstream.WatchOpt) (*KeyWatcher, error) {
	options, err := kv.checkWatch(ctx, filters, opts)
	if err != nil {
		return nil, err
	}
	watcher, err := kv.keys.Watch(ctx, filters, options)
	if err != nil {
		return nil, kv.wrap(opWatch, strings.Join(filters, ","), err)
	}
	return &KeyWatcher{watcher}, nil
}

const opWatch = "watch"

// checkWatch refuses bad filters and options, and a nil context.
func (kv *KeyValue) checkWatch(ctx context.Context, filters []string, opts []jetstream.WatchOpt) (keyvalue.Watch, error) {
	options, err := keyvalue.WatchOf(opts)
	if err != nil {
		return options, fail(opWatch, kv.bucket, ErrInvalidArgument, "%w", err)
	}
	return options, kv.checkKeys(ctx, opWatch, true, filters)
}

// ListKeys is Keys as upstream has it; the lister ends with its ctx, with Stop, or with the client.
func (kv *KeyValue) ListKeys(ctx context.Context, opts ...jetstream.WatchOpt) (jetstream.KeyLister, error) {
	return kv.listKeys(ctx, nil, opts)
}

// ListKeysFiltered is ListKeys of the keys that match one of the filters.
func (kv *KeyValue) ListKeysFiltered(ctx context.Context, filters ...string) (jetstream.KeyLister, error) {
	return kv.listKeys(ctx, filters, nil)
}

func (kv *KeyValue) listKeys(ctx context.Context, filters []string, opts []jetstream.WatchOpt) (jetstream.KeyLister, error) {
	options, err := kv.checkWatch(ctx, filters, opts)
	if err != nil {
		return nil, err
	}
	lister, err := kv.keys.List(ctx, filters, options)
	return lister, kv.wrap(opWatch, strings.Join(filters, ","), err)
}

// All returns the keys that exist and match one of the filters, which may have wildcards, with their
// values, in one pass; without filters, all keys. An empty bucket is an empty sequence. A key that is
// written meanwhile may come twice, the later revision last. An error is yielded once, as the last
// pair. Without a deadline in ctx, Config.RequestTimeout bounds the wait for each key, and not the loop.
func (kv *KeyValue) All(ctx context.Context, filters ...string) iter.Seq2[jetstream.KeyValueEntry, error] {
	return kv.present(ctx, opListKeys, filters, keyvalue.Watch{IgnoreDeletes: true})
}

// Keys is All without the values.
func (kv *KeyValue) Keys(ctx context.Context, filters ...string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for entry, err := range kv.present(ctx, opListKeys, filters, keyvalue.Watch{IgnoreDeletes: true, MetaOnly: true}) {
			if err != nil {
				yield("", err)
				return
			}
			if !yield(entry.Key(), nil) {
				return
			}
		}
	}
}

const opListKeys = "list keys of"

// present yields the present entries.
func (kv *KeyValue) present(ctx context.Context, op string, filters []string, options keyvalue.Watch) iter.Seq2[jetstream.KeyValueEntry, error] {
	return func(yield func(jetstream.KeyValueEntry, error) bool) {
		if err := kv.checkKeys(ctx, op, true, filters); err != nil {
			yield(nil, err)
			return
		}
		for entry, err := range kv.keys.Present(ctx, filters, options) {
			if err != nil {
				yield(nil, kv.wrap(op, strings.Join(filters, ","), err))
				return
			}
			if !yield(entry, nil) {
				return
			}
		}
	}
}

// Changes returns the present values of the keys that match one of the filters, and then every change,
// deletions included, for as long as the loop runs: a Watch to range over, with the same promises. The
// end of ctx or of the client ends the sequence without an error. A watcher that cannot be made yields
// one error, as Watch returns it.
func (kv *KeyValue) Changes(ctx context.Context, filters ...string) iter.Seq2[jetstream.KeyValueEntry, error] {
	return func(yield func(jetstream.KeyValueEntry, error) bool) {
		watcher, err := kv.WatchFiltered(ctx, filters)
		if err != nil {
			yield(nil, err)
			return
		}
		defer func() { _ = watcher.Stop() }()
		for entry := range watcher.Updates() {
			if entry != nil && !yield(entry, nil) {
				return
			}
		}
	}
}

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
	options, err := keyvalue.WatchOf(slices.Concat(opts, []jetstream.WatchOpt{jetstream.IgnoreDeletes(), jetstream.MetaOnly()}))
	if err != nil {
		return nil, fail(opListKeys, u.bucket, ErrInvalidArgument, "%w", err)
	}
	var keys []string
	for entry, err := range u.present(ctx, opListKeys, nil, options) {
		if err != nil {
			return nil, err
		}
		keys = append(keys, entry.Key())
	}
	if len(keys) == 0 {
		return nil, u.wrap(opListKeys, "", jetstream.ErrNoKeysFound)
	}
	return keys, nil
}

// KeyValueCache holds the present values of a bucket's keys in memory and keeps them up to date. It is
// made by KeyValue.Cached and is safe for concurrent use.
type KeyValueCache struct {
	kv    *KeyValue
	cache *keyvalue.Cache
}

// Cached reads the keys that match one of the filters, all keys without filters, into memory, in one
// pass, and follows them from then on, as Watch does. It returns when all present values are there. The
// cache lives until Close, the end of ctx, or that of the client. The errors are those of Watch, and ErrPermission
// when the values may not be read.
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
// waits for the network. A key that the filters of Cached leave out is ErrKeyNotFound, too. After the cache has
// ended it returns what it last knew: Stale tells. The value belongs to all who get it and must not be changed.
// Values that have a time to live, their own or the bucket's, are dropped by the server's clock. A change of the bucket's time and a purge of its stream,
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
