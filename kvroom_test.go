package nats_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// fullBucket returns a bucket whose last keys did not fit any more, and the number of those that did.
func fullBucket(t testing.TB, client *nats.Client, history uint8, storage jetstream.StorageType) (*nats.KeyValue, int) {
	t.Helper()
	ctx := within(t, patience)
	kv, err := client.CreateKeyValue(ctx, "full", nats.WithKeyValueConfig(func(cfg *jetstream.KeyValueConfig) {
		cfg.MaxBytes, cfg.History, cfg.LimitMarkerTTL, cfg.Storage = 10_000, history, time.Second, storage
	}))
	require.NoError(t, err)
	for i := 0; ; i++ {
		_, err := kv.Put(ctx, fmt.Sprint("k", i), make([]byte, 10))
		if errors.Is(err, nats.ErrStreamFull) {
			return kv, i
		}
		require.NoError(t, err)
	}
}

// To delete is the way out of a full bucket, and so is a value that is smaller.
func TestKeyValueOfAFullBucket(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		history uint8
		storage jetstream.StorageType
	}{"file": {1, jetstream.FileStorage}, "memory": {1, jetstream.MemoryStorage}, "history": {3, jetstream.FileStorage}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := connect(t, natstest.RunServer(t), nil)
			ctx := within(t, patience)
			kv, n := fullBucket(t, client, test.history, test.storage)
			watcher, err := kv.WatchAll(ctx, jetstream.UpdatesOnly())
			require.NoError(t, err)
			marked := func(key string, operation jetstream.KeyValueOp) {
				t.Helper()
				for e := range watcher.Updates() {
					if e.Key() == key && e.Operation() == operation {
						return
					}
				}
				t.Errorf("no mark of %s", key)
			}
			if test.history == 1 {
				_, err := kv.Put(ctx, "k0", make([]byte, 9))
				require.NoError(t, err, "a smaller value")
			}
			_, err = kv.Put(ctx, "k0", make([]byte, 500))
			require.ErrorIs(t, err, nats.ErrStreamFull)
			_, err = kv.Get(ctx, "k0")
			require.NoError(t, err, "what cannot be replaced stays")

			entry, err := kv.Get(ctx, "k1")
			require.NoError(t, err)
			err = kv.Delete(ctx, "k1", jetstream.LastRevision(entry.Revision()+1000))
			require.ErrorIs(t, err, nats.ErrConflict)
			_, err = kv.Get(ctx, "k1")
			require.NoError(t, err)
			require.NoError(t, kv.Delete(ctx, "k1", jetstream.LastRevision(entry.Revision())))
			marked("k1", jetstream.KeyValueDelete)
			require.NoError(t, kv.Purge(ctx, "k2"))
			marked("k2", jetstream.KeyValuePurge)
			for i := range n {
				require.NoError(t, kv.Delete(ctx, fmt.Sprint("k", i)))
				_, err := kv.Get(ctx, fmt.Sprint("k", i))
				require.ErrorIs(t, err, nats.ErrKeyNotFound)
			}
			require.NoError(t, kv.PurgeDeletes(ctx, jetstream.DeleteMarkersOlderThan(-1)))
			_, err = kv.Put(ctx, "k0", make([]byte, 5000))
			require.NoError(t, err)

			for range test.history {
				put(t, kv, "old", "1234567890")
			}
			for i := 0; err == nil; i++ {
				_, err = kv.Create(ctx, fmt.Sprint("more", i), make([]byte, 10))
			}
			require.ErrorIs(t, err, nats.ErrStreamFull)
			put(t, kv, "old", "123456789") // in the place of the oldest
		})
	}
}

// A value that other clients can store is not too large for want of room for a message ID.
func TestKeyValueAtItsLimit(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := within(t, patience)
	kv, err := client.CreateKeyValue(ctx, "small", nats.WithKeyValueConfig(func(cfg *jetstream.KeyValueConfig) { cfg.MaxValueSize = 40 }))
	require.NoError(t, err)
	_, err = kv.Put(ctx, "k", make([]byte, 40))
	require.NoError(t, err)
	_, err = kv.Put(ctx, "k", make([]byte, 41))
	require.ErrorIs(t, err, nats.ErrPayloadTooLarge)
	require.NoError(t, kv.Delete(ctx, "k"))
	_, err = kv.Get(ctx, "k")
	require.ErrorIs(t, err, nats.ErrKeyNotFound)
}

