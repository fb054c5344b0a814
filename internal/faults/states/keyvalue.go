package states

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

func appended(old []byte) ([]byte, error) { return append(old, 'x'), nil }

// drained reads the keys of a lister to their end.
func drained(keys jetstream.KeyLister, err error) error {
	if err != nil {
		return err
	}
	for range keys.Keys() {
		continue
	}
	return nil
}

var keyValueCalls = []Call{
	{Name: "Client.CreateKeyValue", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.CreateKeyValue(ctx, "new", nats.WithKeyValueStorage(jetstream.MemoryStorage))
		return err
	}},
	{Name: "Client.EnsureKeyValue", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.EnsureKeyValue(ctx, "ensured", nats.WithKeyValueStorage(jetstream.MemoryStorage))
		return err
	}},
	{Name: "Client.GetKeyValue", Kind: Stores, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.Client.GetKeyValue(ctx, "config")
		return err
	}},
	{Name: "Client.DeleteKeyValue", Kind: Stores, Do: func(ctx context.Context, s *Scene) error { return s.Client.DeleteKeyValue(ctx, "old") }},
	{Name: "Client.KeyValues", Kind: Stores, Do: func(ctx context.Context, s *Scene) error { return last(s.Client.KeyValues(ctx)) }},

	{Name: "KeyValue.Get", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.kv.Get(ctx, "a")
		return err
	}},
	{Name: "KeyValue.GetRevision", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.kv.GetRevision(ctx, "a", s.revision)
		return err
	}},
	{Name: "KeyValue.GetMany", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.kv.GetMany(ctx, "a", "b")
		return err
	}},
	{Name: "GetJSON", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, _, err := nats.GetJSON[int](ctx, s.kv, "a")
		return err
	}},
	{Name: "KeyValue.Put", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.kv.Put(ctx, "put", nil)
		return err
	}},
	{Name: "KeyValue.PutString", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.kv.PutString(ctx, "put", "x")
		return err
	}},
	{Name: "KeyValue.PutJSON", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.kv.PutJSON(ctx, "put", 1)
		return err
	}},
	{Name: "KeyValue.Create", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.kv.Create(ctx, "created", nil)
		return err
	}},
	{Name: "KeyValue.Update", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.kv.Update(ctx, "updated", nil, s.updated)
		return err
	}},
	{Name: "KeyValue.Modify", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.kv.Modify(ctx, "modified", appended)
		return err
	}},
	{Name: "KeyValue.Delete", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error { return s.kv.Delete(ctx, "deleted") }},
	{Name: "KeyValue.Purge", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error { return s.kv.Purge(ctx, "purged") }},
	{Name: "KeyValue.PurgeDeletes", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error { return s.kv.PurgeDeletes(ctx) }},
	{Name: "KeyValue.Status", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.kv.Status(ctx)
		return err
	}},
	{Name: "KeyValue.History", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.kv.History(ctx, "a")
		return err
	}},
	{Name: "KeyValue.All", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error { return last(s.kv.All(ctx)) }},
	{Name: "KeyValue.Keys", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error { return last(s.kv.Keys(ctx)) }},
	{Name: "KeyValue.ListKeys", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		return drained(s.kv.ListKeys(ctx))
	}},
	{Name: "KeyValue.ListKeysFiltered", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		return drained(s.kv.ListKeysFiltered(ctx, "a"))
	}},
	{Name: "KeyValue.Changes", Kind: Waits, Handle: true, Do: func(ctx context.Context, s *Scene) error { return last(s.kv.Changes(ctx)) }},
	{Name: "ChangesJSON", Kind: Waits, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		return last(nats.ChangesJSON[int](ctx, s.kv, "a"))
	}},
	{Name: "KeyValue.Watch", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error { return watched(s.kv.Watch(ctx, "a")) }},
	{Name: "KeyValue.WatchAll", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error { return watched(s.kv.WatchAll(ctx)) }},
	{Name: "KeyValue.WatchFiltered", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		return watched(s.kv.WatchFiltered(ctx, []string{"a", "b"}))
	}},
	{Name: "KeyWatcher.Stale", Handle: true, Do: func(_ context.Context, s *Scene) error { s.watchers[0].Stale(); return nil }},
	{Name: "KeyWatcher.Updates", Handle: true, Do: func(_ context.Context, s *Scene) error { s.watchers[0].Updates(); return nil }},
	{Name: "KeyWatcher.Stop", Kind: Ends, Handle: true, Do: func(_ context.Context, s *Scene) error { return s.watchers[1].Stop() }},
	{Name: "KeyValue.Cached", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		cache, err := s.kv.Cached(ctx)
		if err != nil {
			return err
		}
		return cache.Close()
	}},
	{Name: "KeyValueCache.Get", Handle: true, Do: func(_ context.Context, s *Scene) error {
		_, err := s.caches[0].Get("a")
		return err
	}},
	{Name: "KeyValueCache.All", Handle: true, Do: func(_ context.Context, s *Scene) error {
		for range s.caches[0].All() {
			continue
		}
		return nil
	}},
	{Name: "KeyValueCache.Len", Handle: true, Do: func(_ context.Context, s *Scene) error { s.caches[0].Len(); return nil }},
	{Name: "KeyValueCache.Revision", Handle: true, Do: func(_ context.Context, s *Scene) error { s.caches[0].Revision(); return nil }},
	{Name: "KeyValueCache.Stale", Handle: true, Do: func(_ context.Context, s *Scene) error { s.caches[0].Stale(); return nil }},
	{Name: "KeyValueCache.WaitFor", Kind: Waits, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		return s.caches[0].WaitFor(ctx, 1<<60)
	}},
	{Name: "KeyValueCache.Close", Kind: Ends, Handle: true, Do: func(_ context.Context, s *Scene) error { return s.caches[1].Close() }},
	{Name: "KeyValue.Lock", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		lock, err := s.locks.Lock(ctx, "free", 10*time.Second)
		if err != nil {
			return err
		}
		return lock.Unlock(ctx)
	}},
	{Name: "KeyValue.Lock(held)", Kind: Waits, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		_, err := s.locks.Lock(ctx, "held", 10*time.Second)
		return err
	}},
	{Name: "KeyValue.Elect", Kind: Waits, Handle: true, Do: func(ctx context.Context, s *Scene) error {
		return s.locks.Elect(ctx, "leader", func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		})
	}},
	{Name: "Lock.Token", Handle: true, Do: func(_ context.Context, s *Scene) error { s.lock.Token(); return nil }},
	{Name: "Lock.Context", Handle: true, Do: func(_ context.Context, s *Scene) error { s.lock.Context(); return nil }},
	{Name: "Lock.Unlock", Kind: Stores, Handle: true, Do: func(ctx context.Context, s *Scene) error { return s.lock.Unlock(ctx) }},
}

func watched(watcher *nats.KeyWatcher, err error) error {
	if err != nil {
		return err
	}
	return watcher.Stop()
}
