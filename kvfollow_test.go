package nats_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// Upstream's watcher is silent for 12 to 20 s after a restart, and for ever after that of a server
// whose bucket was in memory.
func TestKeyValueWatchOverRestarts(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	ctx := context.Background()
	kv, err := client.CreateKeyValue(ctx, "conf")
	require.NoError(t, err)
	w, err := kv.WatchAll(ctx)
	require.NoError(t, err)
	assert.Equal(t, "nil", update(t, w))
	empty, err := kv.WatchAll(ctx, jetstream.UpdatesOnly()) // nothing is in the bucket yet
	require.NoError(t, err)
	put(t, kv, "z", "0")
	assert.Equal(t, "z=0", update(t, w))
	assert.Equal(t, "z=0", update(t, empty))
	late, err := kv.WatchAll(ctx, jetstream.UpdatesOnly())
	require.NoError(t, err)
	for i := range 3 {
		s.Restart()
		put(t, kv, "a", fmt.Sprint(i))
		put(t, kv, "b", fmt.Sprint(i))
		for _, watcher := range []*nats.KeyWatcher{w, empty, late} {
			// The first of both may be found by the new consumer or the old one, but not by both.
			assert.Equal(t, fmt.Sprint("a=", i), update(t, watcher))
			assert.Equal(t, fmt.Sprint("b=", i), update(t, watcher))
		}
	}
	eventually(t, "the watchers are fresh", func() bool { return !w.Stale() && !empty.Stale() && !late.Stale() })
	eventually(t, "one consumer for each watcher", func() bool { return consumers(t, client, "KV_conf") == 3 })
	require.NoError(t, w.Stop())
	require.NoError(t, late.Stop())
	require.NoError(t, empty.Stop())
	eventually(t, "no consumers", func() bool { return consumers(t, client, "KV_conf") == 0 })
}

func TestKeyValueWatchOfARecreatedBucket(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	var log eventLog
	client, other := connect(t, s, nil, nats.WithEventHandler(log.handle)), connect(t, s, nil)
	kv := newKeys(t, client, "conf")
	ctx := context.Background()
	for _, key := range []string{"stays", "goes", "changes", "deleted"} {
		put(t, kv, key, "old")
	}
	require.NoError(t, kv.Delete(ctx, "deleted"))
	all, err := kv.WatchAll(ctx)
	require.NoError(t, err)
	quiet, err := kv.WatchAll(ctx, jetstream.IgnoreDeletes())
	require.NoError(t, err)
	for _, want := range []string{"stays=old", "goes=old", "changes=old"} {
		assert.Equal(t, want, update(t, all))
		assert.Equal(t, want, update(t, quiet))
	}
	assert.Equal(t, "-deleted", update(t, all))
	assert.Equal(t, "nil", update(t, all))
	assert.Equal(t, "nil", update(t, quiet))
	eventually(t, "fresh", func() bool { return !all.Stale() })

	require.NoError(t, other.DeleteKeyValue(ctx, "conf"))
	eventually(t, "stale", all.Stale)
	again := newKeys(t, other, "conf")
	put(t, again, "changes", "new")
	put(t, again, "stays", "old")
	put(t, again, "later", "x")
	// The watchers may find the bucket before it is full: then they report more deletions, for a time.
	for w, values := range map[*nats.KeyWatcher]map[string]string{
		all:   {"stays": "old", "goes": "old", "changes": "old"},
		quiet: {"goes": "old"}, // as it hears of no deletion
	} {
		for want := maps.Clone(values); ; {
			maps.Copy(want, map[string]string{"stays": "old", "changes": "new", "later": "x"})
			if w == all {
				delete(want, "goes")
			}
			if maps.Equal(values, want) {
				break
			}
			select {
			case entry := <-w.Updates():
				require.NotNil(t, entry, "no second nil")
				if entry.Operation() == jetstream.KeyValuePut {
					values[entry.Key()] = string(entry.Value())
					continue
				}
				require.Equal(t, all, w)
				delete(values, entry.Key())
				assert.Zero(t, entry.Revision())
				assert.WithinDuration(t, time.Now(), entry.Created(), time.Minute)
			case <-time.After(patience):
				t.Fatal("the new values do not come: ", values)
			}
		}
	}
	eventually(t, "fresh", func() bool { return !all.Stale() })
	eventually(t, "events", func() bool {
		stale := log.of(nats.EventWatchStale)
		return len(stale) >= 2 && len(log.of(nats.EventWatchFresh)) >= 2 && strings.HasPrefix(stale[0].Subject, "conf")
	})
}

