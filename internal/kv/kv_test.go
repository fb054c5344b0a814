package kv_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/kv"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lifecycle"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/publish"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for a state that is sure to come.
const patience = time.Minute

// told records what the buckets report.
type told struct{ conntest.Words }

func (r *told) Stale(keys string, _ error)     { r.Say("stale", keys) }
func (r *told) Fresh(keys string)              { r.Say("fresh", keys) }
func (r *told) Blind(bucket string, err error) { r.Say("blind in", bucket, err.Error()) }

// newBucket returns a bucket "b", the JetStream that it is in, and what is reported of it.
func newBucket(t *testing.T, opts ...natstest.Option) (*kv.Bucket, jetstream.JetStream, *told) {
	t.Helper()
	return newBucketOf(t, natstest.RunServer(t, opts...))
}

func newBucketOf(t *testing.T, s *natstest.Server) (*kv.Bucket, jetstream.JetStream, *told) {
	t.Helper()
	return open(t, s, jsapi.Options{})
}

// open makes the bucket, if it is not there.
func open(t *testing.T, s *natstest.Server, o jsapi.Options) (*kv.Bucket, jetstream.JetStream, *told) {
	t.Helper()
	o.Timeout = patience
	api, err := jsapi.New(conntest.Open(t, s.URL(), nil), o)
	require.NoError(t, err)
	asked := time.Now()
	stream, err := api.JetStream().CreateStream(context.Background(), bucketStream())
	require.NoError(t, err)
	life := lifecycle.New()
	t.Cleanup(life.End)
	r := &told{}
	buckets := kv.New(api, publish.New(life.Context(), api, patience), life, patience, r)
	return buckets.Open(stream.CachedInfo(), asked), api.JetStream(), r
}

func bucketStream() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: kv.StreamPrefix + "b", Subjects: []string{"$KV.b.>"}, MaxMsgsPerSubject: 5, MaxAge: time.Hour,
		AllowDirect: true, AllowRollup: true, DenyDelete: true,
	}
}

// A key through every door.
func TestBucket(t *testing.T) {
	t.Parallel()
	b, _, _ := newBucket(t)
	ctx := context.Background()
	assert.Equal(t, "b", b.Name())
	assert.Empty(t, b.Origin())
	age, err := b.MaxAge(ctx)
	require.NoError(t, err)
	assert.Equal(t, time.Hour, age)
	assert.Empty(t, b.Fault("a.b-c/d=e_F", false))
	assert.NotEmpty(t, b.Fault("a.*", false))
	assert.Empty(t, b.Fault("a.*", true))

	first, err := b.Create(ctx, "x", []byte("1"), 0)
	require.NoError(t, err)
	_, err = b.Create(ctx, "x", []byte("2"), 0)
	require.ErrorIs(t, err, jetstream.ErrKeyExists)
	second, err := b.Modify(ctx, "x", 0, func(old []byte) ([]byte, error) { return append(old, '2'), nil })
	require.NoError(t, err)
	_, err = b.Write(ctx, "x", nil, kv.Write{Expect: true, Revision: first})
	var conflict *kv.ConflictError
	require.ErrorAs(t, err, &conflict)
	assert.Equal(t, []uint64{first, second}, []uint64{conflict.Expected, conflict.Revision})
	err = b.Wrap("put key", "x", err)
	require.ErrorIs(t, err, fault.ErrConflict)
	assert.Equal(t, 1, strings.Count(err.Error(), fault.ErrConflict.Error()), err)

	got, err := b.Get(ctx, "x", 0)
	require.NoError(t, err)
	assert.Equal(t, "12", string(got.Value()))
	got, err = b.Get(ctx, "x", first)
	require.NoError(t, err)
	assert.Equal(t, "1", string(got.Value()))
	_, err = b.Get(ctx, "y", first) // it is of another key
	require.ErrorIs(t, err, jetstream.ErrKeyNotFound)

	_, err = b.Write(ctx, "gone", nil, kv.Write{Op: jetstream.KeyValueDelete})
	require.NoError(t, err)
	got, err = b.Latest(ctx, "gone")
	require.NoError(t, err)
	assert.Equal(t, jetstream.KeyValueDelete, got.Operation())
	many, err := b.Many(ctx, []string{"x", "gone", "never"})
	require.NoError(t, err)
	assert.Len(t, many, 1)
	lister, err := b.List(ctx, nil, kv.Watch{})
	require.NoError(t, err)
	assert.Equal(t, "x", <-lister.Keys())
	assert.Empty(t, <-lister.Keys())

	require.NoError(t, b.PurgeDeletes(ctx, -1))
	var present []string
	for entry, err := range b.Present(ctx, nil, kv.Watch{History: true}) {
		require.NoError(t, err)
		present = append(present, entry.Key()+" "+string(entry.Value()))
	}
	assert.Equal(t, []string{"x 1", "x 12"}, present)
}

