package nats

import (
	"context"
	"iter"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
)

// Watch reports the present values of the keys that match filter, which may have wildcards, then a
// nil, then every change, until the watcher is stopped, ctx ends, or the client is closed: then
// Updates is closed. Ctx is the watcher's life, not the time of the call. The options are
// upstream's.
func (kv *KeyValue) Watch(ctx context.Context, filter string, opts ...jetstream.WatchOpt) (jetstream.KeyWatcher, error) {
	return kv.WatchFiltered(ctx, []string{filter}, opts...)
}

// WatchAll is Watch of all keys.
func (kv *KeyValue) WatchAll(ctx context.Context, opts ...jetstream.WatchOpt) (jetstream.KeyWatcher, error) {
	return kv.WatchFiltered(ctx, nil, opts...)
}

// WatchFiltered is Watch of the keys that match one of the filters; without filters, of all keys.
func (kv *KeyValue) WatchFiltered(ctx context.Context, filters []string, opts ...jetstream.WatchOpt) (jetstream.KeyWatcher, error) {
	filters = slices.Clone(filters) // upstream writes into the slice
	for _, filter := range filters {
		if fault := subjectFault(filter, true); fault != "" {
			return nil, fail("watch", path(kv.Bucket(), filter), ErrInvalidArgument, "%w: %s", jetstream.ErrInvalidKey, fault)
		}
	}
	w, err := watch(kv.client, ctx, func(ctx context.Context) (upstreamWatcher[jetstream.KeyValueEntry], error) {
		return kv.KeyValue.WatchFiltered(ctx, filters, opts...)
	})
	if err != nil {
		return nil, kv.wrap("watch", "", err)
	}
	return w, nil
}

// Keys returns the keys that exist and match one of the filters, which may have wildcards; without
// filters, all keys. An empty bucket is an empty sequence. An error is yielded once, as the last
// pair. Without a deadline in ctx, the time between two keys is not bounded.
func (kv *KeyValue) Keys(ctx context.Context, filters ...string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		watcher, err := kv.WatchFiltered(ctx, filters, jetstream.IgnoreDeletes(), jetstream.MetaOnly())
		if err != nil {
			yield("", err)
			return
		}
		defer func() { _ = watcher.Stop() }()
		for entry := range watcher.Updates() {
			if entry == nil {
				return
			}
			if !yield(entry.Key(), nil) {
				return
			}
		}
		// The updates ended before the nil that follows the last key.
		yield("", kv.wrap("list keys of", "", ended(ctx)))
	}
}

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

func (kv *KeyValue) newKeyLister(ctx context.Context, watcher jetstream.KeyWatcher) *keyLister {
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
				case <-kv.client.ctx.Done():
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
