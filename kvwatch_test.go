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

// update receives one update of a watcher as text: "key=value", "-key" for a deletion, "nil" for
// the marker, "end" when there are no more.
func update(t testing.TB, w jetstream.KeyWatcher) string {
	t.Helper()
	select {
	case entry, ok := <-w.Updates():
		switch {
		case !ok:
			return "end"
		case entry == nil:
			return "nil"
		case entry.Operation() != jetstream.KeyValuePut:
			return "-" + entry.Key()
		}
		return entry.Key() + "=" + string(entry.Value())
	case <-time.After(patience):
		t.Fatal("no update")
	}
	return ""
}

func TestKeyValueWatch(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	kv := newKeys(t, client, "conf")
	ctx := context.Background()
	empty, err := kv.WatchAll(ctx)
	require.NoError(t, err)
	assert.Equal(t, "nil", update(t, empty))
	put(t, kv, "a.1", "old")
	put(t, kv, "a.1", "1")
	put(t, kv, "a.2", "2")
	require.NoError(t, kv.Delete(ctx, "a.2"))
	put(t, kv, "b.1", "x")
	for _, want := range []string{"a.1=old", "a.1=1", "a.2=2", "-a.2", "b.1=x"} {
		assert.Equal(t, want, update(t, empty))
	}

	for name, test := range map[string]struct {
		filters []string
		opts    []jetstream.WatchOpt
		want    []string
	}{
		"plain":          {[]string{"a.*"}, nil, []string{"a.1=1", "-a.2", "nil", "a.3=3", "-a.3"}},
		"two filters":    {[]string{"a.1", "b.>"}, nil, []string{"a.1=1", "b.1=x", "nil", "b.2=y"}},
		"all":            {nil, nil, []string{"a.1=1", "-a.2", "b.1=x", "nil", "a.3=3", "-a.3", "b.2=y"}},
		"history":        {[]string{"a.*"}, []jetstream.WatchOpt{jetstream.IncludeHistory()}, []string{"a.1=old", "a.1=1", "a.2=2", "-a.2", "nil", "a.3=3", "-a.3"}},
		"updates only":   {[]string{"a.*"}, []jetstream.WatchOpt{jetstream.UpdatesOnly()}, []string{"a.3=3", "-a.3"}},
		"without values": {[]string{"a.*"}, []jetstream.WatchOpt{jetstream.MetaOnly()}, []string{"a.1=", "-a.2", "nil", "a.3=", "-a.3"}},
		"no deletes":     {[]string{"a.*"}, []jetstream.WatchOpt{jetstream.IgnoreDeletes()}, []string{"a.1=1", "nil", "a.3=3"}},
	} {
		w, err := kv.WatchFiltered(ctx, test.filters, test.opts...)
		require.NoError(t, err)
		// A value that is written before the server begins to deliver counts among those that were there.
		present := test.want[:1+slices.Index(test.want, "nil")]
		for _, want := range present {
			assert.Equal(t, want, update(t, w), name)
		}
		defer func() {
			for _, want := range test.want[len(present):] {
				assert.Equal(t, want, update(t, w), name)
			}
			require.NoError(t, w.Stop())
			require.NoError(t, w.Stop())
			assert.Equal(t, "end", update(t, w), name)
		}()
	}
	put(t, kv, "a.3", "3")
	require.NoError(t, kv.Delete(ctx, "a.3"))
	put(t, kv, "b.2", "y")
}

func TestKeyValueWatchDoesNotTouchTheFilters(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	kv := newKeys(t, client, "conf")
	filters := []string{"a.>", "b"}
	w, err := kv.WatchFiltered(context.Background(), filters)
	require.NoError(t, err)
	require.NoError(t, w.Stop())
	assert.Equal(t, []string{"a.>", "b"}, filters)

	upstream, err := kv.KeyValue.WatchFiltered(context.Background(), filters)
	require.NoError(t, err)
	require.NoError(t, upstream.Stop())
	assert.Equal(t, []string{"$KV.conf.a.>", "$KV.conf.b"}, filters, "upstream has learnt it: the copy can go")
}