// A walk is bounded by its pauses and not as a whole.
func TestKeyValueWalksOverADistance(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	proxy := natstest.NewProxy(t, s.URL())
	client := connect(t, s, func(cfg *nats.Config) {
		cfg.URLs, cfg.RequestTimeout = []string{proxy.URL()}, 6*time.Second
	})
	kv := newKeys(t, client, "b")
	const n = 1500
	for i := range n {
		m := deletion("$KV.b." + fmt.Sprint(i))
		_, err := client.JetStream().PublishMsgAsync(m)
		require.NoError(t, err)
	}
	<-client.JetStream().PublishAsyncComplete()
	proxy.Delay(150 * time.Millisecond)
	begin := time.Now()
	require.NoError(t, kv.PurgeDeletes(context.Background(), jetstream.DeleteMarkersOlderThan(-1)))
	assert.Greater(t, time.Since(begin), 12*time.Second, "it took longer than a step may")
	proxy.Delay(0)
	info, err := client.GetStreamInfo(within(t, patience), "KV_b")
	require.NoError(t, err)
	assert.Zero(t, info.State.Msgs)

	put(t, kv, "k", "1")
	proxy.BlackHole()
	for _, err := range kv.All(context.Background()) {
		require.ErrorIs(t, err, nats.ErrTimeout, "and a pause is bounded")
	}
	proxy.Restore()
}

// A write gives its value a time to live, and none is left of the one before.
func TestKeyValueWritesWithATTL(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := within(t, patience)
	kv := newLocks(t, client)
	ttl := jetstream.KeyTTL(time.Second)
	write := map[string]func(key string, opts ...jetstream.KVCreateOpt) error{
		"put": func(key string, opts ...jetstream.KVCreateOpt) error {
			_, err := kv.Put(ctx, key, nil, opts...)
			return err
		},
		"string": func(key string, opts ...jetstream.KVCreateOpt) error {
			_, err := kv.PutString(ctx, key, "", opts...)
			return err
		},
		"json": func(key string, opts ...jetstream.KVCreateOpt) error {
			_, err := kv.PutJSON(ctx, key, 1, opts...)
			return err
		},
		"update": func(key string, opts ...jetstream.KVCreateOpt) error {
			revision := uint64(0)
			if e, err := kv.Get(ctx, key); err == nil {
				revision = e.Revision()
			}
			_, err := kv.Update(ctx, key, nil, revision, opts...)
			return err
		},
		"modify": func(key string, opts ...jetstream.KVCreateOpt) error {
			_, err := kv.Modify(ctx, key, func([]byte) ([]byte, error) { return nil, nil }, opts...)
			return err
		},
	}
	for name, f := range write {
		require.NoError(t, f(name+".expires", ttl))
		require.NoError(t, f(name+".stays", ttl))
		require.NoError(t, f(name+".stays"))
		require.ErrorIs(t, f(name, jetstream.KeyTTL(time.Millisecond)), nats.ErrInvalidArgument)
	}
	eventually(t, "what has a time expires", func() bool {
		left := 0
		for _, err := range kv.Keys(ctx, "*.expires") {
			require.NoError(t, err)
			left++
		}
		return left == 0
	})
	for name := range write {
		_, err := kv.Get(ctx, name+".stays")
		require.NoError(t, err)
	}
}

// deletion is the mark of a deletion.
func deletion(subject string) *natsgo.Msg {
	m := natsgo.NewMsg(subject)
	m.Header.Set("KV-Operation", "DEL")
	return m
}

// Where the whole account has no room left, what deletes is the way out, too.
func TestDeletionsInAFullAccount(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) {
		config := new(server.Options)
		require.NoError(t, config.ProcessConfigString(
			`accounts { A { jetstream: {max_file: 300KB}, users: [{user: u, password: p}] } }`))
		o.Accounts, o.Users = config.Accounts, config.Users
	}))
	client := connect(t, s, as("u"))
	ctx := within(t, patience)
	kv, err := client.CreateKeyValue(ctx, "b", nats.WithKeyTTLs(time.Minute))
	require.NoError(t, err)
	put(t, kv, "deleted", "value")
	put(t, kv, "purged", "value")
	held := lock(t, kv, "lock", time.Minute)
	store, err := client.CreateObjectStore(ctx, "files")
	require.NoError(t, err)
	_, err = store.PutString(ctx, "o", "content")
	require.NoError(t, err)
	newStream(t, client, 0)
	for name, deletion := range map[string]func() error{
		"delete": func() error { return kv.Delete(ctx, "deleted") },
		"purge":  func() error { return kv.Purge(ctx, "purged") },
		"unlock": func() error { return held.Unlock(ctx) },
		"object": func() error { return store.Delete(ctx, "o") },
	} {
		for _, size := range []int{10_000, 100, 0} { // all the room that there is
			for err = nil; err == nil; {
				_, err = client.PublishToStream(ctx, "orders.x", make([]byte, size), nats.WithoutMessageID())
			}
			require.ErrorIs(t, err, nats.ErrResourceLimit)
		}
		require.NoError(t, deletion(), name)
	}
	for _, key := range []string{"deleted", "purged", "lock"} {
		_, err := kv.Get(ctx, key)
		require.ErrorIs(t, err, nats.ErrKeyNotFound)
	}
	_, err = store.GetInfo(ctx, "o")
	require.ErrorIs(t, err, nats.ErrObjectNotFound)
}
