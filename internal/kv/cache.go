package kv

import (
	"bytes"
	"context"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// Cache holds the present values of keys in memory and keeps them up to date.
type Cache struct {
	bucket   *Bucket
	follower *follower
	done     chan struct{} // closed when no update comes any more

	mu       sync.RWMutex
	entries  map[string]*entry
	revision uint64
	changed  chan struct{} // closed at the next update; nil when nobody waits
}

// Cache returns when the present values of the keys that match one of the filters, or of all keys, are in memory. Ctx
// is the cache's life.
func (b *Bucket) Cache(ctx context.Context, filters []string) (*Cache, error) {
	f, err := b.follow(ctx, filters, Watch{}, false)
	if err != nil {
		return nil, err
	}
	c := &Cache{bucket: b, follower: f, done: make(chan struct{})}
	f.waited = true
	loaded := make(chan struct{})
	go func() {
		defer close(c.done)
		defer f.close()
		err = c.run(sync.OnceFunc(func() { close(loaded) }))
	}()
	select {
	case <-loaded:
		return c, nil
	case <-c.done:
		return nil, err
	}
}

// run takes the updates, and returns why no more come. The values of a bucket that replaces another one are gathered
// aside, and take the place of the old ones when they are complete.
func (c *Cache) run(loaded func()) error {
	gathered, revision := make(map[string]*entry), uint64(0)
	for {
		next, err := c.follower.next()
		switch {
		case err != nil:
			return err
		case next.check != nil:
			c.change(func() {
				maps.DeleteFunc(c.entries, func(key string, e *entry) bool {
					return next.check.over(e.lifetime, sweepLate) || next.check.lost(key, e.revision)
				})
			})
		case next.replaced:
			gathered, revision = make(map[string]*entry), 0
		case next.entry != nil && gathered != nil:
			revision = next.entry.revision
			keep(gathered, next.entry)
		case next.entry != nil:
			c.change(func() {
				c.revision = next.entry.revision
				keep(c.entries, next.entry)
			})
		default:
			c.change(func() { c.entries, c.revision, gathered = gathered, revision, nil })
			loaded()
		}
	}
}

// change makes a change, and lets those go on who wait for one.
func (c *Cache) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// keep puts an entry into entries, without what of its message it does not need.
func keep(entries map[string]*entry, e *entry) {
	if deleted(e) {
		delete(entries, e.key)
		return
	}
	e.value = bytes.Clone(e.value) // its array has the headers, too
	entries[e.key] = e
}

// Get returns the value of key, as of the last update received, or jetstream.ErrKeyNotFound.
func (c *Cache) Get(key string) (jetstream.KeyValueEntry, error) {
	c.mu.RLock()
	e := c.entries[key]
	c.mu.RUnlock()
	if e == nil || c.bucket.facts.Load().over(e.lifetime, 0) {
		return nil, jetstream.ErrKeyNotFound
	}
	return e, nil
}

// Len returns the number of keys. It may count some that have just expired.
func (c *Cache) Len() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.entries)
}

// All returns the keys and values of one moment, in no particular order.
func (c *Cache) All() iter.Seq2[string, jetstream.KeyValueEntry] {
	return func(yield func(string, jetstream.KeyValueEntry) bool) {
		c.mu.RLock()
		entries := slices.Collect(maps.Values(c.entries))
		c.mu.RUnlock()
		now := c.bucket.facts.Load()
		for _, e := range entries {
			if !now.over(e.lifetime, 0) && !yield(e.key, e) {
				return
			}
		}
	}
}

// Revision returns the revision of the last update received; 0 when there was none.
func (c *Cache) Revision() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.revision
}

// Stale tells whether the bucket may have updates that the cache does not know of. It is true for good when the
// cache has ended.
func (c *Cache) Stale() bool {
	select {
	case <-c.done:
		return true
	default:
		return c.follower.isStale()
	}
}

// WaitFor returns when the cache has received the given revision or a later one, or fault.ErrClosed when it has ended.
func (c *Cache) WaitFor(ctx context.Context, revision uint64) error {
	ctx, cancel := c.bucket.conn.Deadline(ctx)
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
			return fault.ErrClosed
		case <-ctx.Done():
			return fault.Ended(ctx)
		}
	}
}

// Close ends the cache and waits until it has.
func (c *Cache) Close() {
	c.follower.cancel()
	<-c.done
}