// Deleted and created again while nobody looks: nothing but the time of its creation tells.
func TestKeyValueWatchOfABucketReplacedUnseen(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, proxy := through(t, s)
	other := connect(t, s, nil)
	kv := newKeys(t, client, "conf")
	put(t, kv, "gone", "1")
	put(t, kv, "k", "1")
	w, err := kv.WatchAll(context.Background())
	require.NoError(t, err)
	assert.Equal(t, "gone=1", update(t, w))
	assert.Equal(t, "k=1", update(t, w))
	assert.Equal(t, "nil", update(t, w))
	proxy.Cut()
	require.NoError(t, other.DeleteKeyValue(context.Background(), "conf"))
	again := newKeys(t, other, "conf")
	for range 5 {
		put(t, again, "k", "2") // so that there are more revisions than before
	}
	eventually(t, "stale", w.Stale)
	proxy.Restore()
	assert.Equal(t, "k=2", update(t, w))
	assert.Equal(t, "-gone", update(t, w))
}

// A server that is silent on a connection that stands shows as stale before the connection breaks.
func TestKeyValueWatchTellsThatItIsStale(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, proxy := through(t, s)
	other := connect(t, s, nil)
	kv := newKeys(t, other, "conf")
	put(t, kv, "k", "1")
	mine, err := client.GetKeyValue(context.Background(), "conf")
	require.NoError(t, err)
	w, err := mine.Watch(context.Background(), "k")
	require.NoError(t, err)
	assert.True(t, w.Stale(), "nothing is received yet")
	assert.Equal(t, "k=1", update(t, w))
	assert.Equal(t, "nil", update(t, w))
	eventually(t, "fresh", func() bool { return !w.Stale() })
	proxy.BlackHole()
	put(t, kv, "k", "2")
	eventually(t, "stale", w.Stale)
	assert.True(t, client.IsConnected())
	proxy.Restore()
	assert.Equal(t, "k=2", update(t, w))
	eventually(t, "fresh", func() bool { return !w.Stale() })
}

// The present values are interrupted again and again: each key comes, and none twice.
func TestKeyValueAllOverReconnects(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	kv := newKeys(t, client, "conf")
	const n = 3000
	for i := range n {
		put(t, kv, fmt.Sprintf("k.%d", i/2), fmt.Sprint(i)) // each key twice in a row
	}
	seen, read := map[string]string{}, 0
	for entry, err := range kv.All(context.Background()) {
		require.NoError(t, err)
		require.NotContains(t, seen, entry.Key())
		seen[entry.Key()] = string(entry.Value())
		if read++; read%500 == 250 {
			require.NoError(t, client.Conn().ForceReconnect())
		}
	}
	assert.Len(t, seen, n/2)
	for i := range n / 2 {
		assert.Equal(t, fmt.Sprint(2*i+1), seen[fmt.Sprintf("k.%d", i)])
	}
	eventually(t, "no consumers", func() bool { return consumers(t, client, "KV_conf") == 0 })
}

func TestKeyValueChanges(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	kv := newKeys(t, client, "conf")
	put(t, kv, "a.1", "1")
	put(t, kv, "b.1", "1")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var got []string
	for entry, err := range kv.Changes(ctx, "a.>", "a.1", "c") { // a.1 is in a.>: the server would refuse that
		require.NoError(t, err)
		got = append(got, fmt.Sprintf("%s %s %s", entry.Operation(), entry.Key(), entry.Value()))
		switch len(got) {
		case 1:
			put(t, kv, "c", "2")
		case 2:
			require.NoError(t, kv.Delete(ctx, "a.1"))
		case 3:
			cancel()
		}
	}
	assert.Equal(t, []string{"KeyValuePutOp a.1 1", "KeyValuePutOp c 2", "KeyValueDeleteOp a.1 "}, got)
	for range kv.Changes(context.Background()) { //nolint:errcheck // it is left at once
		break
	}
	for _, err := range kv.Changes(context.Background(), "a..b") {
		require.ErrorIs(t, err, nats.ErrInvalidArgument)
	}
	for _, err := range kv.Changes(nil) { //nolint:staticcheck // nil is what is tested
		require.ErrorIs(t, err, nats.ErrInvalidArgument)
	}
	eventually(t, "no consumers", func() bool { return consumers(t, client, "KV_conf") == 0 })
}

