package nats_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// fillKeys puts n keys of 100 B into a new bucket in memory.
func fillKeys(b *testing.B, x *bench, n int) (*nats.KeyValue, jetstream.KeyValue, []string) {
	b.Helper()
	ctx := context.Background()
	kv, err := x.client.CreateKeyValue(ctx, "bench", nats.WithKeyValueStorage(jetstream.MemoryStorage))
	require.NoError(b, err)
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("service.%05d", i)
	}
	messages := func(yield func(*nats.Message) bool) {
		for _, key := range keys {
			if !yield(&nats.Message{Subject: "$KV.bench." + key, Data: make([]byte, 100)}) {
				return
			}
		}
	}
	for _, err := range x.client.PublishSeq(ctx, messages) {
		require.NoError(b, err)
	}
	upstream, err := x.js.KeyValue(ctx, "bench")
	require.NoError(b, err)
	return kv, upstream, keys
}

// BenchmarkKeyValueAll reads 10,000 keys: raw, as one would, by Keys and a Get for each.
func BenchmarkKeyValueAll(b *testing.B) {
	x, ctx := newBench(b), context.Background()
	const n = 10_000
	kv, upstream, _ := fillKeys(b, x, n)
	pair(b, "keys=10000/", 0, func(b *testing.B) {
		for b.Loop() {
			keys, err := upstream.Keys(ctx)
			require.NoError(b, err)
			for _, key := range keys {
				if _, err := upstream.Get(ctx, key); err != nil {
					b.Fatal(err)
				}
			}
			require.Len(b, keys, n)
		}
	}, func(b *testing.B) {
		for b.Loop() {
			count := 0
			for _, err := range kv.All(ctx) {
				if err != nil {
					b.Fatal(err)
				}
				count++
			}
			require.Equal(b, n, count)
		}
	})
}

// BenchmarkKeyValueGetMany reads 100 keys: raw, by a Get for each.
func BenchmarkKeyValueGetMany(b *testing.B) {
	x, ctx := newBench(b), context.Background()
	kv, upstream, keys := fillKeys(b, x, 1000)
	keys = keys[:100]
	pair(b, "keys=100/", 0, func(b *testing.B) {
		for b.Loop() {
			for _, key := range keys {
				if _, err := upstream.Get(ctx, key); err != nil {
					b.Fatal(err)
				}
			}
		}
	}, func(b *testing.B) {
		for b.Loop() {
			if got, err := kv.GetMany(ctx, keys...); err != nil || len(got) != len(keys) {
				b.Fatal(len(got), err)
			}
		}
	})
}

// BenchmarkKeyValueCached reads one key from memory; raw, from the server.
func BenchmarkKeyValueCached(b *testing.B) {
	x, ctx := newBench(b), context.Background()
	kv, upstream, keys := fillKeys(b, x, 10_000)
	cache, err := kv.Cached(ctx)
	require.NoError(b, err)
	defer func() { _ = cache.Close() }()
	pair(b, "", 0, func(b *testing.B) {
		for b.Loop() {
			if _, err := upstream.Get(ctx, keys[5000]); err != nil {
				b.Fatal(err)
			}
		}
	}, func(b *testing.B) {
		for b.Loop() {
			if _, err := cache.Get(keys[5000]); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkKeyValueWatch reads the present values of 10,000 keys as a watcher reports them.
func BenchmarkKeyValueWatch(b *testing.B) {
	x, ctx := newBench(b), context.Background()
	const n = 10_000
	kv, upstream, _ := fillKeys(b, x, n)
	read := func(b *testing.B, watch func() (jetstream.KeyWatcher, error)) {
		b.Helper()
		for b.Loop() {
			watcher, err := watch()
			require.NoError(b, err)
			count := 0
			for entry := range watcher.Updates() {
				if entry == nil {
					break
				}
				count++
			}
			require.Equal(b, n, count)
			require.NoError(b, watcher.Stop())
		}
	}
	pair(b, "keys=10000/", 0,
		func(b *testing.B) { read(b, func() (jetstream.KeyWatcher, error) { return upstream.WatchAll(ctx) }) },
		func(b *testing.B) { read(b, func() (jetstream.KeyWatcher, error) { return kv.WatchAll(ctx) }) })
}