// What is followed is in memory as soon as a write is.
func TestCache(t *testing.T) {
	t.Parallel()
	b, _, _ := newBucket(t)
	ctx := context.Background()
	_, err := b.Write(ctx, "x", []byte("1"), kv.Write{})
	require.NoError(t, err)
	cache, err := b.Cache(ctx, nil)
	require.NoError(t, err)
	assert.Equal(t, 1, cache.Len())
	revision, err := b.Write(ctx, "x", []byte("2"), kv.Write{})
	require.NoError(t, err)
	require.NoError(t, cache.WaitFor(ctx, revision))
	got, err := cache.Get("x")
	require.NoError(t, err)
	assert.Equal(t, "2", string(got.Value()))
	assert.False(t, cache.Stale())
	cache.Close()
	assert.True(t, cache.Stale())
	require.ErrorIs(t, cache.WaitFor(ctx, revision+1), fault.ErrClosed)
}

// A bucket that goes and comes again is told, and what it has is handed out.
func TestStaleAndFresh(t *testing.T) {
	t.Parallel()
	b, js, r := newBucket(t)
	ctx := context.Background()
	_, err := b.Write(ctx, "x", nil, kv.Write{})
	require.NoError(t, err)
	watcher, err := b.Watch(ctx, []string{"x"}, kv.Watch{})
	require.NoError(t, err)
	assert.Equal(t, "x", (<-watcher.Updates()).Key())
	assert.Nil(t, <-watcher.Updates())
	require.NoError(t, js.DeleteStream(ctx, kv.StreamPrefix+"b"))
	require.Eventually(t, watcher.Stale, patience, 10*time.Millisecond)
	_, err = js.CreateStream(ctx, bucketStream())
	require.NoError(t, err)
	gone := <-watcher.Updates()
	assert.Equal(t, jetstream.KeyValueDelete, gone.Operation())
	assert.Zero(t, gone.Revision())
	require.Eventually(t, func() bool { return !watcher.Stale() }, patience, 10*time.Millisecond)
	require.NoError(t, watcher.Stop())
	for range watcher.Updates() {
		t.Error("an update")
	}
	said := r.Said()
	require.NotEmpty(t, said)
	assert.Contains(t, said[0], "stale b/x")
	assert.Equal(t, "fresh b/x", said[len(said)-1])
}

// user lets everybody be one who may not publish to some subjects.
func user(denied ...string) natstest.Option {
	return natstest.WithConfig(func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: denied},
		}}}
		o.NoAuthUser = "u"
	})
}

// Who may not pull, or whose bucket goes, hears it from Cache, whose context is that of a life.
func TestCacheThatCannotLoad(t *testing.T) {
	t.Parallel()
	b, _, _ := newBucket(t, user("$JS.API.CONSUMER.MSG.NEXT.>"))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err := b.Write(ctx, "x", nil, kv.Write{})
	require.NoError(t, err)
	_, err = b.Cache(ctx, nil)
	require.ErrorIs(t, err, natsgo.ErrPermissionViolation)
	require.NotErrorIs(t, err, context.DeadlineExceeded)
}