// Every option of upstream's is understood: an upgrade that adds or changes one shows here.
func TestKeyValueWatchOptions(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	kv := newKeys(t, client, "conf")
	ctx := context.Background()
	for i := range 4 {
		put(t, kv, "k", fmt.Sprint(i))
	}
	w, err := kv.Watch(ctx, "k", jetstream.ResumeFromRevision(3), nil)
	require.NoError(t, err)
	for _, want := range []string{"k=2", "k=3", "nil"} {
		assert.Equal(t, want, update(t, w))
	}
	require.NoError(t, w.Stop())
	_, err = kv.Watch(ctx, "k", jetstream.UpdatesOnly(), jetstream.IncludeHistory())
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	require.ErrorIs(t, err, jetstream.ErrInvalidOption)
	_, err = kv.Watch(nil, "k") //nolint:staticcheck // nil is what is tested
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	_, err = kv.Create(ctx, "ttl", nil, jetstream.KeyTTL(1500*time.Millisecond))
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	require.ErrorIs(t, kv.Delete(ctx, "k", jetstream.PurgeTTL(time.Second)), jetstream.ErrTTLOnDeleteNotSupported)

	require.NoError(t, client.DeleteKeyValue(ctx, "conf"))
	_, err = kv.Watch(ctx, "k")
	require.ErrorIs(t, err, nats.ErrBucketNotFound)
	require.ErrorIs(t, err, jetstream.ErrBucketNotFound)
	for _, err := range kv.Keys(ctx) {
		require.ErrorIs(t, err, nats.ErrBucketNotFound)
	}
}

// A bucket behind a JetStream domain.
func TestKeyValueInADomain(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) { o.JetStreamDomain = "hub" }))
	client := connect(t, s, func(c *nats.Config) { c.JetStreamDomain = "hub" })
	ctx := context.Background()
	kv := newKeys(t, client, "conf")
	w, err := kv.WatchAll(ctx)
	require.NoError(t, err)
	assert.Equal(t, "nil", update(t, w))
	first := put(t, kv, "k", "1")
	_, err = kv.Update(ctx, "k", []byte("2"), first)
	require.NoError(t, err)
	_, err = kv.Update(ctx, "k", []byte("3"), first)
	require.ErrorIs(t, err, nats.ErrConflict)
	entry, err := kv.Get(ctx, "k")
	require.NoError(t, err)
	assert.Equal(t, "2", string(entry.Value()))
	require.NoError(t, kv.Delete(ctx, "k"))
	for _, want := range []string{"k=1", "k=2", "-k"} {
		assert.Equal(t, want, update(t, w))
	}
	assert.Empty(t, slices.Collect(func(yield func(string) bool) {
		for key, err := range kv.Keys(ctx) {
			require.NoError(t, err)
			yield(key)
		}
	}))
}

// A cluster without a majority makes no consumers. What a bucket of its own on the last server takes,
// its watchers get all the same, and they say that there may be more.
func TestKeyValueWatchWithoutAMajority(t *testing.T) {
	t.Parallel()
	servers := natstest.RunCluster(t, 3).Servers()
	ctx := context.Background()
	other := connect(t, servers[0], nil)
	newKeys(t, other, "conf")
	info, err := other.GetStreamInfo(ctx, "KV_conf")
	require.NoError(t, err)
	last := slices.IndexFunc(servers, func(s *natstest.Server) bool { return s.Embedded().Name() == info.Cluster.Leader })
	proxy := natstest.NewProxy(t, servers[last].URL())
	client := connect(t, servers[last], func(c *nats.Config) { c.URLs = []string{proxy.URL()} })
	other = connect(t, servers[last], nil)
	kv, err := other.GetKeyValue(ctx, "conf")
	require.NoError(t, err)
	mine, err := client.GetKeyValue(ctx, "conf")
	require.NoError(t, err)
	put(t, kv, "k", "1")
	w, err := mine.WatchAll(ctx)
	require.NoError(t, err)
	assert.Equal(t, "k=1", update(t, w))
	assert.Equal(t, "nil", update(t, w))
	for i, s := range servers {
		if i != last {
			s.Stop()
		}
	}
	proxy.Cut()
	proxy.Restore() // the watcher needs a new consumer
	for _, value := range []string{"2", "3", "4"} {
		put(t, kv, "k", value)
		assert.Equal(t, "k="+value, update(t, w))
	}
	require.NoError(t, kv.Delete(ctx, "k"))
	assert.Equal(t, "-k", update(t, w))
	assert.True(t, w.Stale())
	for i, s := range servers {
		if i != last {
			s.Restart()
		}
	}
	require.Eventually(t, func() bool { return !w.Stale() }, 3*patience, 10*time.Millisecond, "the cluster elects, which takes it a while")
	put(t, kv, "k", "5")
	assert.Equal(t, "k=5", update(t, w))
}
