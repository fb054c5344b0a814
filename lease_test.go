package nats_test

import (
	"context"
	"crypto/rand"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// A bucket that deletes its values sooner than a lease ends would give the lock to the next one while the
// first believes in it.
func TestLockOutlivesNoBucketsTTL(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := within(t, patience)
	ensure := func(ttl time.Duration) *nats.KeyValue {
		_, err := client.JetStream().CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "b", TTL: ttl, LimitMarkerTTL: time.Second})
		require.NoError(t, err)
		kv, err := client.GetKeyValue(ctx, "b")
		require.NoError(t, err)
		return kv
	}
	short := ensure(2 * time.Second)
	refused := func(kv *nats.KeyValue) {
		_, err := kv.Lock(ctx, "k", 3*time.Second)
		require.ErrorIs(t, err, nats.ErrInvalidArgument)
		require.ErrorContains(t, err, "2s")
		require.ErrorIs(t, kv.Elect(ctx, "k", func(context.Context) error { return nil }), nats.ErrInvalidArgument)
		_, err = kv.Get(ctx, "k")
		require.ErrorIs(t, err, nats.ErrKeyNotFound, "nothing was held")
	}
	refused(short)
	held := lock(t, short, "k", 2*time.Second)
	require.NoError(t, held.Unlock(ctx))

	long := ensure(0)
	require.NoError(t, lock(t, long, "k", 3*time.Second).Unlock(ctx))
	ensure(2 * time.Second)
	eventually(t, "a handle learns of the new time", func() bool {
		l, err := long.Lock(ctx, "k", 3*time.Second)
		if err == nil {
			require.NoError(t, l.Unlock(ctx))
		}
		return err != nil
	})
	refused(long)
}

// A lock is held and renewed over a line on which an answer takes more than two seconds.
func TestLockOverASlowLine(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	newLocks(t, connect(t, s, nil))
	for lease, renewals := range map[time.Duration]int{20 * time.Second: 2, 10 * time.Second: 3} {
		t.Run(lease.String(), func(t *testing.T) {
			t.Parallel()
			client, proxy := through(t, s)
			kv, err := client.GetKeyValue(within(t, patience), "locks")
			require.NoError(t, err)
			proxy.Delay(1200 * time.Millisecond)
			key := lease.String()
			l, err := kv.Lock(within(t, patience), key, lease)
			require.NoError(t, err)
			near := newLocks(t, connect(t, s, nil))
			updates, err := near.Watch(within(t, time.Minute), key)
			require.NoError(t, err)
			for seen := map[uint64]bool{}; len(seen) <= renewals; {
				select {
				case e := <-updates.Updates():
					if e != nil {
						seen[e.Revision()] = true
					}
				case <-l.Context().Done():
					t.Fatal(context.Cause(l.Context()))
				}
			}
			require.NoError(t, l.Unlock(within(t, patience)))
		})
	}
}

// Who closes its client gives up at once what it leads and what it unlocks then.
func TestElectEndsWithTheClient(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, other := connect(t, s, nil), connect(t, s, nil)
	kv, theirs := newLocks(t, client), newLocks(t, other)
	running, ended, unlocked := make(chan struct{}), make(chan error, 1), make(chan error, 1)
	go func() {
		ended <- kv.Elect(context.Background(), "leader", func(ctx context.Context) error {
			close(running)
			<-ctx.Done()
			assert.ErrorIs(t, context.Cause(ctx), nats.ErrClosed)
			return nil
		}, nats.WithLease(time.Hour))
	}()
	<-running
	held := lock(t, kv, "k", time.Hour)
	go func() {
		<-held.Context().Done()
		unlocked <- held.Unlock(context.Background())
	}()
	next := make(chan error, 1)
	go func() {
		next <- theirs.Elect(within(t, patience), "leader", func(context.Context) error { return nil }, nats.WithLease(time.Hour))
	}()
	require.NoError(t, client.Close())
	require.ErrorIs(t, <-ended, nats.ErrClosed)
	require.NoError(t, <-next)
	if err := <-unlocked; err != nil { // Close does not wait for it
		require.ErrorIs(t, err, nats.ErrClosed)
	}
}

