package nats

import (
	"context"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
)

// ListKeys is Keys as upstream has it; the lister ends with its ctx, with Stop, or with the client.
func (kv *KeyValue) ListKeys(ctx context.Context, opts ...jetstream.WatchOpt) (jetstream.KeyLister, error) {
	watcher, err := kv.WatchAll(ctx, slices.Concat(opts, []jetstream.WatchOpt{jetstream.IgnoreDeletes(), jetstream.MetaOnly()})...)
	if err != nil {
		return nil, err
	}
	return kv.newKeyLister(ctx, watcher), nil
}

// ListKeysFiltered is ListKeys of the keys that match one of the filters.
func (kv *KeyValue) ListKeysFiltered(ctx context.Context, filters ...string) (jetstream.KeyLister, error) {
	watcher, err := kv.WatchFiltered(ctx, filters, jetstream.IgnoreDeletes(), jetstream.MetaOnly())
	if err != nil {
		return nil, err
	}
	return kv.newKeyLister(ctx, watcher), nil
}

// keyLister implements jetstream.KeyLister. Upstream's leaves goroutines behind when its keys are
// not all read.
type keyLister struct {
	keys chan string
	stop func()
}

func (kv *KeyValue) newKeyLister(ctx context.Context, watcher *KeyWatcher) *keyLister {
	ctx, cancel := context.WithCancel(ctx)
	l := &keyLister{keys: make(chan string), stop: cancel}
	go func() {
		defer close(l.keys)
		defer cancel()
		defer func() { _ = watcher.Stop() }()
		for {
			select {
			case entry := <-watcher.Updates():
				if entry == nil { // the end of the keys, or of the watcher
					return
				}
				select {
				case l.keys <- entry.Key():
				case <-ctx.Done():
					return
				case <-kv.client.life.Context().Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return l
}

func (l *keyLister) Keys() <-chan string { return l.keys }

func (l *keyLister) Stop() error {
	l.stop()
	return nil
}
