package nats_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// readsAll reads a key of the bucket through every door that replicas answer.
func readsAll(t *testing.T, kv *nats.KeyValue, key, value string, revision uint64) {
	t.Helper()
	ctx := within(t, patience)
	entry, err := kv.Get(ctx, key)
	require.NoError(t, err)
	assert.Equal(t, value, string(entry.Value()))
	entry, err = kv.GetRevision(ctx, key, revision)
	require.NoError(t, err)
	assert.Equal(t, value, string(entry.Value()))
	many, err := kv.GetMany(ctx, key, "never")
	require.NoError(t, err)
	assert.Len(t, many, 1)
}

// A bucket that others change so that its replicas do not answer is asked through its leader, and so is a mirror whose
// own do not, though they answer for the origin.
func TestKeyValueDirectAccessIsTakenAway(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	ctx := within(t, 2*patience)
	var cfg jetstream.StreamConfig
	kv := mortalBucket(t, client, func(c *jetstream.StreamConfig) { cfg = *c })
	revision := put(t, kv, "k", "1")
	readsAll(t, kv, "k", "1", revision)
	_, err := client.JetStream().CreateStream(ctx, jetstream.StreamConfig{
		Name: "KV_copy", Mirror: &jetstream.StreamSource{Name: "KV_mortal"}, MaxMsgsPerSubject: 1, Storage: jetstream.MemoryStorage,
	})
	require.NoError(t, err)
	mirror, err := client.GetKeyValue(ctx, "copy")
	require.NoError(t, err)
	eventually(t, "it is mirrored", func() bool {
		status, err := mirror.Status(ctx)
		return err == nil && status.Values() == 1
	})
	readsAll(t, mirror, "k", "1", revision)

	cfg.AllowDirect = false
	_, err = client.JetStream().UpdateStream(ctx, cfg)
	require.NoError(t, err)
	readsAll(t, kv, "k", "1", revision)
}

// A stream may limit for how long its consumers are kept without a reader.
func TestFollowersInAStreamThatLimitsItsConsumers(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	ctx := within(t, patience)
	kv := mortalBucket(t, client, func(c *jetstream.StreamConfig) {
		c.ConsumerLimits = jetstream.StreamConsumerLimits{InactiveThreshold: 10 * time.Second, MaxAckPending: 10}
	})
	put(t, kv, "k", "1")
	for key, err := range kv.Keys(ctx) {
		require.NoError(t, err)
		assert.Equal(t, "k", key)
	}
	watcher, err := kv.WatchAll(ctx)
	require.NoError(t, err)
	assert.Equal(t, "k", (<-watcher.Updates()).Key())
	require.NoError(t, watcher.Stop())
	for _, err := range client.ReadStream(ctx, "KV_mortal") {
		require.NoError(t, err)
	}
}

// What a bucket's stream stores on other subjects is no value of its keys.
func TestKeyValueRevisionOfAnotherSubject(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	ctx := within(t, patience)
	kv := mortalBucket(t, client, func(c *jetstream.StreamConfig) { c.Subjects = append(c.Subjects, "$KV.wooden.>") })
	ack, err := client.JetStream().Publish(ctx, "$KV.wooden.k", []byte("other"))
	require.NoError(t, err)
	_, err = kv.GetRevision(ctx, "k", ack.Sequence)
	require.ErrorIs(t, err, nats.ErrKeyNotFound)
}

// Who stores on a wildcard, as a client without checks can, has no other keys or objects deleted.
func TestWhatIsStoredOnAWildcardDeletesNothing(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	ctx := within(t, patience)
	kv, store := mortalBucket(t, client, func(*jetstream.StreamConfig) {}), newObjects(t, client, "files")
	revision := put(t, kv, "a.b", "1")
	_, err := store.PutString(ctx, "x", "content")
	require.NoError(t, err)
	nc := raw(t, s)
	for _, subject := range []string{"$KV.mortal.>", "$KV.mortal.a.*", "$O.files.C.*", "$O.files.C.>", "$O.files.C.orphan"} {
		m := natsgo.NewMsg(subject)
		m.Header.Set("KV-Operation", "DEL")
		_, err := nc.RequestMsgWithContext(ctx, m)
		require.NoError(t, err)
	}
	require.NoError(t, kv.PurgeDeletes(ctx, jetstream.DeleteMarkersOlderThan(-1)))
	readsAll(t, kv, "a.b", "1", revision)
	eventually(t, "all that are older than the orphan are old enough", func() bool {
		removed, err := store.Sweep(ctx, time.Second)
		require.NoError(t, err)
		return removed > 0
	})
	got, err := store.GetString(ctx, "x")
	require.NoError(t, err)
	assert.Equal(t, "content", got)
}

// Whatever reads when the client is closed leaves no consumer behind, also where Close is called between two of what
// is read.
func TestReadersLeaveNothingAtClose(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	observer := connect(t, s, nil)
	filled := mortalBucket(t, observer, func(*jetstream.StreamConfig) {})
	for _, key := range []string{"a", "b", "c"} {
		put(t, filled, key, "1")
	}
	objects := newObjects(t, observer, "files")
	_, err := objects.Put(within(t, patience), chunked("x", 1000), bytes.NewReader(noise(5000)))
	require.NoError(t, err)
	for name, read := range map[string]func(ctx context.Context, client *nats.Client, kv *nats.KeyValue, between func()) error{
		"All": func(ctx context.Context, _ *nats.Client, kv *nats.KeyValue, between func()) (last error) {
			for _, err := range kv.All(ctx) {
				if last = err; err == nil {
					between()
				}
			}
			return last
		},
		"ReadStream": func(ctx context.Context, client *nats.Client, _ *nats.KeyValue, between func()) (last error) {
			for _, err := range client.ReadStream(ctx, "KV_mortal") {
				if last = err; err == nil {
					between()
				}
			}
			return last
		},
		"Get": func(ctx context.Context, client *nats.Client, _ *nats.KeyValue, between func()) error {
			store, err := client.GetObjectStore(ctx, "files")
			require.NoError(t, err)
			result, err := store.Get(ctx, "x")
			require.NoError(t, err)
			between()
			_, err = result.Read(make([]byte, 1))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := within(t, patience)
			client := connect(t, s, nil)
			kv, err := client.GetKeyValue(ctx, "mortal")
			require.NoError(t, err)
			err = read(ctx, client, kv, func() { assert.NoError(t, client.Close()) })
			require.ErrorIs(t, err, nats.ErrClosed)
		})
	}
	t.Cleanup(func() { // the servers drop them within a minute
		begin := time.Now()
		for {
			left := 0
			for _, stream := range []string{"KV_mortal", "OBJ_files"} {
				info, err := observer.GetStreamInfo(context.Background(), stream)
				if assert.NoError(t, err) {
					left += info.State.Consumers
				}
			}
			if left == 0 || !assert.Less(t, since(begin), 20*time.Second, "consumers are left") {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}
