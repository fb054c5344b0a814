package nats

import (
	"context"
	"iter"
	"maps"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// KeyWatcher implements jetstream.KeyWatcher. It is safe for concurrent use.
type KeyWatcher struct {
	follower *keyFollower
	updates  chan jetstream.KeyValueEntry
}

// Updates returns the channel of the updates. It is closed when the watcher ends.
func (w *KeyWatcher) Updates() <-chan jetstream.KeyValueEntry { return w.updates }

// Stop ends the watcher. It returns nil always, and may be called more than once.
func (w *KeyWatcher) Stop() error {
	w.follower.cancel()
	return nil
}

// Stale tells whether the bucket may have updates that the watcher does not know of: while the present
// values are not all received, the connection is down, the server is silent for more than a second or
// two, or the bucket is gone. EventWatchStale and EventWatchFresh tell of the changes. It is true, too,
// while the updates that the watcher has are not taken for some seconds.
func (w *KeyWatcher) Stale() bool { return w.follower.isStale() }

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

// WatchFiltered is Watch of the keys that match one of the filters; without filters, of all keys.
func (kv *KeyValue) WatchFiltered(ctx context.Context, filters []string, opts ...jetstream.WatchOpt) (*KeyWatcher, error) {
	const op = "watch"
	options, err := watchOptionsOf(opts)
	if err != nil {
		return nil, fail(op, kv.bucket, ErrInvalidArgument, "%w", err)
	}
	follower, err := kv.follow(ctx, op, filters, options, false)
	if err != nil {
		return nil, err
	}
	w := &KeyWatcher{follower: follower, updates: make(chan jetstream.KeyValueEntry)}
	go func() {
		defer close(w.updates)
		defer follower.close()
		w.run()
	}()
	return w, nil
}

// run hands out the updates. It knows which keys exist, for the deletions when the bucket is replaced.
func (w *KeyWatcher) run() {
	known, gone := make(map[string]knownKey), map[string]knownKey(nil)
	told := w.follower.options.updatesOnly // upstream has no nil then
	send := func(entry jetstream.KeyValueEntry) bool {
		select {
		case w.updates <- entry:
			return true
		case <-w.follower.live.Done():
			return false
		}
	}
	for {
		step, err := w.follower.next()
		switch {
		case err != nil:
			return
		case step.entry != nil:
			if step.entry.deleted() {
				delete(known, step.entry.key)
			} else {
				known[step.entry.key] = knownKey{step.entry.revision, step.entry.lifetime}
			}
			delete(gone, step.entry.key)
			if !send(step.entry) {
				return
			}
		case step.check != nil:
			for key, k := range known {
				switch {
				case step.check.over(k.lifetime, 0):
					delete(known, key)
				case step.check.lost(key, k.revision):
					delete(known, key)
					if !w.follower.options.ignoreDeletes && !send(w.follower.kv.goneEntry(key)) {
						return
					}
				}
			}
		case step.replaced:
			if gone == nil {
				gone = known
			}
			maps.Copy(gone, known)
			known = make(map[string]knownKey)
		default:
			for key := range gone {
				if !w.follower.options.ignoreDeletes && !send(w.follower.kv.goneEntry(key)) {
					return
				}
			}
			gone = nil
			if !told && !send(nil) {
				return
			}
			told = true
		}
	}
}

// knownKey is what a watcher remembers of a key.
type knownKey struct {
	revision uint64
	lifetime
}

// goneEntry is the deletion of a key that the bucket's replacement does not have.
func (kv *KeyValue) goneEntry(key string) *keyEntry {
	return &keyEntry{kv: kv, key: key, lifetime: lifetime{created: time.Now().UnixNano()}, operation: jetstream.KeyValueDelete}
}

// All returns the keys that exist and match one of the filters, which may have wildcards, with their
// values, in one pass; without filters, all keys. An empty bucket is an empty sequence. A key that is
// written meanwhile may come twice, the later revision last. An error is yielded once, as the last
// pair. Without a deadline in ctx, Config.RequestTimeout bounds the wait for each key, and not the loop.
func (kv *KeyValue) All(ctx context.Context, filters ...string) iter.Seq2[jetstream.KeyValueEntry, error] {
	return func(yield func(jetstream.KeyValueEntry, error) bool) {
		for entry, err := range kv.present(ctx, opListKeys, filters, watchOptions{ignoreDeletes: true}) {
			if err != nil {
				yield(nil, err)
				return
			}
			if !yield(entry, nil) {
				return
			}
		}
	}
}

// Keys is All without the values.
func (kv *KeyValue) Keys(ctx context.Context, filters ...string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for entry, err := range kv.present(ctx, opListKeys, filters, watchOptions{ignoreDeletes: true, metaOnly: true}) {
			if err != nil {
				yield("", err)
				return
			}
			if !yield(entry.key, nil) {
				return
			}
		}
	}
}

const opListKeys = "list keys of"

// present yields the present entries.
func (kv *KeyValue) present(ctx context.Context, op string, filters []string, options watchOptions) iter.Seq2[*keyEntry, error] {
	return func(yield func(*keyEntry, error) bool) {
		if ctx == nil {
			yield(nil, errNilContext(op, kv.bucket))
			return
		}
		walk := kv.client.stride(ctx)
		defer walk.end()
		follower, err := kv.follow(walk, op, filters, options, true)
		if err != nil {
			yield(nil, err)
			return
		}
		defer follower.close()
		for {
			walk.begin()
			step, err := follower.next()
			walk.pause()
			switch {
			case err != nil:
				yield(nil, kv.fault(op, "", err))
				return
			case step.entry != nil:
				if !yield(step.entry, nil) {
					return
				}
			case !step.replaced:
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