// What was asked of a bucket says nothing of the one that takes its place.
func TestReplacedWhileItIsAsked(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	asked, answer := make(chan struct{}), make(chan struct{})
	var polls atomic.Int64
	var once sync.Once
	conntest.Forward(t, s.URL(), func(nc *natsgo.Conn, m *natsgo.Msg) bool {
		switch {
		case !strings.HasPrefix(m.Subject, "$JS.API.STREAM.INFO."):
		case !strings.Contains(string(m.Data), "subjects_filter"):
			polls.Add(1)
		default:
			once.Do(func() {
				found, err := nc.Request(m.Subject, m.Data, patience)
				assert.NoError(t, err)
				close(asked)
				go func() {
					<-answer
					assert.NoError(t, nc.Publish(m.Reply, found.Data))
				}()
			})
			return false
		}
		return true
	})
	near := conntest.Raw(t, s.URL())
	js, err := jetstream.New(near)
	require.NoError(t, err)
	ctx := t.Context()
	stream, err := js.CreateStream(ctx, bucketStream())
	require.NoError(t, err)
	const n = 10
	for i := range n {
		_, err := js.Publish(ctx, fmt.Sprint("$KV.b.old", i), nil)
		require.NoError(t, err)
	}
	b, _, _ := open(t, s, jsapi.Options{Prefix: conntest.ForwardPrefix})
	watcher, err := b.Watch(ctx, nil, kv.Watch{})
	require.NoError(t, err)
	for range n {
		require.NotNil(t, <-watcher.Updates())
	}
	require.Nil(t, <-watcher.Updates())
	require.NoError(t, stream.Purge(ctx, jetstream.WithPurgeSubject("$KV.b.old0")))
	<-asked
	require.NoError(t, js.DeleteStream(ctx, kv.StreamPrefix+"b"))
	require.Eventually(t, func() bool { // the server is still removing the files
		_, err := js.CreateStream(ctx, bucketStream())
		return err == nil
	}, patience, 10*time.Millisecond)
	_, err = js.Publish(ctx, "$KV.b.new", nil)
	require.NoError(t, err)
	assert.Equal(t, "new", (<-watcher.Updates()).Key())
	for range n {
		assert.Equal(t, jetstream.KeyValueDelete, (<-watcher.Updates()).Operation())
	}
	before := polls.Load()
	close(answer)
	require.Eventually(t, func() bool { return polls.Load() > before }, patience, 10*time.Millisecond) // the answer was taken
	_, err = js.Publish(ctx, "$KV.b.newer", nil)
	require.NoError(t, err)
	assert.Equal(t, "newer", (<-watcher.Updates()).Key(), "nothing else is gone")
}

// A key that is purged after its watcher has read it, and before anybody has asked how many there are, is gone as well.
func TestPurgedBeforeTheFirstQuestion(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	b, js, _ := newBucketOf(t, s)
	ctx := t.Context()
	for _, key := range []string{"x", "y"} {
		_, err := b.Write(ctx, key, nil, kv.Write{})
		require.NoError(t, err)
	}
	stream, err := js.Stream(ctx, kv.StreamPrefix+"b")
	require.NoError(t, err)
	read := make(chan struct{})
	var once sync.Once
	conntest.Forward(t, s.URL(), func(nc *natsgo.Conn, m *natsgo.Msg) (pass bool) {
		pass = true
		if strings.HasPrefix(m.Subject, "$JS.API.STREAM.INFO.") {
			once.Do(func() {
				pass = false
				go func() {
					<-read
					assert.NoError(t, stream.Purge(ctx, jetstream.WithPurgeSubject("$KV.b.x")))
					m.Sub = nil
					assert.NoError(t, nc.PublishMsg(m))
				}()
			})
		}
		return pass
	})
	b, _, _ = open(t, s, jsapi.Options{Prefix: conntest.ForwardPrefix})
	watcher, err := b.Watch(ctx, nil, kv.Watch{})
	require.NoError(t, err)
	for range 2 {
		require.NotNil(t, <-watcher.Updates())
	}
	require.Nil(t, <-watcher.Updates())
	close(read)
	gone := <-watcher.Updates()
	assert.Equal(t, "x", gone.Key())
	assert.Equal(t, jetstream.KeyValueDelete, gone.Operation())
}

