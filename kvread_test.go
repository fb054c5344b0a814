package nats_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestKeyValueGetMany(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	kv := newKeys(t, client, "conf")
	ctx := context.Background()
	var keys []string
	for i := range 1300 { // more than the server answers at once
		keys = append(keys, fmt.Sprintf("k.%d", i))
		put(t, kv, keys[i], fmt.Sprint(i))
	}
	put(t, kv, "k.0", "new")
	require.NoError(t, kv.Delete(ctx, "k.1"))
	got, err := kv.GetMany(ctx, append([]string{"never", "k.2"}, keys...)...)
	require.NoError(t, err)
	assert.Len(t, got, 1299)
	assert.Equal(t, "new", string(got["k.0"].Value()))
	assert.NotContains(t, got, "k.1")
	for i := 2; i < len(keys); i++ {
		require.Equal(t, fmt.Sprint(i), string(got[keys[i]].Value()))
		require.EqualValues(t, i+1, got[keys[i]].Revision())
		require.False(t, got[keys[i]].Created().IsZero())
	}
	got, err = kv.GetMany(ctx, "never", "neither")
	require.NoError(t, err)
	assert.Empty(t, got)
	got, err = kv.GetMany(ctx)
	require.NoError(t, err)
	assert.Empty(t, got)
	_, err = kv.GetMany(ctx, "k.1", "a b")
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	_, err = kv.GetMany(nil) //nolint:staticcheck // nil is what is tested
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	require.NoError(t, client.DeleteKeyValue(ctx, "conf"))
	_, err = kv.GetMany(ctx, "k.1")
	require.ErrorIs(t, err, nats.ErrBucketNotFound)
}

// A bucket whose replicas do not answer, as older software made them, is asked through its leader.
func TestKeyValueWithoutDirectAccess(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{
		Name: "KV_old", Subjects: []string{"$KV.old.>"}, MaxMsgsPerSubject: 3, AllowRollup: true, DenyDelete: true,
	})
	require.NoError(t, err)
	kv, err := client.GetKeyValue(ctx, "old")
	require.NoError(t, err)
	first := put(t, kv, "k", "1")
	put(t, kv, "k", "2")
	put(t, kv, "gone", "")
	require.NoError(t, kv.Delete(ctx, "gone"))
	put(t, kv, "empty", "")
	_, err = kv.Modify(ctx, "empty", func(old []byte) ([]byte, error) {
		assert.NotNil(t, old, "there is a value")
		return old, nil
	})
	require.NoError(t, err)
	entry, err := kv.Get(ctx, "k")
	require.NoError(t, err)
	assert.Equal(t, "2", string(entry.Value()))
	entry, err = kv.GetRevision(ctx, "k", first)
	require.NoError(t, err)
	assert.Equal(t, "1", string(entry.Value()))
	_, err = kv.Get(ctx, "gone")
	require.ErrorIs(t, err, nats.ErrKeyNotFound)
	got, err := kv.GetMany(ctx, "k", "gone", "never")
	require.NoError(t, err)
	assert.Len(t, got, 1)
}

