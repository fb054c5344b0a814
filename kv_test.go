package nats_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// newKeys returns a new bucket in memory that keeps five values of each key.
func newKeys(t testing.TB, client *nats.Client, bucket string) *nats.KeyValue {
	t.Helper()
	kv, err := client.CreateKeyValue(within(t, patience), bucket, nats.WithKeyValueConfig(
		func(c *jetstream.KeyValueConfig) { c.History, c.Storage = 5, jetstream.MemoryStorage }))
	require.NoError(t, err)
	return kv
}

// put sets key to value.
func put(t testing.TB, kv *nats.KeyValue, key, value string) uint64 {
	t.Helper()
	revision, err := kv.PutString(within(t, patience), key, value)
	require.NoError(t, err)
	return revision
}

func TestKeyValueBuckets(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	_, err := client.GetKeyValue(ctx, "conf")
	require.ErrorIs(t, err, nats.ErrBucketNotFound)
	require.ErrorIs(t, err, jetstream.ErrBucketNotFound)
	err = client.DeleteKeyValue(ctx, "conf")
	require.ErrorIs(t, err, nats.ErrBucketNotFound)
	require.ErrorIs(t, err, jetstream.ErrBucketNotFound)
	assert.NotContains(t, err.Error(), "\n")

	describe := func(text string) nats.KeyValueOption {
		return nats.WithKeyValueConfig(func(c *jetstream.KeyValueConfig) {
			c.Bucket, c.Description, c.History, c.TTL, c.MaxValueSize = "another", text, 7, time.Hour, 1000
		})
	}
	_, err = client.CreateKeyValue(ctx, "conf", describe("one"), nil)
	require.NoError(t, err)
	kv, err := client.CreateKeyValue(ctx, "conf", describe("one"))
	require.NoError(t, err, "the same again")
	_, err = client.CreateKeyValue(ctx, "conf", describe("two"))
	require.ErrorIs(t, err, nats.ErrAlreadyExists)
	require.ErrorIs(t, err, jetstream.ErrBucketExists)
	status, err := kv.Status(ctx)
	require.NoError(t, err)
	assert.Equal(t, "conf", status.Bucket())
	assert.EqualValues(t, 7, status.History())
	assert.Equal(t, time.Hour, status.TTL())
	_, err = kv.Put(ctx, "large", make([]byte, 1001))
	require.ErrorIs(t, err, nats.ErrPayloadTooLarge)

	sent := client.Stats().OutMsgs
	for _, bad := range []string{"", "a b", "a.b", "a*", ">", "ä", "a/b", "a\nb"} {
		_, err := client.CreateKeyValue(ctx, bad)
		require.ErrorIs(t, err, nats.ErrInvalidArgument, bad)
		_, err = client.GetKeyValue(ctx, bad)
		require.ErrorIs(t, err, nats.ErrInvalidArgument, bad)
		require.ErrorIs(t, client.DeleteKeyValue(ctx, bad), nats.ErrInvalidArgument, bad)
	}
	assert.Equal(t, sent, client.Stats().OutMsgs)

	kv, err = client.GetKeyValue(ctx, "conf")
	require.NoError(t, err)
	require.NoError(t, client.DeleteKeyValue(ctx, "conf"))
	_, err = kv.Status(ctx)
	require.Error(t, err)
}