// A leader that is suspended sees by the clock that its lease is over, before anything has told it.
func TestLeadersContextLooksAtTheClock(t *testing.T) {
	t.Parallel()
	client, proxy := through(t, natstest.RunServer(t))
	kv := newLocks(t, client)
	ctx, stop := context.WithCancel(within(t, patience))
	err := kv.Elect(ctx, "leader", func(leading context.Context) error {
		defer stop()
		proxy.BlackHole()
		for begin := time.Now(); leading.Err() == nil; { // no goroutine runs but this one, as far as it can
			if time.Since(begin) > 10*time.Second {
				t.Error("the lease of a second does not end")
				break
			}
		}
		select {
		case <-leading.Done():
		default:
			t.Error("Err tells of an end, and Done does not")
		}
		assert.ErrorIs(t, context.Cause(leading), nats.ErrLockLost)
		proxy.Restore()
		return nil
	}, nats.WithLease(time.Second))
	require.ErrorIs(t, err, context.Canceled)
}

// A mirror does not know when its origin gives a lock to the next one.
func TestLockOfAMirror(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := within(t, patience)
	newLocks(t, client)
	mirror, err := client.CreateKeyValue(ctx, "mirror", nats.WithKeyValueConfig(func(cfg *jetstream.KeyValueConfig) {
		cfg.Mirror = &jetstream.StreamSource{Name: "locks"}
	}))
	require.NoError(t, err)
	_, err = mirror.Lock(ctx, "k", time.Second)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	require.ErrorContains(t, err, `"locks"`)
}

// A lock in a bucket that is full is renewed and given up.
func TestLockInAFullBucket(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := within(t, 2*patience)
	kv, err := client.CreateKeyValue(ctx, "full", nats.WithKeyTTLs(time.Second), nats.WithKeyValueConfig(func(cfg *jetstream.KeyValueConfig) {
		cfg.MaxBytes = 5000
	}))
	require.NoError(t, err)
	held := lock(t, kv, "k", 10*time.Second)
	fill := func() {
		for size := 1000; size > 0; {
			if _, err := kv.Create(ctx, nextKey(), make([]byte, size)); err != nil {
				size /= 2
			}
		}
	}
	fill()
	last := held.Token()
	for range 4 {
		eventually(t, "it is renewed", func() bool {
			entry, err := kv.Get(ctx, "k")
			if err != nil || entry.Revision() == last {
				return false
			}
			last = entry.Revision()
			return true
		})
		fill()
	}
	require.NoError(t, held.Context().Err())
	require.NoError(t, held.Unlock(ctx))
	_, err = kv.Get(ctx, "k")
	require.ErrorIs(t, err, nats.ErrKeyNotFound)
}

func nextKey() string { return "key." + rand.Text() }

// A renewal that nobody hears the answer of is stored all the same: the next one meets it, and so does Unlock.
func TestLockWhoseRenewalsAreNotHeard(t *testing.T) {
	t.Parallel()
	s, deny := deniable(t)
	ctx := within(t, patience)
	admin := connect(t, s, as("admin"))
	newLocks(t, admin)
	kv, err := connect(t, s, as("u")).GetKeyValue(ctx, "locks")
	require.NoError(t, err)
	renewed, unlocked := lock(t, kv, "renewed", 12*time.Second), lock(t, kv, "unlocked", 12*time.Second)
	stored := func() uint64 {
		info, err := admin.GetStreamInfo(ctx, "KV_locks") // a direct get races with the reload, within the server
		require.NoError(t, err)
		return info.State.LastSeq
	}
	deny("_INBOX.>")
	eventually(t, "both are renewed, and nobody hears of it", func() bool { return stored() == unlocked.Token()+2 })
	deny()
	require.NoError(t, unlocked.Unlock(ctx))
	eventually(t, "the other one is renewed, too", func() bool { return stored() == unlocked.Token()+4 })
	require.NoError(t, renewed.Context().Err())
	require.NoError(t, renewed.Unlock(ctx))
}
