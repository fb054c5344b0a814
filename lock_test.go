package nats_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// newLocks returns a bucket for locks.
func newLocks(t testing.TB, client *nats.Client) *nats.KeyValue {
	t.Helper()
	kv, err := client.EnsureKeyValue(context.Background(), "locks",
		nats.WithKeyTTLs(time.Minute), nats.WithKeyValueStorage(jetstream.MemoryStorage))
	require.NoError(t, err)
	return kv
}

func lock(t testing.TB, kv *nats.KeyValue, key string, ttl time.Duration) *nats.Lock {
	t.Helper()
	l, err := kv.Lock(within(t, patience), key, ttl)
	require.NoError(t, err)
	return l
}

func TestLock(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, other := connect(t, s, nil), connect(t, s, nil)
	kv, theirs := newLocks(t, client), newLocks(t, other)
	ctx := context.Background()
	type key struct{}
	first, err := kv.Lock(context.WithValue(within(t, patience), key{}, "value"), "k", 10*time.Second)
	require.NoError(t, err)
	assert.Equal(t, "value", first.Context().Value(key{}))
	require.NoError(t, first.Context().Err())
	_, err = theirs.Lock(within(t, 2*time.Second), "k", 10*time.Second)
	require.ErrorIs(t, err, nats.ErrTimeout)
	require.ErrorContains(t, err, "another one holds it")
	lock(t, theirs, "another", time.Second)

	const waiters = 5
	tokens := make(chan uint64, waiters)
	var holding sync.Mutex
	var waiting sync.WaitGroup
	for range waiters {
		waiting.Go(func() {
			l, err := theirs.Lock(within(t, patience), "k", 10*time.Second)
			if !assert.NoError(t, err) {
				tokens <- 0
				return
			}
			assert.True(t, holding.TryLock(), "one at a time")
			tokens <- l.Token()
			holding.Unlock()
			assert.NoError(t, l.Unlock(ctx))
		})
	}
	eventually(t, "they wait", func() bool { return consumers(t, client, "KV_locks") == waiters })
	require.NoError(t, first.Unlock(ctx))
	require.NoError(t, first.Unlock(ctx))
	require.ErrorIs(t, first.Context().Err(), context.Canceled)
	last := first.Token()
	for range waiters {
		token := <-tokens
		assert.Greater(t, token, last)
		last = token
	}
	waiting.Wait()
	eventually(t, "no consumers", func() bool { return consumers(t, client, "KV_locks") == 0 })
}

// A waiter hears of an Unlock from its watcher, sooner than it would ask.
// Of those who find a key free at the same time one gets it.
func TestLockOfManyAtOnce(t *testing.T) {
	t.Parallel()
	kv := newLocks(t, connect(t, natstest.RunServer(t), nil))
	var held atomic.Int64
	var asking sync.WaitGroup
	ctx := within(t, 2*time.Second)
	for range 20 {
		asking.Go(func() {
			if l, err := kv.Lock(ctx, "k", 10*time.Second); err == nil {
				held.Add(1)
				assert.NoError(t, l.Context().Err())
			}
		})
	}
	asking.Wait()
	assert.EqualValues(t, 1, held.Load())
}

func TestLockIsHandedOver(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, other := connect(t, s, nil), connect(t, s, nil)
	kv, theirs := newLocks(t, client), newLocks(t, other)
	best := time.Hour
	for range 8 { // the machine may be busy
		held := lock(t, kv, "k", time.Minute)
		got := make(chan time.Time)
		go func() {
			l, err := theirs.Lock(within(t, patience), "k", time.Minute)
			at := time.Now()
			if assert.NoError(t, err) {
				assert.NoError(t, l.Unlock(context.Background()))
			}
			got <- at
		}()
		eventually(t, "it waits", func() bool { return consumers(t, client, "KV_locks") == 1 })
		time.Sleep(20 * time.Millisecond) // some of the time to the next question
		begin := time.Now()
		require.NoError(t, held.Unlock(context.Background()))
		at := <-got
		best = min(best, at.Sub(begin)-stalls.Between(begin, at))
		eventually(t, "it waits no more", func() bool { return consumers(t, client, "KV_locks") == 0 })
	}
	assert.Less(t, best, 200*time.Millisecond)
}