func TestKeyValueCalls(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	kv := newKeys(t, client, "conf")
	ctx := context.Background()

	_, err := kv.Get(ctx, "k")
	require.ErrorIs(t, err, nats.ErrKeyNotFound)
	require.ErrorIs(t, err, jetstream.ErrKeyNotFound)
	require.ErrorContains(t, err, `"conf/k"`)
	_, err = kv.History(ctx, "k")
	require.ErrorIs(t, err, nats.ErrKeyNotFound)
	require.ErrorIs(t, err, jetstream.ErrKeyNotFound)
	_, err = kv.GetRevision(ctx, "k", 1)
	require.ErrorIs(t, err, nats.ErrKeyNotFound)
	_, err = kv.Update(ctx, "k", nil, 5)
	require.ErrorIs(t, err, nats.ErrConflict)

	first, err := kv.Create(ctx, "k", []byte("1"))
	require.NoError(t, err)
	_, err = kv.Create(ctx, "k", []byte("2"))
	require.ErrorIs(t, err, nats.ErrAlreadyExists)
	require.NotErrorIs(t, err, nats.ErrConflict)
	require.ErrorIs(t, err, jetstream.ErrKeyExists)
	second, err := kv.Update(ctx, "k", []byte("2"), first)
	require.NoError(t, err)
	_, err = kv.Update(ctx, "k", []byte("3"), first)
	require.ErrorIs(t, err, nats.ErrConflict)
	require.ErrorIs(t, err, jetstream.ErrKeyRevisionMismatch)
	require.NotErrorIs(t, err, nats.ErrAlreadyExists)
	err = kv.Delete(ctx, "k", jetstream.LastRevision(first))
	require.ErrorIs(t, err, nats.ErrConflict)
	require.ErrorIs(t, err, jetstream.ErrKeyRevisionMismatch)
	require.ErrorIs(t, kv.Purge(ctx, "k", jetstream.LastRevision(first)), nats.ErrConflict)

	entry, err := kv.Get(ctx, "k")
	require.NoError(t, err)
	assert.Equal(t, "2", string(entry.Value()))
	assert.Equal(t, second, entry.Revision())
	entry, err = kv.GetRevision(ctx, "k", first)
	require.NoError(t, err)
	assert.Equal(t, "1", string(entry.Value()))
	_, err = kv.GetRevision(ctx, "other", first)
	require.ErrorIs(t, err, nats.ErrKeyNotFound)

	require.NoError(t, kv.Delete(ctx, "k", jetstream.LastRevision(second)))
	_, err = kv.Get(ctx, "k")
	require.ErrorIs(t, err, nats.ErrKeyNotFound)
	require.NoError(t, kv.Delete(ctx, "never"))
	history, err := kv.History(ctx, "k")
	require.NoError(t, err)
	var operations []jetstream.KeyValueOp
	for _, entry := range history {
		operations = append(operations, entry.Operation())
	}
	assert.Equal(t, []jetstream.KeyValueOp{jetstream.KeyValuePut, jetstream.KeyValuePut, jetstream.KeyValueDelete}, operations)
	_, err = kv.Create(ctx, "k", []byte("again"))
	require.NoError(t, err, "a deleted key can be created")
	require.NoError(t, kv.Purge(ctx, "k"))
	history, err = kv.History(ctx, "k")
	require.NoError(t, err)
	assert.Len(t, history, 1)
	put(t, kv, "l", "old")
	require.NoError(t, kv.Delete(ctx, "l"))
	put(t, kv, "stays", "1")
	put(t, kv, "stays", "2")
	require.NoError(t, kv.PurgeDeletes(ctx))
	for key, n := range map[string]int{"k": 1, "l": 1, "stays": 2} { // young markers stay, without what was before
		history, err = kv.History(ctx, key)
		require.NoError(t, err)
		assert.Len(t, history, n, key)
	}
	require.NoError(t, kv.PurgeDeletes(ctx, jetstream.DeleteMarkersOlderThan(-1)))
	_, err = kv.History(ctx, "k")
	require.ErrorIs(t, err, nats.ErrKeyNotFound)
}