// A key that is written all the time is there all the same.
func TestPresentWhileKeysAreWritten(t *testing.T) {
	t.Parallel()
	b, js, _ := newBucket(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cfg := bucketStream()
	cfg.MaxMsgsPerSubject = 1
	_, err := js.UpdateStream(ctx, cfg)
	require.NoError(t, err)
	const n = 1000
	for i := range n {
		_, err := js.PublishAsync(fmt.Sprint("$KV.b.k", i), nil)
		require.NoError(t, err)
	}
	<-js.PublishAsyncComplete()
	writing, stop := context.WithCancel(ctx)
	var written sync.WaitGroup
	for i := range 3 {
		written.Go(func() {
			for writing.Err() == nil {
				_, _ = js.Publish(writing, fmt.Sprint("$KV.b.k", i*n/3), nil)
			}
		})
	}
	for range 20 {
		seen := make(map[string]bool)
		for entry, err := range b.Present(ctx, nil, kv.Watch{}) {
			require.NoError(t, err)
			seen[entry.Key()] = true
		}
		require.Equal(t, n, len(seen)) //nolint:testifylint // Len shows them all
		cache, err := b.Cache(ctx, nil)
		require.NoError(t, err)
		require.Equal(t, n, cache.Len())
		cache.Close()
	}
	stop()
	written.Wait()
}

// What is passed over shows that the server is there, however much of it there is.
func TestPresentBehindManyDeletions(t *testing.T) {
	t.Parallel()
	const timeout = 4 * time.Second
	s := natstest.RunServer(t)
	_, js, _ := newBucketOf(t, s)
	for i := range 500 {
		_, err := js.PublishMsgAsync(&natsgo.Msg{Subject: fmt.Sprint("$KV.b.k", i), Header: natsgo.Header{"KV-Operation": {"DEL"}}})
		require.NoError(t, err)
	}
	_, err := js.PublishAsync("$KV.b.last", nil)
	require.NoError(t, err)
	<-js.PublishAsyncComplete()
	proxy := natstest.NewProxy(t, s.URL())
	api, err := jsapi.New(conntest.Open(t, proxy.URL(), nil), jsapi.Options{Timeout: patience})
	require.NoError(t, err)
	info, err := api.StreamInfo(t.Context(), kv.StreamPrefix+"b")
	require.NoError(t, err)
	life := lifecycle.New()
	t.Cleanup(life.End)
	b := kv.New(api, publish.New(life.Context(), api, patience), life, timeout, &told{}).Open(info, time.Now())
	proxy.Throttle(10 << 10)
	begun, seen := time.Now(), 0
	for entry, err := range b.Present(t.Context(), nil, kv.Watch{IgnoreDeletes: true}) {
		require.NoError(t, err)
		assert.Equal(t, "last", entry.Key())
		seen++
	}
	assert.Equal(t, 1, seen)
	assert.Greater(t, time.Since(begun), timeout)
}

// Who may not ask for the state of a bucket follows it all the same; that a purge of it goes unnoticed is told, once, and
// is over when the right is given.
func TestBlind(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t, user("$JS.API.STREAM.INFO.>"))
	b, js, r := newBucketOf(t, s)
	ctx := context.Background()
	_, err := b.Write(ctx, "x", nil, kv.Write{})
	require.NoError(t, err)
	cache, err := b.Cache(ctx, nil)
	require.NoError(t, err)
	defer cache.Close()
	require.Eventually(t, func() bool { return len(r.Said()) > 0 }, patience, 50*time.Millisecond)
	assert.Contains(t, r.Said()[0], "blind in b")
	s.Restart(user())
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(ctx, time.Second) // upstream waits for the answer to what the restart has lost
		defer cancel()
		stream, err := js.Stream(ctx, kv.StreamPrefix+"b")
		return err == nil && stream.Purge(ctx) == nil
	}, patience, 50*time.Millisecond)
	require.Eventually(t, func() bool { return cache.Len() == 0 }, patience, 50*time.Millisecond)
}

