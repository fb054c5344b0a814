package nats_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func inDomain(domain string) func(*nats.Config) {
	return func(cfg *nats.Config) { cfg.JetStreamDomain = domain }
}

// A mirror at a leaf outlasts the absence of its origin, and does not take it for another fault.
func TestKeyValueMirrorWhileItsOriginIsAway(t *testing.T) {
	t.Parallel()
	servers := leafPair(t, nil)
	hub, leaf := servers["hub"], servers["leaf"]
	ctx := within(t, 4*patience)
	near := connect(t, hub, inDomain("hub"))
	_, err := near.CreateKeyValue(ctx, "config")
	require.NoError(t, err)
	client := connect(t, leaf, inDomain("leaf"))
	mirrored := nats.WithKeyValueConfig(func(cfg *jetstream.KeyValueConfig) {
		cfg.Mirror = &jetstream.StreamSource{Name: "config", Domain: "hub"}
	})
	kv, err := client.CreateKeyValue(ctx, "copy", mirrored)
	require.NoError(t, err)
	put(t, kv, "key", "1")
	eventually(t, "it is mirrored", func() bool {
		_, err := kv.Get(ctx, "key")
		return err == nil
	})
	far := connect(t, leaf, inDomain("hub"))
	there, err := far.GetKeyValue(ctx, "config")
	require.NoError(t, err)

	hub.Stop()
	short, cancel := context.WithTimeout(ctx, 700*time.Millisecond)
	defer cancel()
	_, err = kv.Put(short, "key", []byte("2"))
	require.ErrorIs(t, err, nats.ErrTimeout)
	require.NotErrorIs(t, err, nats.ErrBucketNotFound)
	require.ErrorContains(t, err, `"config"`)
	_, err = there.Get(short, "key")
	require.ErrorIs(t, err, nats.ErrTimeout)
	_, err = far.GetKeyValue(short, "config")
	require.ErrorIs(t, err, nats.ErrTimeout)
	entry, err := kv.Get(ctx, "key")
	require.NoError(t, err)
	assert.Equal(t, "1", string(entry.Value()), "what is here can be read")

	calls := map[string]func() error{
		"put":    func() error { _, err := kv.Put(ctx, "key", []byte("3")); return err },
		"create": func() error { _, err := kv.Create(ctx, "other", nil); return err },
		"delete": func() error { return kv.Delete(ctx, "third") },
		"get":    func() error { _, err := there.Get(ctx, "key"); return err },
		"handle": func() error { _, err := far.GetKeyValue(ctx, "config"); return err },
		"ensure": func() error { _, err := client.EnsureKeyValue(ctx, "copy", mirrored); return err },
		"status": func() error { _, err := there.Status(ctx); return err },
	}
	ended := make(chan error, len(calls))
	for name, call := range calls {
		go func() {
			err := call()
			assert.NoError(t, err, name)
			ended <- err
		}()
	}
	time.AfterFunc(time.Second, func() { hub.Restart() })
	for range calls {
		require.NoError(t, <-ended)
	}

	require.NoError(t, connect(t, hub, inDomain("hub")).DeleteKeyValue(ctx, "config"))
	_, err = kv.Put(ctx, "key", []byte("4"))
	require.ErrorIs(t, err, nats.ErrBucketNotFound, "once it can be asked")
}

// Who waits for a lock of a bucket in another domain waits for the domain, too.
func TestLockWhileTheHubIsAway(t *testing.T) {
	t.Parallel()
	servers := leafPair(t, nil)
	hub, leaf := servers["hub"], servers["leaf"]
	_, err := connect(t, hub, inDomain("hub")).CreateKeyValue(within(t, patience), "locks", nats.WithKeyTTLs(time.Minute))
	require.NoError(t, err)
	far := connect(t, leaf, func(cfg *nats.Config) { cfg.JetStreamDomain, cfg.RequestTimeout = "hub", time.Second })
	kv, err := far.GetKeyValue(within(t, patience), "locks")
	require.NoError(t, err)
	hub.Stop()
	short, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	_, err = kv.Lock(short, "k", 2*time.Second)
	require.ErrorIs(t, err, nats.ErrTimeout)
	got := make(chan error, 2)
	go func() {
		l, err := kv.Lock(context.Background(), "k", 2*time.Second)
		if err == nil {
			err = l.Unlock(within(t, patience))
		}
		got <- err
	}()
	go func() {
		got <- kv.Elect(context.Background(), "leader", func(context.Context) error { return nil })
	}()
	time.AfterFunc(4*time.Second, func() { hub.Restart() })
	require.NoError(t, <-got)
	require.NoError(t, <-got)
}

// Every call works over a line on which an answer takes seconds, and leaves no consumer behind.
func TestKeyValueOverASlowLine(t *testing.T) {
	t.Parallel()
	keyValueOverADistance(t, 600*time.Millisecond)
}

func TestKeyValueOverAVerySlowLine(t *testing.T) {
	t.Parallel()
	keyValueOverADistance(t, 2400*time.Millisecond)
}

func keyValueOverADistance(t *testing.T, trip time.Duration) {
	t.Helper()
	s := natstest.RunServer(t)
	near := connect(t, s, nil)
	client, proxy := through(t, s)
	put(t, newLocks(t, near), "first", "1")
	proxy.Delay(trip / 2)
	ctx := within(t, 5*patience)
	kv, err := client.GetKeyValue(ctx, "locks")
	require.NoError(t, err)
	timed := func(name string, trips int, call func() error) {
		begin := time.Now()
		require.NoError(t, call(), name)
		assert.Less(t, since(begin), time.Duration(trips)*trip+5*time.Second, name)
	}
	timed("create", 1, func() error { _, err := kv.Create(ctx, "k", nil); return err })
	timed("put", 1, func() error { _, err := kv.Put(ctx, "k", nil); return err })
	timed("modify", 2, func() error {
		_, err := kv.Modify(ctx, "k", func([]byte) ([]byte, error) { return nil, nil })
		return err
	})
	timed("get many", 1, func() error { _, err := kv.GetMany(ctx, "k", "first"); return err })
	timed("all", 4, func() error {
		n := 0
		for _, err := range kv.All(ctx) {
			if err != nil {
				return err
			}
			n++
		}
		assert.Equal(t, 2, n)
		return nil
	})
	timed("keys", 4, func() error {
		for _, err := range kv.Keys(ctx) {
			if err != nil {
				return err
			}
		}
		return nil
	})
	timed("cached", 4, func() error {
		cache, err := kv.Cached(ctx)
		if err != nil {
			return err
		}
		assert.Equal(t, 2, cache.Len())
		return cache.Close()
	})
	timed("watch", 4, func() error {
		w, err := kv.WatchAll(ctx)
		if err != nil {
			return err
		}
		for e := range w.Updates() {
			if e == nil {
				break
			}
		}
		return w.Stop()
	})
	timed("status", 1, func() error { _, err := kv.Status(ctx); return err })
	eventually(t, "no consumer is left", func() bool { return consumers(t, near, "KV_locks") == 0 })
}