// Upstream's goroutine hangs on updates that nobody reads; goleak would find ours.
func TestKeyValueWatchUnread(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	kv := newKeys(t, client, "conf")
	for i := range 600 {
		put(t, kv, fmt.Sprint("k", i), "x")
	}
	stopped, err := kv.WatchAll(context.Background())
	require.NoError(t, err)
	assert.NotEqual(t, "end", update(t, stopped))
	require.NoError(t, stopped.Stop())

	ctx, cancel := context.WithCancel(context.Background())
	cancelled, err := kv.WatchAll(ctx)
	require.NoError(t, err)
	cancel()
	eventually(t, "the updates end", func() bool { return update(t, cancelled) == "end" })
	_, err = kv.WatchAll(ctx)
	require.ErrorIs(t, err, context.Canceled)
	eventually(t, "no consumers", func() bool { return consumers(t, client, "KV_conf") == 0 })

	closed, err := kv.WatchAll(context.Background())
	require.NoError(t, err)
	require.NoError(t, client.Close())
	eventually(t, "the updates end", func() bool { return update(t, closed) == "end" })
	require.NoError(t, closed.Stop())
}

// Contexts that end while a watcher begins leave nothing behind.
// What is being opened when the client closes says so, and not that its caller wished it.
func TestCloseWhileFollowersOpen(t *testing.T) {
	t.Parallel()
	client, proxy := through(t, natstest.RunServer(t))
	ctx := context.Background()
	kv, err := client.CreateKeyValue(ctx, "b")
	require.NoError(t, err)
	store, err := client.CreateObjectStore(ctx, "o")
	require.NoError(t, err)
	proxy.BlackHole()
	calls := []func() error{
		func() error { _, err := kv.WatchAll(ctx); return err },
		func() error { _, err := kv.Cached(ctx); return err },
		func() error { _, err := kv.ListKeys(ctx); return err },
		func() error { _, err := store.Watch(ctx); return err },
	}
	ended, sent := make(chan error, len(calls)), client.Conn().Stats().OutMsgs
	for _, call := range calls {
		go func() { ended <- call() }()
	}
	eventually(t, "all have asked", func() bool { return client.Conn().Stats().OutMsgs >= sent+uint64(len(calls)) })
	_ = client.Shutdown(within(t, 50*time.Millisecond))
	for range calls {
		require.ErrorIs(t, <-ended, nats.ErrClosed)
	}
}

func TestKeyValueWatchCancelledAtTheStart(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	kv := newKeys(t, client, "conf")
	put(t, kv, "k", "x")
	for i := range 200 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*5*time.Microsecond)
		if w, err := kv.WatchAll(ctx); err == nil {
			eventually(t, "the updates end", func() bool { return update(t, w) == "end" })
		}
		cancel()
	}
}

// A pass over the keys, however it ends, and a watch that is stopped alarm nobody.
func TestPassesReportNoStaleWatch(t *testing.T) {
	t.Parallel()
	var events eventLog
	client := connect(t, natstest.RunServer(t), nil, nats.WithEventHandler(events.handle))
	ctx := context.Background()
	kv, err := client.CreateKeyValue(ctx, "config")
	require.NoError(t, err)
	for _, key := range []string{"a", "b", "c"} {
		_, err := kv.Put(ctx, key, nil)
		require.NoError(t, err)
	}
	for range 3 {
		for _, err := range kv.Keys(ctx) {
			require.NoError(t, err)
		}
		for _, err := range kv.All(ctx) {
			require.NoError(t, err)
			break
		}
		for _, err := range kv.Changes(ctx) {
			require.NoError(t, err)
			break
		}
		lister, err := kv.ListKeys(ctx)
		require.NoError(t, err)
		for range lister.Keys() {
		}
		require.NoError(t, kv.Delete(ctx, "a"))
		require.NoError(t, kv.PurgeDeletes(ctx))
		watcher, err := kv.WatchAll(ctx)
		require.NoError(t, err)
		<-watcher.Updates()
		require.NoError(t, watcher.Stop())
		for range watcher.Updates() {
		}
	}
	require.NoError(t, client.Close())
	assert.Empty(t, events.of(nats.EventWatchStale))
	assert.Empty(t, events.of(nats.EventWatchFresh))
}