// What is purged right after a follower has begun is known, too, however long its handle has been there.
func TestPurgeAtTheBeginning(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	ctx := context.Background()
	first, _, _ := newBucketOf(t, s)
	_, err := first.Write(ctx, "old", nil, kv.Write{})
	require.NoError(t, err)
	b, js, _ := newBucketOf(t, s)
	for _, key := range []string{"x", "y", "z"} {
		_, err := b.Write(ctx, key, nil, kv.Write{})
		require.NoError(t, err)
	}
	asked := make(chan struct{}, 100)
	_, err = js.Conn().Subscribe("$JS.API.STREAM.INFO."+kv.StreamPrefix+"b", func(*natsgo.Msg) { asked <- struct{}{} })
	require.NoError(t, err)
	cache, err := b.Cache(ctx, nil)
	require.NoError(t, err)
	defer cache.Close()
	require.Equal(t, 4, cache.Len())
	select {
	case <-asked:
	case <-time.After(2 * time.Second): // before it is asked again
		require.Fail(t, "it does not ask at the beginning")
	}
	stream, err := js.Stream(ctx, kv.StreamPrefix+"b")
	require.NoError(t, err)
	require.NoError(t, stream.Purge(ctx, jetstream.WithPurgeSubject("$KV.b.y")))
	require.Eventually(t, func() bool { return cache.Len() == 3 }, patience, 50*time.Millisecond)
}

// In a full bucket a value takes the place of the key's own, where it is no larger, and a deletion goes always.
func TestFull(t *testing.T) {
	t.Parallel()
	b, js, _ := newBucket(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cfg := bucketStream()
	cfg.MaxBytes, cfg.Discard = 4000, jetstream.DiscardNew
	_, err := js.UpdateStream(ctx, cfg)
	require.NoError(t, err)
	var last uint64
	for range 3 {
		last, err = b.Write(ctx, "old", []byte("1234567890"), kv.Write{})
		require.NoError(t, err)
	}
	for n := 0; err == nil; n++ {
		_, err = b.Write(ctx, fmt.Sprint("k", n), []byte("1234567890"), kv.Write{})
	}
	require.ErrorIs(t, err, fault.ErrStreamFull)
	_, err = b.Write(ctx, "old", []byte("12345678901"), kv.Write{})
	require.ErrorIs(t, err, fault.ErrStreamFull, "a larger one")
	_, err = b.Write(ctx, "old", []byte("123456789"), kv.Write{Expect: true, Revision: last + 1})
	var conflict *kv.ConflictError
	require.ErrorAs(t, err, &conflict)
	assert.Equal(t, []uint64{last + 1, last}, []uint64{conflict.Expected, conflict.Revision})
	history := func() (values []string) {
		for entry, err := range b.Present(ctx, []string{"old"}, kv.Watch{History: true}) {
			require.NoError(t, err)
			values = append(values, string(entry.Value()))
		}
		return values
	}
	assert.Len(t, history(), 3, "nothing is touched in vain")
	revision, err := b.Write(ctx, "old", []byte("123456789"), kv.Write{Expect: true, Revision: last})
	require.NoError(t, err)
	assert.Greater(t, revision, last)
	values := history()
	assert.Less(t, len(values), 4, "the oldest makes room")
	assert.Equal(t, "123456789", values[len(values)-1])

	revision, err = b.Write(ctx, "never", nil, kv.Write{Op: jetstream.KeyValueDelete})
	require.NoError(t, err)
	assert.Zero(t, revision)
	for n, op := range []jetstream.KeyValueOp{jetstream.KeyValueDelete, jetstream.KeyValuePurge} {
		key := fmt.Sprint("k", n)
		entry, err := b.Latest(ctx, key)
		require.NoError(t, err)
		_, err = b.Write(ctx, key, nil, kv.Write{Op: op, Expect: true, Revision: entry.Revision()})
		require.NoError(t, err)
		_, err = b.Get(ctx, key, 0)
		require.ErrorIs(t, err, jetstream.ErrKeyNotFound)
	}
}
