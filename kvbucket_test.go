package nats_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestKeyValueOptions(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	opts := []nats.KeyValueOption{
		nats.WithKeyHistory(3), nats.WithKeyValueTTL(time.Hour), nats.WithKeyTTLs(time.Minute), nats.WithKeyValueReplicas(1),
		nats.WithKeyValueStorage(jetstream.FileStorage), nats.WithKeyValueCompression(), nil,
		nats.WithKeyValueConfig(func(c *jetstream.KeyValueConfig) { c.MaxBytes = 1 << 20 }),
	}
	kv, err := client.CreateKeyValue(ctx, "conf", opts...)
	require.NoError(t, err)
	status, err := kv.Status(ctx)
	require.NoError(t, err)
	cfg := status.Config()
	cfg.Metadata = nil
	assert.Equal(t, jetstream.KeyValueConfig{
		Bucket: "conf", History: 3, TTL: time.Hour, LimitMarkerTTL: time.Minute, Replicas: 1, Compression: true,
		MaxBytes: 1 << 20, MaxValueSize: -1,
	}, cfg)
	_, err = client.CreateKeyValue(ctx, "conf", opts...)
	require.NoError(t, err, "the same again")
}

func TestKeyValueDrift(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	_, err := client.CreateKeyValue(ctx, "conf", nats.WithKeyHistory(5), nats.WithKeyValueTTL(time.Hour))
	require.NoError(t, err)

	_, err = client.CreateKeyValue(ctx, "conf", nats.WithKeyHistory(7), nats.WithKeyValueStorage(jetstream.MemoryStorage))
	require.ErrorIs(t, err, nats.ErrAlreadyExists)
	require.ErrorIs(t, err, jetstream.ErrBucketExists)
	var drift *nats.DriftError
	require.ErrorAs(t, err, &drift)
	fields := func() []string {
		var names []string
		for _, d := range drift.Drifts {
			names = append(names, d.Field)
		}
		return names
	}
	assert.Equal(t, []string{"TTL", "History", "Storage"}, fields())
	require.ErrorContains(t, err, "TTL 1h0m0s -> 0s, History 5 -> 7, Storage File -> Memory (cannot be changed)")

	kv, err := client.EnsureKeyValue(ctx, "conf", nats.WithKeyHistory(9), nats.WithKeyValueCompression(),
		nats.WithKeyValueConfig(func(c *jetstream.KeyValueConfig) { c.Metadata = map[string]string{"owner": "me"} }))
	require.NoError(t, err)
	_, err = client.EnsureKeyValue(ctx, "conf", nats.WithKeyHistory(9))
	require.NoError(t, err)
	status, err := kv.Status(ctx)
	require.NoError(t, err)
	assert.EqualValues(t, 9, status.History())
	assert.True(t, status.IsCompressed())
	assert.Equal(t, time.Hour, status.TTL(), "as it was")
	assert.Equal(t, "me", status.Metadata()["owner"])
	put(t, kv, "k", "v")
	for _, opt := range []nats.KeyValueOption{
		nats.WithKeyHistory(2), nats.WithKeyValueTTL(time.Minute), nats.WithKeyValueStorage(jetstream.MemoryStorage),
	} {
		_, err = client.EnsureKeyValue(ctx, "conf", opt, nats.WithKeyValueConfig(func(c *jetstream.KeyValueConfig) { c.Description = "new" }))
		require.ErrorAs(t, err, &drift)
		assert.Len(t, drift.Drifts, 2)
		assert.Equal(t, "conf", drift.Bucket)
	}
	status, err = kv.Status(ctx)
	require.NoError(t, err)
	assert.Empty(t, status.Config().Description, "nothing was changed")

	_, err = client.EnsureKeyValue(ctx, "fresh", nats.WithKeyHistory(2))
	require.NoError(t, err)
	_, err = client.EnsureKeyValue(ctx, "a.b")
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
}

// Marks are of keys that have expired: where there were none, nothing goes sooner.
func TestEnsureKeyValueAddsMarks(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	kv := newKeys(t, client, "conf")
	put(t, kv, "k", "v")
	kv, err := client.EnsureKeyValue(ctx, "conf", nats.WithKeyTTLs(time.Hour))
	require.NoError(t, err)
	lock, err := kv.Lock(ctx, "lock", time.Minute)
	require.NoError(t, err)
	require.NoError(t, lock.Unlock(ctx))
	_, err = client.EnsureKeyValue(ctx, "conf", nats.WithKeyTTLs(2*time.Hour))
	require.NoError(t, err)
	_, err = client.EnsureKeyValue(ctx, "conf", nats.WithKeyTTLs(time.Minute))
	require.ErrorContains(t, err, "LimitMarkerTTL 2h0m0s -> 1m0s (forgets deletions sooner)")
	_, err = client.EnsureKeyValue(ctx, "conf", nats.WithKeyHistory(65))
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	require.ErrorIs(t, err, jetstream.ErrHistoryTooLarge)
	for _, name := range []string{"", "a.b", "a/b", "a=b", "a b", "ä"} {
		_, err = client.EnsureKeyValue(ctx, name)
		require.ErrorIs(t, err, jetstream.ErrInvalidBucketName, name)
		_, err = client.CreateObjectStore(ctx, name)
		require.ErrorIs(t, err, jetstream.ErrInvalidStoreName, name)
	}
}

func TestKeyValues(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	ctx := context.Background()
	names := func() []string {
		var names []string
		for status, err := range client.KeyValues(ctx) {
			require.NoError(t, err)
			names = append(names, status.Bucket())
		}
		slices.Sort(names)
		return names
	}
	assert.Empty(t, names())
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	require.NoError(t, err)
	for _, name := range []string{"a", "b", "c"} {
		newKeys(t, client, name)
	}
	assert.Equal(t, []string{"a", "b", "c"}, names())
	for range client.KeyValues(ctx) { //nolint:errcheck // upstream's goroutine would stay
		break
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	for _, err := range client.KeyValues(cancelled) {
		require.Error(t, err)
	}
	require.NoError(t, client.Close())
	for _, err := range client.KeyValues(ctx) {
		require.ErrorIs(t, err, nats.ErrClosed)
	}
}
