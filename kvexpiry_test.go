package nats_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// mortalBucket makes a bucket whose stream the test shapes, as other clients do.
func mortalBucket(t testing.TB, client *nats.Client, shape func(*jetstream.StreamConfig)) *nats.KeyValue {
	t.Helper()
	cfg := jetstream.StreamConfig{
		Name: "KV_mortal", Subjects: []string{"$KV.mortal.>"}, MaxMsgsPerSubject: 1, AllowRollup: true, DenyDelete: true,
		AllowDirect: true, Discard: jetstream.DiscardNew, AllowMsgTTL: true, Storage: jetstream.MemoryStorage,
	}
	shape(&cfg)
	if cfg.MaxAge > 0 {
		cfg.Duplicates = min(cfg.MaxAge, 2*time.Minute)
	}
	_, err := client.JetStream().CreateOrUpdateStream(context.Background(), cfg)
	require.NoError(t, err)
	kv, err := client.GetKeyValue(context.Background(), "mortal")
	require.NoError(t, err)
	return kv
}

func cache(t testing.TB, kv *nats.KeyValue, filters ...string) *nats.KeyValueCache {
	t.Helper()
	c, err := kv.Cached(context.Background(), filters...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// putFor writes a key with a time to live.
func putFor(t testing.TB, client *nats.Client, key, ttl string) {
	t.Helper()
	m := natsgo.NewMsg("$KV.mortal." + key)
	if ttl != "" {
		m.Header.Set("Nats-TTL", ttl)
	}
	_, err := client.JetStream().PublishMsg(context.Background(), m)
	require.NoError(t, err)
}

// A cache has what Get returns, whatever makes a key expire.
func TestKeyValueCacheForgetsWhatExpires(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		age, marks time.Duration
		expire     []string // times to live of the keys that expire
		stay       []string
	}{
		"keys":           {expire: []string{"1s", "1"}, stay: []string{"1h", "never", ""}},
		"with marks":     {marks: time.Second, expire: []string{"1s"}, stay: []string{"1h", "never", ""}},
		"all":            {age: time.Second, expire: []string{"1s", "1h", ""}, stay: []string{"never", "NEVER"}},
		"all with marks": {age: time.Second, marks: time.Second, expire: []string{"1h", ""}, stay: []string{"never"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := natstest.RunServer(t)
			client := connect(t, s, nil)
			kv := mortalBucket(t, client, func(cfg *jetstream.StreamConfig) { cfg.MaxAge, cfg.SubjectDeleteMarkerTTL = test.age, test.marks })
			early := cache(t, kv)
			for i, ttl := range test.expire {
				putFor(t, client, fmt.Sprint("expires", i), ttl)
			}
			for i, ttl := range test.stay {
				putFor(t, client, fmt.Sprint("stays", i), ttl)
			}
			late := cache(t, kv)
			for i := range test.expire {
				key := fmt.Sprint("expires", i)
				eventually(t, key+" expires", func() bool {
					_, err := kv.Get(context.Background(), key)
					return errors.Is(err, nats.ErrKeyNotFound)
				})
			}
			for _, c := range []*nats.KeyValueCache{early, late} {
				eventually(t, "the cache forgets them", func() bool { return len(cached(c)) == len(test.stay) })
				for i := range test.stay {
					key := fmt.Sprint("stays", i)
					_, err := kv.Get(context.Background(), key)
					require.NoError(t, err)
					_, err = c.Get(key)
					require.NoError(t, err, "%s of %v", key, test.stay)
				}
				for i := range test.expire {
					_, err := c.Get(fmt.Sprint("expires", i))
					require.ErrorIs(t, err, nats.ErrKeyNotFound)
				}
				eventually(t, "and keeps nothing of them", func() bool { return c.Len() == len(test.stay) })
			}
		})
	}
}

// A bucket whose time to live is made shorter, or longer.
func TestKeyValueCacheOfATTLThatChanges(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	age := func(d time.Duration) *nats.KeyValue {
		return mortalBucket(t, client, func(cfg *jetstream.StreamConfig) { cfg.MaxAge = d })
	}
	kv := age(0)
	c := cache(t, kv)
	put(t, kv, "old", "1")
	eventually(t, "it is old", func() bool {
		e, err := c.Get("old")
		return err == nil && time.Since(e.Created()) > time.Second
	})
	age(time.Second)
	eventually(t, "the server forgets", func() bool {
		_, err := kv.Get(context.Background(), "old")
		return errors.Is(err, nats.ErrKeyNotFound)
	})
	eventually(t, "the cache, too", func() bool {
		_, err := c.Get("old")
		return errors.Is(err, nats.ErrKeyNotFound) || c.Stale()
	})
	age(time.Hour)
	put(t, kv, "new", "1")
	eventually(t, "it is kept for longer", func() bool {
		e, err := kv.Get(context.Background(), "new")
		require.NoError(t, err)
		_, err = c.Get("new")
		return err == nil && !c.Stale() && time.Since(e.Created()) > 4*time.Second
	})
}

// Nobody tells of a purge. One question for all that follow the bucket finds it out.
func TestKeyValueFollowersNoticeAPurge(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := within(t, 4*patience)
	kv := mortalBucket(t, client, func(*jetstream.StreamConfig) {})
	other, err := client.GetKeyValue(ctx, "mortal")
	require.NoError(t, err)
	for _, key := range []string{"a.1", "a.2", "b.1", "b.2"} {
		put(t, kv, key, "1")
	}
	var questions atomic.Int32
	_, err = client.Conn().Subscribe("$JS.API.STREAM.INFO.KV_mortal", func(*natsgo.Msg) { questions.Add(1) })
	require.NoError(t, err)
	all, some := cache(t, kv), cache(t, other, "a.*")
	for range 20 {
		cache(t, kv)
	}
	gone := make(chan string, 10)
	watcher, err := kv.WatchAll(ctx)
	require.NoError(t, err)
	for e := range watcher.Updates() {
		if e == nil { // it has the keys
			break
		}
	}
	go func() {
		defer close(gone)
		for e := range watcher.Updates() {
			if e != nil && e.Operation() != jetstream.KeyValuePut {
				gone <- e.Key()
			}
		}
	}()
	asked, begin := questions.Load(), time.Now()
	purge := func(opts ...jetstream.StreamPurgeOpt) {
		stream, err := client.JetStream().Stream(ctx, "KV_mortal")
		require.NoError(t, err)
		require.NoError(t, stream.Purge(ctx, opts...))
	}
	purge(jetstream.WithPurgeSubject("$KV.mortal.a.1"))
	assert.Equal(t, "a.1", <-gone)
	eventually(t, "a key is gone", func() bool { return len(cached(all)) == 3 && len(cached(some)) == 1 })
	assert.False(t, all.Stale())
	purge()
	for range 3 {
		<-gone
	}
	eventually(t, "all keys are gone", func() bool { return len(cached(all)) == 0 && len(cached(some)) == 0 })
	put(t, kv, "a.1", "2")
	eventually(t, "they go on", func() bool { return len(cached(all)) == 1 && len(cached(some)) == 1 })
	assert.Less(t, since(begin), 2*patience)
	seconds := int32(time.Since(begin)/time.Second) + 1
	assert.LessOrEqual(t, questions.Load()-asked, 2+seconds/2+3, "of the test, of the bucket, of the two sets of keys")
	require.NoError(t, watcher.Stop())
}

// A watcher knows the keys there are, and not those that there were.
func TestKeyValueWatcherForgetsWhatExpires(t *testing.T) { //nolint:paralleltest // it looks at the heap
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	kv := mortalBucket(t, client, func(cfg *jetstream.StreamConfig) { cfg.MaxAge = time.Second })
	ctx := within(t, 5*time.Minute)
	watcher, err := kv.WatchAll(ctx, jetstream.UpdatesOnly())
	require.NoError(t, err)
	var seen atomic.Int64 // a busy machine may let some expire before they are seen
	go func() {
		for range watcher.Updates() {
			seen.Add(1)
		}
	}()
	const rounds, each = 6, 20_000
	name := strings.Repeat("x", 200)
	heap := func() int64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return int64(stats.HeapAlloc)
	}
	var first int64
	for round := range rounds {
		for i := range each {
			_, err := client.PublishAsync(ctx, &nats.Message{Subject: fmt.Sprintf("$KV.mortal.%s.%d.%d", name, round, i)})
			require.NoError(t, err)
		}
		eventually(t, "they expire", func() bool {
			info, err := client.GetStreamInfo(context.Background(), "KV_mortal")
			return err == nil && info.State.Msgs == 0
		})
		if round == 0 {
			first = heap()
		}
	}
	eventually(t, "they are forgotten", func() bool { return heap()-first < each*int64(len(name)) })
	assert.Greater(t, seen.Load(), int64(rounds*each/2))
	require.NoError(t, watcher.Stop())
}

// What expires while it is waited for does not come, and is not waited for without end.
func TestKeyValueAllOfKeysThatExpire(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	kv := mortalBucket(t, client, func(cfg *jetstream.StreamConfig) { cfg.MaxAge = time.Second })
	for i := range 5000 {
		_, err := client.JetStream().PublishAsync(fmt.Sprint("$KV.mortal.", i), make([]byte, 1000), jetstream.WithStallWait(patience))
		require.NoError(t, err)
	}
	<-client.JetStream().PublishAsyncComplete()
	n := 0
	for _, err := range kv.All(within(t, patience)) {
		require.NoError(t, err)
		if n++; n == 1 {
			eventually(t, "they expire", func() bool {
				info, err := client.GetStreamInfo(context.Background(), "KV_mortal")
				return err == nil && info.State.Msgs == 0
			})
		}
	}
}
