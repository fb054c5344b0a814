package lease_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/kv"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lease"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lifecycle"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/publish"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for a state that is sure to come.
const patience = time.Minute

// told records what leases report.
type told struct{ conntest.Words }

func (r *told) Unrenewed(key string, err error) { r.Say("unrenewed", key+":", err.Error()) }
func (r *told) Lost(key string, err error)      { r.Say("lost", key+":", err.Error()) }
func (r *told) Deposed(key string, err error)   { r.Say("deposed", key+":", err.Error()) }

// house is a client with leases, and the bucket that they are in.
type house struct {
	*lease.Leases
	bucket *kv.Bucket
	stream jetstream.Stream
	js     jetstream.JetStream
	life   *lifecycle.Life
	told   *told
	proxy  *natstest.Proxy // before the server
	near   *natsgo.Conn    // not behind it
	up     func() bool
}

func newHouse(t *testing.T) *house {
	t.Helper()
	return newHouseOf(t, natstest.RunServer(t), jsapi.Options{})
}

func newHouseOf(t *testing.T, s *natstest.Server, o jsapi.Options) *house {
	t.Helper()
	near := conntest.Raw(t, s.URL())
	proxy := natstest.NewProxy(t, s.URL())
	o.Timeout = patience
	api, err := jsapi.New(conntest.Open(t, proxy.URL(), func(o *conn.Options) { o.RequestTimeout = patience }), o)
	require.NoError(t, err)
	h := &house{js: api.JetStream(), life: lifecycle.New(), told: &told{}, proxy: proxy, near: near, up: api.Conn().IsUp}
	t.Cleanup(h.life.End)
	asked := time.Now()
	h.stream, err = h.js.CreateStream(context.Background(), jetstream.StreamConfig{
		Name: kv.StreamPrefix + "b", Subjects: []string{"$KV.b.>"}, MaxMsgsPerSubject: 1, AllowDirect: true, AllowRollup: true,
		AllowMsgTTL: true, SubjectDeleteMarkerTTL: time.Minute,
	})
	require.NoError(t, err)
	buckets := kv.New(api, publish.New(h.life.Context(), api, patience), h.life, patience, nil)
	h.bucket = buckets.Open(h.stream.CachedInfo(), asked)
	h.Leases = lease.New(h.life, h.up, "holder", h.told)
	return h
}

// update changes the stream of the bucket.
func (h *house) update(t *testing.T, change func(*jetstream.StreamConfig)) {
	t.Helper()
	cfg := h.stream.CachedInfo().Config
	change(&cfg)
	_, err := h.js.UpdateStream(context.Background(), cfg)
	require.NoError(t, err)
}

var within = conntest.Within

// lost waits until a lease is lost, and returns why.
func lost(t *testing.T, l *lease.Lease) error {
	t.Helper()
	select {
	case <-l.Context().Done():
	case <-time.After(patience):
		t.Fatal("the lease is not lost")
	}
	err := context.Cause(l.Context())
	require.ErrorIs(t, err, fault.ErrLockLost)
	return err
}

// One holds the key, and the next one gets it when it is given up.
func TestLease(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	first, err := h.Acquire(within(t, patience), h.bucket, "k", time.Minute)
	require.NoError(t, err)
	_, err = h.Acquire(within(t, 50*time.Millisecond), h.bucket, "k", time.Minute)
	require.ErrorIs(t, err, fault.ErrTimeout)
	require.ErrorContains(t, err, `lock "b/k"`)
	entry, err := h.bucket.Latest(context.Background(), "k")
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(string(entry.Value()), "holder "))
	next := make(chan *lease.Lease)
	go func() {
		l, err := h.Acquire(within(t, patience), h.bucket, "k", time.Minute)
		assert.NoError(t, err)
		next <- l
	}()
	require.NoError(t, first.Context().Err())
	require.NoError(t, first.Release(within(t, patience)))
	require.NoError(t, first.Release(within(t, patience)))
	require.ErrorIs(t, first.Context().Err(), context.Canceled)
	second := <-next
	assert.Greater(t, second.Token(), first.Token())
	_, err = h.bucket.Write(within(t, patience), "k", []byte("by force"), kv.Write{})
	require.NoError(t, err)
	require.ErrorIs(t, second.Release(within(t, patience)), fault.ErrLockLost)
	assert.Equal(t, 1, strings.Count(strings.Join(h.told.Said(), "\n"), "lost b/k"))
}

// isFree tells whether nobody holds a key.
func (h *house) isFree(t *testing.T, key string) bool {
	t.Helper()
	js, err := jetstream.New(h.near)
	require.NoError(t, err)
	stream, err := js.Stream(context.Background(), kv.StreamPrefix+"b")
	require.NoError(t, err)
	m, err := stream.GetLastMsgForSubject(context.Background(), "$KV.b."+key)
	return errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && m.Header.Get("KV-Operation") != ""
}

