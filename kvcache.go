package nats

import (
	"bytes"
	"context"
	"iter"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// KeyValueCache holds the present values of a bucket's keys in memory and keeps them up to date. It is
// made by KeyValue.Cached and is safe for concurrent use.
type KeyValueCache struct {
	kv       *KeyValue
	follower *keyFollower
	done     chan struct{} // closed when no update comes any more

	mu       sync.RWMutex
	entries  map[string]*keyEntry
	revision uint64
	changed  chan struct{} // closed at the next update; nil when nobody waits
}

// Cached reads the keys that match one of the filters, all keys without filters, into memory, in one
// pass, and follows them from then on, as Watch does. It returns when all present values are there. The
// cache lives until Close, the end of ctx, or that of the client. The errors are those of Watch.
func (kv *KeyValue) Cached(ctx context.Context, filters ...string) (*KeyValueCache, error) {
	const op = "cache"
	follower, err := kv.follow(ctx, op, filters, watchOptions{}, false)
	if err != nil {
		return nil, err
	}
	c := &KeyValueCache{kv: kv, follower: follower, done: make(chan struct{})}
	loaded := make(chan struct{})
	go func() {
		defer close(c.done)
		defer follower.close()
		c.run(loaded)
	}()
	select {
	case <-loaded:
		return c, nil
	case <-c.done:
		err := ended(ctx)
		if follower.block != nil {
			err = fault.Joined{err, follower.block}
		}
		return nil, kv.fault(op, "", err)
	}
}

// run takes the updates. The values of a bucket that replaces another one are gathered aside, and take
// the place of the old ones when they are complete.
func (c *KeyValueCache) run(loaded chan struct{}) {
	gathered, revision := make(map[string]*keyEntry), uint64(0)
	for {
		step, err := c.follower.next()
		switch {
		case err != nil:
			return
		case step.check != nil:
			c.settle(step.check)
		case step.replaced:
			gathered, revision = make(map[string]*keyEntry), 0
		case step.entry != nil && gathered != nil:
			revision = step.entry.revision
			keep(gathered, step.entry)
		case step.entry != nil:
			c.mu.Lock()
			c.revision = step.entry.revision
			keep(c.entries, step.entry)
			c.wake()
			c.mu.Unlock()
		default:
			c.mu.Lock()
			c.entries, c.revision, gathered = gathered, revision, nil
			c.wake()
			c.mu.Unlock()
			if loaded != nil {
				close(loaded)
				loaded = nil
			}
		}
	}
}

// keep puts an entry into entries, without what of its message it does not need.
func keep(entries map[string]*keyEntry, e *keyEntry) {
	if e.deleted() {
		delete(entries, e.key)
		return
	}
	e.value = bytes.Clone(e.value) // its array has the headers, too
	entries[e.key] = e
}

// settle removes what has expired, and what is gone without a word.
func (c *KeyValueCache) settle(check *bucketCheck) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, e := range c.entries {
		if check.over(e.lifetime, sweepLate) || check.lost(key, e.revision) {
			delete(c.entries, key)
		}
	}
}

// wake lets those go on who wait for an update. The caller holds c.mu.
func (c *KeyValueCache) wake() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// Get returns the value of key from memory, as of the last update received, or ErrKeyNotFound. It never
// waits for the network, and after the cache has ended it returns what it last knew: Stale tells. The
// value belongs to all who get it and must not be changed. Values that have a time to live, their own or
// the bucket's, are dropped by the server's clock. A change of the bucket's time and a purge of its stream,
// of which nobody is told, are noticed within some five seconds; in a bucket of many keys that expire, a
// purge of some of them later.
func (c *KeyValueCache) Get(key string) (jetstream.KeyValueEntry, error) {
	c.mu.RLock()
	e := c.entries[key]
	c.mu.RUnlock()
	if e == nil || c.kv.facts.Load().over(e.lifetime, 0) {
		return nil, c.kv.fault("get key", key, jetstream.ErrKeyNotFound)
	}
	return e, nil
}

// Len returns the number of keys. It may count some that have just expired.
func (c *KeyValueCache) Len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.entries)
}

// All returns the keys and values of one moment, in no particular order.
func (c *KeyValueCache) All() iter.Seq2[string, jetstream.KeyValueEntry] {
	return func(yield func(string, jetstream.KeyValueEntry) bool) {
		c.mu.RLock()
		entries := make([]*keyEntry, 0, len(c.entries))
		for _, e := range c.entries {
			entries = append(entries, e)
		}
		c.mu.RUnlock()
		facts := c.kv.facts.Load()
		for _, e := range entries {
			if facts.over(e.lifetime, 0) {
				continue
			}
			if !yield(e.key, e) {
				return
			}
		}
	}
}

// Revision returns the revision of the last update received; 0 when there was none.
func (c *KeyValueCache) Revision() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.revision
}

// Stale tells whether the bucket may have updates that the cache does not know of, as
// KeyWatcher.Stale does. It is true for good when the cache has ended.
func (c *KeyValueCache) Stale() bool {
	select {
	case <-c.done:
		return true
	default:
		return c.follower.isStale()
	}
}

// WaitFor returns when the cache has received the given revision or a later one: after a Put, Get
// then returns what was put, or something newer. The revision must be that of a key that the cache's
// filters match. The errors are ErrTimeout when ctx ends first, or without a deadline
// Config.RequestTimeout, and ErrClosed when the cache has ended.
func (c *KeyValueCache) WaitFor(ctx context.Context, revision uint64) error {
	const op = "wait for revision in"
	if ctx == nil {
		return errNilContext(op, c.kv.bucket)
	}
	ctx, cancel := c.kv.client.deadline(ctx)
	defer cancel()
	for {
		c.mu.Lock()
		if c.revision >= revision {
			c.mu.Unlock()
			return nil
		}
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-c.done:
			return fail(op, c.kv.bucket, ErrClosed, "")
		case <-ctx.Done():
			return c.kv.fault(op, "", fault.Ended(ctx))
		}
	}
}

// Close ends the cache and waits until it has. It returns nil always, and may be called more than once.
func (c *KeyValueCache) Close() error {
	c.follower.cancel()
	<-c.done
	return nil
}
