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

// nextObject returns the next update, which has to come.
func nextObject(t testing.TB, w jetstream.ObjectWatcher) *jetstream.ObjectInfo {
	t.Helper()
	select {
	case info, ok := <-w.Updates():
		require.True(t, ok, "the watcher ended")
		return info
	case <-time.After(patience):
		require.Fail(t, "no update came")
		return nil
	}
}

// Upstream's watcher is silent for 11 to 20 s after a restart.
func TestObjectWatchOverRestarts(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	ctx := within(t, 2*time.Minute)
	store, err := client.CreateObjectStore(ctx, "files")
	require.NoError(t, err)
	_, err = store.PutString(ctx, "first", "1")
	require.NoError(t, err)
	all, err := store.Watch(ctx)
	require.NoError(t, err)
	assert.Equal(t, "first", nextObject(t, all).Name)
	assert.Nil(t, nextObject(t, all))
	updates, err := store.Watch(ctx, jetstream.UpdatesOnly())
	require.NoError(t, err)
	for _, name := range []string{"second", "third", "fourth"} {
		s.Restart()
		_, err := store.PutString(ctx, name, "1")
		require.NoError(t, err)
		assert.Equal(t, name, nextObject(t, all).Name, "nothing twice, nothing missed")
		assert.Equal(t, name, nextObject(t, updates).Name)
	}
	require.NoError(t, all.Stop())
	require.NoError(t, updates.Stop())
	eventually(t, "no consumers", func() bool { return consumers(t, client, "OBJ_files") == 0 })
}

func TestObjectWatchOptions(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	var log eventLog
	client := connect(t, s, nil, nats.WithEventHandler(log.handle))
	store := newObjects(t, client, "files")
	ctx := within(t, time.Minute)
	for _, name := range []string{"a", "b"} {
		_, err := store.PutString(ctx, name, "1")
		require.NoError(t, err)
	}
	require.NoError(t, store.Delete(ctx, "a"))
	w, err := store.Watch(ctx, jetstream.IgnoreDeletes(), nil)
	require.NoError(t, err)
	assert.Equal(t, "b", nextObject(t, w).Name)
	assert.Nil(t, nextObject(t, w))
	_, err = store.Watch(ctx, jetstream.MetaOnly(), jetstream.IncludeHistory())
	require.NoError(t, err) // it is stopped with the client
	empty := newObjects(t, client, "empty")
	w2, err := empty.Watch(ctx)
	require.NoError(t, err)
	assert.Nil(t, nextObject(t, w2))

	require.NoError(t, client.DeleteObjectStore(ctx, "files"))
	select {
	case _, ok := <-w.Updates():
		assert.False(t, ok)
	case <-time.After(patience):
		assert.Fail(t, "the watcher does not end with the bucket")
	}
	eventually(t, "the end is reported", func() bool { return len(log.of(nats.EventAsyncError)) > 0 })
	require.ErrorIs(t, log.of(nats.EventAsyncError)[0].Err, nats.ErrBucketNotFound)
	_, err = store.Watch(ctx)
	require.ErrorIs(t, err, nats.ErrBucketNotFound)
	_, err = store.Watch(context.Background(), jetstream.UpdatesOnly())
	require.ErrorIs(t, err, nats.ErrBucketNotFound)
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = empty.Watch(cancelled)
	require.ErrorIs(t, err, context.Canceled)
}