// taken returns a channel that tells when the server gets the take of a key, whose answer is far behind.
func (h *house) taken(t *testing.T, key string) <-chan *natsgo.Msg {
	t.Helper()
	takes := make(chan *natsgo.Msg, 64)
	_, err := h.near.ChanSubscribe("$KV.b."+key, takes)
	require.NoError(t, err)
	require.NoError(t, h.near.Flush())
	h.proxy.Delay(time.Second)
	return takes
}

// A take whose answer its caller does not wait for holds nothing.
func TestTakeIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	takes := h.taken(t, "k")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-takes
		cancel()
	}()
	l, err := h.Acquire(ctx, h.bucket, "k", time.Hour)
	if err == nil { // this machine was slower than the answer
		require.NoError(t, l.Release(within(t, patience)))
		return
	}
	require.ErrorIs(t, err, context.Canceled)
	h.proxy.Restore()
	require.Eventually(t, func() bool { return h.isFree(t, "k") }, patience, 10*time.Millisecond)
	next, err := h.Acquire(within(t, patience), h.bucket, "k", time.Hour)
	require.NoError(t, err)
	require.NoError(t, next.Release(within(t, patience)))
}

// Who does not wait for the end of a renewal has given the lease up all the same, before the client is closed.
func TestReleaseDuringARenewal(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	l, err := h.Acquire(within(t, patience), h.bucket, "k", 9*time.Second)
	require.NoError(t, err)
	writes := h.taken(t, "k")
	<-writes // the renewal
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err = l.Release(ctx)
	h.proxy.Restore()
	if err != nil { // else this machine was slower than the renewal
		require.ErrorIs(t, err, context.Canceled)
		_, err = h.life.Close(within(t, patience), func(context.Context) {}, func(context.Context) {})
		require.NoError(t, err)
	}
	require.True(t, h.isFree(t, "k"))
}

// What is taken while the client is closed is given back before it is.
func TestCloseWhileTaking(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	takes := h.taken(t, "k")
	closed := make(chan error)
	go func() {
		<-takes
		_, err := h.life.Close(within(t, patience), func(context.Context) {}, func(context.Context) {})
		closed <- err
	}()
	_, err := h.Acquire(within(t, patience), h.bucket, "k", time.Hour)
	require.NoError(t, <-closed)
	if err == nil { // this machine was slower than the answer
		return
	}
	require.ErrorIs(t, err, fault.ErrClosed)
	require.True(t, h.isFree(t, "k"))
}

// Close does not wait for who waits for the connection.
func TestCloseWhileAway(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.proxy.Cut()
	require.Eventually(t, func() bool { return !h.up() }, patience, time.Millisecond)
	ended := make(chan error)
	go func() {
		ended <- h.Lead(context.Background(), h.bucket, "k", time.Minute, func(context.Context, uint64) error { return nil })
	}()
	ctx := within(t, patience)
	_, err := h.life.Close(ctx, func(context.Context) { time.Sleep(100 * time.Millisecond) }, func(context.Context) {})
	require.NoError(t, err)
	require.NoError(t, ctx.Err())
	require.ErrorIs(t, <-ended, fault.ErrClosed)
}

// A bucket that begins to delete its values before the lease is over takes it away, while the holder could still
// renew it.
func TestBucketsTTLIsLowered(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	l, err := h.Acquire(within(t, patience), h.bucket, "k", 6*time.Second)
	require.NoError(t, err)
	h.update(t, func(cfg *jetstream.StreamConfig) { cfg.MaxAge, cfg.Duplicates = 5*time.Second, time.Second })
	err = lost(t, l)
	require.ErrorIs(t, err, fault.ErrInvalidArgument)
	require.ErrorContains(t, err, "5s")
	require.ErrorIs(t, l.Release(within(t, patience)), fault.ErrLockLost)
	_, err = h.Acquire(within(t, patience), h.bucket, "another", 6*time.Second)
	require.ErrorIs(t, err, fault.ErrInvalidArgument)
}

// A renewal that fails is tried again, until the lease is over.
func TestRenewalFails(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	l, err := h.Acquire(within(t, patience), h.bucket, "k", 3*time.Second)
	require.NoError(t, err)
	h.update(t, func(cfg *jetstream.StreamConfig) {
		cfg.Sealed, cfg.AllowRollup, cfg.DenyDelete, cfg.DenyPurge = true, false, true, true
	})
	require.ErrorContains(t, lost(t, l), "could not be renewed in time")
	assert.Contains(t, strings.Join(h.told.Said(), "\n"), "unrenewed b/k: renew lock")
	require.ErrorIs(t, l.Release(within(t, patience)), fault.ErrLockLost)
	require.Eventually(t, func() bool { return strings.Contains(strings.Join(h.told.Said(), "\n"), "\nlost b/k") }, patience, time.Millisecond)
	assert.Equal(t, 1, strings.Count(strings.Join(h.told.Said(), "\n"), "lost b/k"))
}

