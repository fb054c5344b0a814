package nats_test

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// cached returns the cache's values by key.
func cached(c *nats.KeyValueCache) map[string]string {
	values := map[string]string{}
	for key, entry := range c.All() {
		values[key] = string(entry.Value())
	}
	return values
}

func TestKeyValueCache(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	kv := newKeys(t, client, "conf")
	ctx := context.Background()
	put(t, kv, "a.1", "old")
	first := put(t, kv, "a.1", "1")
	put(t, kv, "a.2", "2")
	require.NoError(t, kv.Delete(ctx, "a.2"))
	put(t, kv, "b.1", "x")
	cache, err := kv.Cached(ctx, "a.>")
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"a.1": "1"}, cached(cache))
	assert.Equal(t, 1, cache.Len())
	eventually(t, "fresh", func() bool { return !cache.Stale() })
	entry, err := cache.Get("a.1")
	require.NoError(t, err)
	assert.Equal(t, first, entry.Revision())
	assert.Equal(t, "conf", entry.Bucket())
	for _, key := range []string{"a.2", "b.1", "never", ""} {
		_, err = cache.Get(key)
		require.ErrorIs(t, err, nats.ErrKeyNotFound)
		require.ErrorIs(t, err, jetstream.ErrKeyNotFound)
	}

	for i := range 100 { // read your writes
		require.NoError(t, cache.WaitFor(ctx, put(t, kv, "a.3", fmt.Sprint(i))))
		entry, err = cache.Get("a.3")
		require.NoError(t, err)
		assert.Equal(t, fmt.Sprint(i), string(entry.Value()))
		assert.Equal(t, cache.Revision(), entry.Revision())
	}
	require.NoError(t, kv.Delete(ctx, "a.3"))
	eventually(t, "deleted", func() bool { return cache.Len() == 1 })
	for range cache.All() {
		break
	}
	require.ErrorIs(t, cache.WaitFor(within(t, 20*time.Millisecond), 1<<60), nats.ErrTimeout)

	require.NoError(t, cache.Close())
	require.NoError(t, cache.Close())
	assert.True(t, cache.Stale())
	require.ErrorIs(t, cache.WaitFor(ctx, 1<<60), nats.ErrClosed)
	_, err = cache.Get("a.1")
	require.NoError(t, err, "what it last knew")
	eventually(t, "no consumers", func() bool { return consumers(t, client, "KV_conf") == 0 })

	_, err = kv.Cached(ctx, "a..b")
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = kv.Cached(cancelled)
	require.ErrorIs(t, err, context.Canceled)
	_, err = kv.Cached(nil) //nolint:staticcheck // nil is what is tested
	require.ErrorIs(t, err, nats.ErrInvalidArgument)

	with, err := kv.Cached(ctx)
	require.NoError(t, err)
	require.NoError(t, client.Close())
	eventually(t, "stale", with.Stale)
	_, err = kv.Cached(ctx)
	require.ErrorIs(t, err, nats.ErrClosed)
}

func TestKeyValueCacheGetAllocatesNothing(t *testing.T) {
	s := natstest.RunServer(t)
	kv := newKeys(t, connect(t, s, nil), "conf")
	put(t, kv, "k", "v")
	cache, err := kv.Cached(context.Background())
	require.NoError(t, err)
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		if entry, err := cache.Get("k"); err != nil || len(entry.Value()) != 1 {
			t.Error(err)
		}
	}))
}

// The old values stand until the new ones are complete; then what is gone is gone.
func TestKeyValueCacheOfARecreatedBucket(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, other := connect(t, s, nil), connect(t, s, nil)
	kv := newKeys(t, client, "conf")
	put(t, kv, "gone", "1")
	last := put(t, kv, "k", "1")
	cache, err := kv.Cached(context.Background())
	require.NoError(t, err)
	require.NoError(t, other.DeleteKeyValue(context.Background(), "conf"))
	eventually(t, "stale", cache.Stale)
	assert.Equal(t, map[string]string{"gone": "1", "k": "1"}, cached(cache))
	assert.Equal(t, last, cache.Revision())
	put(t, newKeys(t, other, "conf"), "k", "2")
	eventually(t, "the new values", func() bool { return maps.Equal(cached(cache), map[string]string{"k": "2"}) })
	eventually(t, "fresh", func() bool { return !cache.Stale() })
	assert.EqualValues(t, 1, cache.Revision())
}

// Readers see values that only grow, whatever happens to the server.
func TestKeyValueCacheReadersOverARestart(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	kv, err := client.CreateKeyValue(context.Background(), "conf")
	require.NoError(t, err)
	put(t, kv, "k", "0")
	cache, err := kv.Cached(context.Background())
	require.NoError(t, err)
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for last := uint64(0); ; {
				select {
				case <-stop:
					return
				default:
				}
				entry, err := cache.Get("k")
				if !assert.NoError(t, err) || !assert.GreaterOrEqual(t, entry.Revision(), last) {
					return
				}
				last = entry.Revision()
			}
		})
	}
	var last uint64
	for i := range 60 {
		if i == 30 {
			s.Restart()
		}
		last = put(t, kv, "k", fmt.Sprint(i))
	}
	require.NoError(t, cache.WaitFor(within(t, patience), last))
	close(stop)
	readers.Wait()
}

// The server deletes expired values without a word, or, where marks are on, with one.
func TestKeyValueCacheExpires(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	silent, err := client.CreateKeyValue(ctx, "silent", nats.WithKeyValueTTL(time.Second))
	require.NoError(t, err)
	marked, err := client.CreateKeyValue(ctx, "marked", nats.WithKeyTTLs(time.Minute))
	require.NoError(t, err)
	put(t, silent, "k", "1")
	_, err = marked.Create(ctx, "k", []byte("1"), jetstream.KeyTTL(time.Second))
	require.NoError(t, err)
	put(t, marked, "stays", "1")
	one, err := silent.Cached(ctx)
	require.NoError(t, err)
	two, err := marked.Cached(ctx)
	require.NoError(t, err)
	eventually(t, "expired", func() bool {
		_, err := one.Get("k")
		return err != nil && len(cached(one)) == 0 && len(cached(two)) == 1
	})
	eventually(t, "swept", func() bool {
		put(t, silent, "other", "1") // an update is the occasion
		return one.Len() == 1
	})
}
