package kv

import (
	"context"
	"maps"

	"github.com/nats-io/nats.go/jetstream"
)

// Watch says what is read of the keys that are followed.
type Watch struct {
	History       bool   // all that the bucket has of a key
	UpdatesOnly   bool   // nothing of what is there at the start
	IgnoreDeletes bool   // no deletions
	MetaOnly      bool   // no values
	From          uint64 // revision; 0 for the beginning
}

// Watcher implements jetstream.KeyWatcher.
type Watcher struct {
	follower *follower
	updates  chan jetstream.KeyValueEntry
}

// Watch reports the present values of the keys that match one of the filters, or of all keys, then a nil, then every
// change. Ctx is the watcher's life.
func (b *Bucket) Watch(ctx context.Context, filters []string, options Watch) (*Watcher, error) {
	f, err := b.follow(ctx, filters, options, false)
	if err != nil {
		return nil, err
	}
	w := &Watcher{follower: f, updates: make(chan jetstream.KeyValueEntry)}
	go func() {
		defer close(w.updates)
		defer f.close()
		w.run()
	}()
	return w, nil
}

// Updates returns the channel of the updates. It is closed when the watcher ends.
func (w *Watcher) Updates() <-chan jetstream.KeyValueEntry { return w.updates }

// Stop ends the watcher.
func (w *Watcher) Stop() error {
	w.follower.cancel()
	return nil
}

// Stale tells whether the bucket may have more than was reported.
func (w *Watcher) Stale() bool { return w.follower.isStale() }

// known is what a watcher remembers of a key.
type known struct {
	revision uint64
	lifetime
}

// run hands out the updates. It knows which keys exist, for the deletions when the bucket is replaced.
func (w *Watcher) run() {
	present, gone := make(map[string]known), map[string]known(nil)
	told := w.follower.options.UpdatesOnly // upstream has no nil then
	for {
		next, err := w.follower.next()
		switch {
		case err != nil:
			return
		case next.entry != nil:
			if deleted(next.entry) {
				delete(present, next.entry.key)
			} else {
				present[next.entry.key] = known{next.entry.revision, next.entry.lifetime}
			}
			delete(gone, next.entry.key)
			if !w.send(next.entry) {
				return
			}
		case next.check != nil:
			for key, k := range present {
				switch {
				case next.check.over(k.lifetime, 0):
					delete(present, key)
				case next.check.lost(key, k.revision):
					delete(present, key)
					if !w.sendGone(key) {
						return
					}
				}
			}
		case next.replaced:
			if gone == nil {
				gone = present
			}
			maps.Copy(gone, present)
			present = make(map[string]known)
		default:
			for key := range gone {
				if !w.sendGone(key) {
					return
				}
			}
			gone = nil
			if !told && !w.send(nil) {
				return
			}
			told = true
		}
	}
}

// send hands an update out, or returns false when the watcher has ended.
func (w *Watcher) send(entry jetstream.KeyValueEntry) bool {
	select {
	case w.updates <- entry:
		return true
	case <-w.follower.live.Done():
		return false
	}
}

// sendGone hands out that a key is gone of which the server has not told.
func (w *Watcher) sendGone(key string) bool {
	return w.follower.options.IgnoreDeletes || w.send(w.follower.bucket.gone(key))
}