func TestKeyValueRefusesBadKeys(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	kv := newKeys(t, client, "conf")
	ctx := context.Background()
	sent := client.Stats().OutMsgs
	for _, bad := range []string{"", "a b", ".a", "a.", "a*", ">", "a.>", "ä", "a\r\nPUB x 0\r\n"} {
		_, get := kv.Get(ctx, bad)
		_, revision := kv.GetRevision(ctx, bad, 1)
		_, put := kv.Put(ctx, bad, nil)
		_, create := kv.Create(ctx, bad, nil)
		_, update := kv.Update(ctx, bad, nil, 1)
		for i, err := range []error{get, revision, put, create, update, kv.Delete(ctx, bad), kv.Purge(ctx, bad)} {
			require.ErrorIs(t, err, nats.ErrInvalidArgument, "%q %d", bad, i)
			require.ErrorIs(t, err, jetstream.ErrInvalidKey, "%q %d", bad, i)
		}
	}
	for _, bad := range []string{"", "a b", ".a", "a.", "a\r\nPUB x 0\r\n", "a.>.b", "a*"} {
		_, err := kv.Watch(ctx, bad)
		require.ErrorIs(t, err, nats.ErrInvalidArgument, "%q", bad)
		_, err = kv.ListKeysFiltered(ctx, "good", bad)
		require.ErrorIs(t, err, nats.ErrInvalidArgument, "%q", bad)
		_, err = kv.History(ctx, bad)
		require.ErrorIs(t, err, nats.ErrInvalidArgument, "%q", bad)
		for _, err := range kv.Keys(ctx, bad) {
			require.ErrorIs(t, err, nats.ErrInvalidArgument, "%q", bad)
		}
	}
	assert.Equal(t, sent, client.Stats().OutMsgs)
}

func TestKeyValueKeys(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	kv := newKeys(t, client, "conf")
	ctx := context.Background()
	keys := func(filters ...string) []string {
		var found []string
		for key, err := range kv.Keys(ctx, filters...) {
			require.NoError(t, err)
			found = append(found, key)
		}
		slices.Sort(found)
		return found
	}
	assert.Empty(t, keys(), "an empty bucket is an empty sequence")
	for i := range 600 {
		put(t, kv, fmt.Sprintf("a.%03d", i), "x")
	}
	put(t, kv, "b.1", "x")
	put(t, kv, "b.1", "y")
	put(t, kv, "c.1", "x")
	require.NoError(t, kv.Delete(ctx, "c.1"))
	assert.Len(t, keys(), 601)
	assert.Equal(t, []string{"a.007", "b.1"}, keys("a.007", "b.*"))
	assert.Empty(t, keys("c.>"), "deleted")

	read := 0
	for range kv.Keys(ctx) { //nolint:errcheck // the goroutines of upstream would stay
		if read++; read == 3 {
			break
		}
	}
	lister, err := kv.ListKeys(ctx)
	require.NoError(t, err)
	<-lister.Keys()
	require.NoError(t, lister.Stop())
	require.NoError(t, lister.Stop())
	lister, err = kv.ListKeysFiltered(ctx, "a.>", "b.>")
	require.NoError(t, err)
	count := 0
	for range lister.Keys() {
		count++
	}
	assert.Equal(t, 601, count)

	cancelled, cancel := context.WithCancel(ctx)
	defer cancel()
	read = 0
	var last error
	for key, err := range kv.Keys(cancelled) {
		if err != nil {
			assert.Empty(t, key)
			last = err
			continue // there is nothing after it
		}
		if read++; read == 3 {
			cancel()
		}
	}
	require.ErrorIs(t, last, context.Canceled)
	abandoned, abandon := context.WithCancel(ctx)
	lister, err = kv.ListKeys(abandoned)
	require.NoError(t, err)
	<-lister.Keys()
	abandon()
	unread, err := kv.ListKeys(ctx)
	require.NoError(t, err)
	<-unread.Keys()
	defer func() { // ended by Close
		for range unread.Keys() {
		}
	}()
	eventually(t, "no consumers", func() bool { return consumers(t, client, "KV_conf") <= 1 })

	require.NoError(t, client.Close())
	for _, err := range kv.Keys(ctx) {
		require.ErrorIs(t, err, nats.ErrClosed)
	}
	_, err = kv.ListKeys(ctx)
	require.ErrorIs(t, err, nats.ErrClosed)
	_, err = kv.Get(ctx, "a.001")
	require.ErrorIs(t, err, nats.ErrClosed)
	_, err = kv.Put(ctx, "a.001", nil)
	require.ErrorIs(t, err, nats.ErrClosed)
	_, err = kv.History(ctx, "a.001")
	require.ErrorIs(t, err, nats.ErrClosed)
}