// A leader that was deposed is elected again, and gives up what it holds however its function ends.
func TestLead(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	failure := errors.New("failure")
	var terms []uint64
	err := h.Lead(within(t, patience), h.bucket, "k", 3*time.Second, func(ctx context.Context, token uint64) error {
		if terms = append(terms, token); len(terms) > 1 {
			return failure
		}
		_, err := h.bucket.Write(ctx, "k", nil, kv.Write{Op: jetstream.KeyValuePurge})
		require.NoError(t, err)
		<-ctx.Done()
		require.ErrorIs(t, context.Cause(ctx), fault.ErrLockLost)
		return ctx.Err()
	})
	assert.Equal(t, failure, err)
	assert.Len(t, terms, 2)
	assert.IsIncreasing(t, terms)
	assert.Contains(t, strings.Join(h.told.Said(), "\n"), "deposed b/k")
	assert.PanicsWithValue(t, "panic", func() {
		_ = h.Lead(within(t, patience), h.bucket, "k", time.Minute, func(context.Context, uint64) error { panic("panic") })
	})
	leading := make(chan struct{})
	ended := make(chan error)
	go func() {
		ended <- h.Lead(context.Background(), h.bucket, "k", time.Minute, func(ctx context.Context, _ uint64) error {
			close(leading)
			<-ctx.Done()
			return ctx.Err()
		})
	}()
	<-leading
	_, err = h.life.Close(within(t, patience), func(context.Context) {}, func(context.Context) {})
	require.NoError(t, err)
	require.ErrorIs(t, <-ended, fault.ErrClosed)
	entry, err := h.bucket.Latest(within(t, patience), "k")
	require.NoError(t, err)
	assert.NotEqual(t, jetstream.KeyValuePut, entry.Operation(), "it is given up before the client is closed")
}

// Who waits for a lease goes on asking for it where the server makes no consumer for him.
func TestWaiterWithoutAWatcher(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	wanted := make(chan struct{}, 64)
	conntest.Forward(t, s.URL(), func(_ *natsgo.Conn, m *natsgo.Msg) bool {
		if !strings.HasPrefix(m.Subject, "$JS.API.CONSUMER.CREATE.") {
			return true
		}
		select {
		case wanted <- struct{}{}:
		default:
		}
		return false
	})
	h := newHouseOf(t, s, jsapi.Options{Prefix: conntest.ForwardPrefix})
	first, err := h.Acquire(within(t, patience), h.bucket, "k", time.Hour)
	require.NoError(t, err)
	next := make(chan error)
	go func() {
		second, err := h.Acquire(within(t, patience), h.bucket, "k", time.Hour)
		if err == nil {
			err = second.Release(within(t, patience))
		}
		next <- err
	}()
	<-wanted
	require.NoError(t, first.Release(within(t, patience)))
	require.NoError(t, <-next)
}

// A lease that could not be given up in time is given up when that is possible, and a second call waits for nothing.
func TestReleaseWhileAway(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	l, err := h.Acquire(within(t, patience), h.bucket, "k", time.Hour)
	require.NoError(t, err)
	h.proxy.Cut()
	require.Eventually(t, func() bool { return !h.up() }, patience, time.Millisecond)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	released := make(chan error)
	go func() { released <- l.Release(ctx) }()
	<-l.Context().Done()
	require.NoError(t, l.Release(within(t, patience)))
	select {
	case err := <-released:
		require.Fail(t, "it was waited for", err)
	default:
	}
	cancel()
	require.ErrorIs(t, <-released, context.Canceled)
	h.proxy.Restore()
	require.Eventually(t, func() bool { return h.isFree(t, "k") }, patience, 10*time.Millisecond)
}

// A leader whose context has ended does not wait for a server that is silent.
func TestLeadOfASilentServer(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ctx, cancel := context.WithCancel(context.Background())
	begun := time.Now()
	err := h.Lead(ctx, h.bucket, "k", time.Hour, func(ctx context.Context, _ uint64) error {
		h.proxy.BlackHole()
		cancel()
		<-ctx.Done()
		return ctx.Err()
	})
	require.ErrorIs(t, err, context.Canceled)
	assert.Less(t, time.Since(begun), patience/2)
	h.proxy.Restore()
	require.Eventually(t, func() bool { return h.isFree(t, "k") }, patience, 10*time.Millisecond)
}