func TestLockRefusals(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	kv := newLocks(t, client)
	ctx := context.Background()
	for _, ttl := range []time.Duration{0, -time.Second, 500 * time.Millisecond, 1500 * time.Millisecond} {
		_, err := kv.Lock(ctx, "k", ttl)
		require.ErrorIs(t, err, nats.ErrInvalidArgument, ttl)
	}
	_, err := kv.Lock(ctx, "a b", time.Second)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	_, err = kv.Lock(nil, "k", time.Second) //nolint:staticcheck // nil is what is tested
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	_, err = newKeys(t, client, "plain").Lock(ctx, "k", time.Second)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	require.ErrorContains(t, err, "WithKeyTTLs")
	require.ErrorIs(t, kv.Elect(ctx, "k", nil), nats.ErrInvalidArgument)
	require.ErrorIs(t, kv.Elect(ctx, "a b", func(context.Context) error { return nil }), nats.ErrInvalidArgument)
	require.NoError(t, client.DeleteKeyValue(ctx, "locks"))
	_, err = kv.Lock(ctx, "k", time.Second)
	require.ErrorIs(t, err, nats.ErrBucketNotFound)
	require.NoError(t, client.Close())
	_, err = kv.Lock(ctx, "k", time.Second)
	require.ErrorIs(t, err, nats.ErrClosed)
	require.ErrorIs(t, kv.Elect(ctx, "k", func(context.Context) error { return nil }), nats.ErrClosed)
}

// A lock outlasts its length, also over a restart, because it is renewed.
func TestLockIsRenewed(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, other := connect(t, s, nil), connect(t, s, nil)
	kv, err := client.CreateKeyValue(context.Background(), "locks", nats.WithKeyTTLs(time.Minute)) // in files
	require.NoError(t, err)
	l := lock(t, kv, "k", 6*time.Second)
	s.Restart()
	theirs, err := other.GetKeyValue(within(t, patience), "locks")
	require.NoError(t, err)
	_, err = theirs.Lock(within(t, 8*time.Second), "k", 2*time.Second)
	require.ErrorIs(t, err, nats.ErrTimeout)
	require.NoError(t, l.Context().Err())
	entry, err := kv.Get(context.Background(), "k")
	require.NoError(t, err)
	assert.Greater(t, entry.Revision(), l.Token())
	require.NoError(t, l.Unlock(context.Background()))
	require.NoError(t, lock(t, theirs, "k", 2*time.Second).Unlock(context.Background()))
}

// The lease ends for the holder before the server can give it to another one, who gets it within a
// second of its end.
func TestLockOfAHolderWhoIsCutOff(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	other := connect(t, s, nil)
	theirs := newLocks(t, other)
	const ttl = 2 * time.Second
	var mu sync.Mutex
	best := time.Hour
	var rounds sync.WaitGroup
	for i := range 5 { // at once: the machine may be busy
		rounds.Go(func() {
			key := fmt.Sprint("k", i)
			client, proxy := through(t, s)
			kv, err := client.GetKeyValue(within(t, patience), "locks")
			if !assert.NoError(t, err) {
				return
			}
			held, err := kv.Lock(within(t, patience), key, ttl)
			if !assert.NoError(t, err) {
				return
			}
			time.Sleep(time.Duration(i) * 300 * time.Millisecond) // somewhere between two renewals
			proxy.BlackHole()
			cut := time.Now()
			next, err := theirs.Lock(within(t, patience), key, ttl)
			took := time.Now()
			if !assert.NoError(t, err) {
				return
			}
			assert.Error(t, held.Context().Err(), "the holder knows")
			assert.ErrorIs(t, context.Cause(held.Context()), nats.ErrLockLost)
			assert.Greater(t, next.Token(), held.Token())
			proxy.Restore()
			assert.ErrorIs(t, held.Unlock(within(t, patience)), nats.ErrLockLost)
			assert.NoError(t, next.Context().Err())
			assert.NoError(t, next.Unlock(within(t, patience)))
			mu.Lock()
			defer mu.Unlock()
			best = min(best, took.Sub(cut)-stalls.Between(cut, took))
		})
	}
	rounds.Wait()
	assert.Less(t, best, ttl+time.Second)
}