// Calls wait for the connection, and say so when it does not come.
func TestKeyValueWhileDisconnected(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, proxy := through(t, s)
	ctx := context.Background()
	kv, err := client.CreateKeyValue(ctx, "conf")
	require.NoError(t, err)
	put(t, kv, "k", "1")
	proxy.Cut()
	eventually(t, "disconnected", func() bool {
		_, err := kv.Get(within(t, 20*time.Millisecond), "k")
		return errors.Is(err, nats.ErrNotConnected)
	})
	calls := map[string]func(context.Context) error{
		"get":      func(ctx context.Context) error { _, err := kv.Get(ctx, "k"); return err },
		"revision": func(ctx context.Context) error { _, err := kv.GetRevision(ctx, "k", 1); return err },
		"many":     func(ctx context.Context) error { _, err := kv.GetMany(ctx, "k"); return err },
		"put":      func(ctx context.Context) error { _, err := kv.Put(ctx, "p", nil); return err },
		"create":   func(ctx context.Context) error { _, err := kv.Create(ctx, "c", nil); return err },
		"modify": func(ctx context.Context) error {
			_, err := kv.Modify(ctx, "m", func([]byte) ([]byte, error) { return nil, nil })
			return err
		},
		"delete": func(ctx context.Context) error { return kv.Delete(ctx, "d") },
		"keys": func(ctx context.Context) error {
			for _, err := range kv.Keys(ctx) {
				if err != nil {
					return err
				}
			}
			return nil
		},
		"watch": func(ctx context.Context) error {
			w, err := kv.WatchAll(ctx)
			if err == nil {
				_ = w.Stop()
			}
			return err
		},
		"bucket": func(ctx context.Context) error { _, err := client.GetKeyValue(ctx, "conf"); return err },
		"ensure": func(ctx context.Context) error { _, err := client.EnsureKeyValue(ctx, "conf"); return err },
	}
	var waiting sync.WaitGroup
	for name, call := range calls {
		waiting.Go(func() { assert.ErrorIs(t, call(within(t, 500*time.Millisecond)), nats.ErrNotConnected, name) })
	}
	waiting.Wait()
	ends := make(chan error)
	for name, call := range calls {
		go func() {
			if err := call(within(t, patience)); err != nil {
				ends <- fmt.Errorf("%s: %w", name, err)
				return
			}
			ends <- nil
		}()
	}
	proxy.Restore()
	for range calls {
		require.NoError(t, <-ends)
	}
}

func TestKeyValueJSON(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	kv := newKeys(t, client, "conf")
	ctx := context.Background()
	type limits struct{ CPU, Memory int }
	revision, err := kv.PutJSON(ctx, "a", limits{2, 512})
	require.NoError(t, err)
	got, found, err := nats.GetJSON[limits](ctx, kv, "a")
	require.NoError(t, err)
	assert.Equal(t, limits{2, 512}, got)
	assert.Equal(t, revision, found)
	_, _, err = nats.GetJSON[limits](ctx, kv, "never")
	require.ErrorIs(t, err, nats.ErrKeyNotFound)
	_, err = kv.PutJSON(ctx, "a", func() {})
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	put(t, kv, "bad", "{")
	_, _, err = nats.GetJSON[limits](ctx, kv, "bad")
	var syntax *json.SyntaxError
	require.ErrorAs(t, err, &syntax)
	require.ErrorContains(t, err, "conf/bad")
	cache, err := kv.Cached(ctx)
	require.NoError(t, err)
	fromCache, revision, err := nats.GetJSON[limits](ctx, cache, "a")
	require.NoError(t, err)
	assert.Equal(t, got, fromCache)
	assert.Equal(t, found, revision)
	_, _, err = nats.GetJSON[limits](ctx, cache, "never")
	require.ErrorIs(t, err, nats.ErrKeyNotFound)
	require.NoError(t, cache.Close())
	for _, none := range []nats.KeyReader{(*nats.KeyValue)(nil), (*nats.KeyValueCache)(nil)} {
		_, _, err = nats.GetJSON[limits](ctx, none, "a")
		require.ErrorIs(t, err, nats.ErrInvalidArgument)
	}
	_, _, err = nats.GetJSON[limits](ctx, nil, "a")
	require.ErrorIs(t, err, nats.ErrInvalidArgument)

	require.NoError(t, kv.Delete(ctx, "a"))
	put(t, kv, "b", `{"CPU":1}`)
	var changes []nats.Change[limits]
	for change, err := range nats.ChangesJSON[limits](ctx, kv) {
		if change.Key == "bad" {
			require.ErrorAs(t, err, &syntax)
		} else {
			require.NoError(t, err)
		}
		if changes = append(changes, change); len(changes) == 3 {
			break
		}
	}
	assert.Equal(t, []nats.Change[limits]{
		{Key: "bad", Revision: 2}, {Key: "a", Revision: 3, Deleted: true}, {Key: "b", Revision: 4, Value: limits{CPU: 1}},
	}, changes)
	for _, err := range nats.ChangesJSON[limits](ctx, kv, "a b") {
		require.ErrorIs(t, err, nats.ErrInvalidArgument)
	}
	for _, err := range nats.ChangesJSON[limits](ctx, nil) {
		require.ErrorIs(t, err, nats.ErrInvalidArgument)
	}
}
