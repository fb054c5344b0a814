package nats_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestObjectStoreOptions(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, func(c *nats.Config) { c.DefaultStorageType = "memory" })
	ctx := context.Background()
	opts := []nats.ObjectStoreOption{
		nats.WithObjectStoreTTL(time.Hour), nats.WithObjectStoreMaxBytes(1 << 20), nats.WithObjectStoreReplicas(1), nil,
		nats.WithObjectStoreConfig(func(c *jetstream.ObjectStoreConfig) { c.Metadata = map[string]string{"a": "1"} }),
	}
	for range 2 { // the same again is no error
		store, err := client.CreateObjectStore(ctx, "files", opts...)
		require.NoError(t, err)
		status, err := store.Status(ctx)
		require.NoError(t, err)
		assert.Equal(t, time.Hour, status.TTL())
		assert.Equal(t, jetstream.MemoryStorage, status.Storage(), "the default of the Config")
		assert.Equal(t, 1, status.Replicas())
		assert.False(t, status.IsCompressed())
	}
	other := connect(t, s, nil)
	store, err := other.CreateObjectStore(ctx, "compressed", nats.WithObjectStoreStorage(jetstream.FileStorage), nats.WithObjectStoreCompression())
	require.NoError(t, err)
	status, err := store.Status(ctx)
	require.NoError(t, err)
	assert.True(t, status.IsCompressed())
	assert.Equal(t, jetstream.FileStorage, status.Storage())

	_, err = other.CreateObjectStore(ctx, "files", nats.WithObjectStoreTTL(2*time.Hour))
	require.ErrorIs(t, err, nats.ErrAlreadyExists)
	require.ErrorIs(t, err, jetstream.ErrBucketExists)
	require.ErrorContains(t, err, `"files"`)
	var drift *nats.DriftError
	require.ErrorAs(t, err, &drift)
	fields := make([]string, len(drift.Drifts))
	for i, d := range drift.Drifts {
		fields[i] = d.Field
		assert.ErrorContains(t, err, d.String())
	}
	assert.Equal(t, []string{"MaxBytes", "TTL", "Storage", "Metadata"}, fields)

	found := map[string]bool{}
	for status, err := range client.ObjectStores(ctx) {
		require.NoError(t, err)
		found[status.Bucket()] = true
	}
	assert.Equal(t, map[string]bool{"files": true, "compressed": true}, found)
	for _, err := range client.ObjectStores(ctx) {
		require.NoError(t, err)
		break // goleak looks for what is left
	}
}

func TestEnsureObjectStore(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	ensure := func(opts ...nats.ObjectStoreOption) (jetstream.ObjectStoreStatus, error) {
		store, err := client.EnsureObjectStore(ctx, "files", opts...)
		if err != nil {
			return nil, err
		}
		return store.Status(ctx)
	}
	_, err := ensure(nats.WithObjectStoreTTL(time.Hour))
	require.NoError(t, err)
	status, err := ensure(nats.WithObjectStoreTTL(2 * time.Hour))
	require.NoError(t, err)
	assert.Equal(t, 2*time.Hour, status.TTL(), "more is granted")
	status, err = ensure()
	require.NoError(t, err)
	assert.Equal(t, 2*time.Hour, status.TTL(), "zero is as it is")
	for _, opt := range []nats.ObjectStoreOption{
		nats.WithObjectStoreTTL(time.Minute), nats.WithObjectStoreStorage(jetstream.MemoryStorage), nats.WithObjectStoreMaxBytes(1000),
	} {
		_, err = ensure(opt)
		require.ErrorIs(t, err, nats.ErrAlreadyExists)
		var drift *nats.DriftError
		require.ErrorAs(t, err, &drift)
		assert.Len(t, drift.Drifts, 1)
	}
	_, err = client.EnsureObjectStore(ctx, "a b")
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
}

// Nothing is wrong with what is asked for: the error says what the bucket has become.
func TestASealedBucketIsCreatedAgain(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	store, err := client.CreateObjectStore(ctx, "files", nats.WithObjectStoreTTL(time.Hour))
	require.NoError(t, err)
	require.NoError(t, store.Seal(ctx))
	for name, call := range map[string]func() error{
		"create": func() error {
			_, err := client.CreateObjectStore(ctx, "files", nats.WithObjectStoreTTL(time.Hour))
			return err
		},
		"ensure": func() error {
			_, err := client.EnsureObjectStore(ctx, "files", nats.WithObjectStoreMaxBytes(1<<20))
			return err
		},
	} {
		var drift *nats.DriftError
		require.ErrorAs(t, call(), &drift, name)
		require.ErrorIs(t, drift, nats.ErrAlreadyExists)
		require.ErrorIs(t, drift, nats.ErrSealed)
		assert.Equal(t, nats.Drift{Field: "Sealed", Live: true, Want: false}, drift.Drifts[len(drift.Drifts)-1])
		assert.ErrorContains(t, drift, "Sealed true -> false (cannot be changed); it has to be deleted and created anew")
	}
	_, err = client.EnsureObjectStore(ctx, "files")
	require.NoError(t, err, "there is nothing to change")
}

// Upstream would wait for an answer that cannot come.
func TestBucketCallsWhileDisconnected(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	proxy := natstest.NewProxy(t, s.URL()) // it keeps its port, that of a stopped server may become another one's
	client := connect(t, s, func(c *nats.Config) { c.URLs, c.RequestTimeout = []string{proxy.URL()}, 300*time.Millisecond })
	ctx := context.Background()
	store := newObjects(t, client, "files")
	kv, err := client.CreateKeyValue(within(t, patience), "config")
	require.NoError(t, err)
	proxy.Cut()
	eventually(t, "the outage is known", func() bool { return !client.IsConnected() })
	for name, call := range map[string]func() error{
		"status of a key-value bucket": func() error { _, err := kv.Status(ctx); return err },
		"status of an object store":    func() error { _, err := store.Status(ctx); return err },
		"seal":                         func() error { return store.Seal(ctx) },
		"link": func() error {
			_, err := store.AddBucketLink(ctx, "link", store)
			return err
		},
	} {
		begin := time.Now()
		require.ErrorIs(t, call(), nats.ErrNotConnected, name)
		assert.Less(t, since(begin), 4*time.Second, "upstream's own patience is 5 s")
	}
}

// Attempts to seal may overtake each other: that it is sealed is what counts.
func TestSealAtOnce(t *testing.T) {
	t.Parallel()
	client, proxy := through(t, natstest.RunServer(t))
	store := newObjects(t, client, "files")
	proxy.Delay(100 * time.Millisecond) // all see it open before one has sealed it
	var sealing sync.WaitGroup
	for range 5 {
		sealing.Go(func() { assert.NoError(t, store.Seal(within(t, patience))) })
	}
	sealing.Wait()
	proxy.Delay(0)
	require.NoError(t, store.Seal(within(t, patience)), "again")
	_, err := store.PutString(within(t, patience), "x", "content")
	require.ErrorIs(t, err, nats.ErrSealed)
}