// Somebody writes the key as if it were no lock.
func TestLockTakenByForce(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	kv := newLocks(t, client)
	l := lock(t, kv, "k", time.Second)
	put(t, kv, "k", "mine")
	select {
	case <-l.Context().Done():
	case <-time.After(patience):
		t.Fatal("the lock is not lost")
	}
	require.ErrorIs(t, context.Cause(l.Context()), nats.ErrLockLost)
	require.ErrorIs(t, context.Cause(l.Context()), nats.ErrConflict)
	require.ErrorIs(t, l.Unlock(context.Background()), nats.ErrLockLost)
	entry, err := kv.Get(context.Background(), "k")
	require.NoError(t, err)
	assert.Equal(t, "mine", string(entry.Value()))

	held := lock(t, kv, "other", time.Minute)
	put(t, kv, "other", "mine")
	require.ErrorIs(t, held.Unlock(context.Background()), nats.ErrLockLost)
	closed := lock(t, kv, "third", time.Minute)
	require.NoError(t, client.Close())
	require.ErrorIs(t, context.Cause(closed.Context()), nats.ErrLockLost)
	require.ErrorIs(t, context.Cause(closed.Context()), nats.ErrClosed)
}

func TestElect(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	var log eventLog
	client, other := connect(t, s, nil, nats.WithEventHandler(log.handle)), connect(t, s, nil)
	kv, theirs := newLocks(t, client), newLocks(t, other)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	assert.Zero(t, nats.FencingToken(ctx))
	led := make(chan uint64, 10)
	ended := make(chan error, 2)
	lead := func(ctx context.Context) error {
		led <- nats.FencingToken(ctx)
		<-ctx.Done()
		return nil
	}
	go func() { ended <- kv.Elect(ctx, "leader", lead, nats.WithLease(time.Second)) }()
	first := <-led
	go func() { ended <- theirs.Elect(ctx, "leader", lead, nats.WithLease(time.Second)) }()
	put(t, kv, "leader", "a coup") // the leader finds out at its next renewal
	eventually(t, "the loss is reported", func() bool { return len(log.of(nats.EventLeadershipLost)) > 0 })
	require.ErrorIs(t, log.of(nats.EventLeadershipLost)[0].Err, nats.ErrLockLost)
	require.NoError(t, kv.Delete(ctx, "leader"))
	second := <-led
	assert.Greater(t, second, first)
	cancel()
	for range 2 {
		require.ErrorIs(t, <-ended, context.Canceled)
	}
	failure := errors.New("failure")
	require.ErrorIs(t, kv.Elect(context.Background(), "leader", func(context.Context) error { return failure }), failure)
	require.NoError(t, kv.Elect(context.Background(), "leader", func(context.Context) error { return nil }))
	func() {
		defer func() { assert.Equal(t, "panic", recover()) }()
		_ = kv.Elect(context.Background(), "leader", func(context.Context) error { panic("panic") })
	}()
	require.NoError(t, kv.Elect(within(t, patience), "leader", func(context.Context) error { return nil }), "given up at once")

	running := make(chan struct{})
	go func() {
		ended <- kv.Elect(context.Background(), "leader", func(ctx context.Context) error {
			close(running)
			<-ctx.Done()
			return nil
		})
	}()
	<-running
	require.NoError(t, client.Close())
	require.ErrorIs(t, <-ended, nats.ErrClosed)
}
