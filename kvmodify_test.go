package nats_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// increment counts a key up.
func increment(old []byte) ([]byte, error) {
	n, err := strconv.Atoi("0" + string(old))
	return strconv.AppendInt(nil, int64(n+1), 10), err
}

func TestKeyValueModify(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, other := connect(t, s, nil), connect(t, s, nil)
	kv := newKeys(t, client, "conf")
	theirs, err := other.GetKeyValue(context.Background(), "conf")
	require.NoError(t, err)
	ctx := context.Background()
	const writers, times = 8, 40
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for range times {
				_, err := []*nats.KeyValue{kv, theirs}[i%2].Modify(within(t, patience), "n", increment)
				assert.NoError(t, err)
			}
		})
	}
	wg.Wait()
	entry, err := kv.Get(ctx, "n")
	require.NoError(t, err)
	assert.Equal(t, strconv.Itoa(writers*times), string(entry.Value()))
	assert.EqualValues(t, writers*times, entry.Revision(), "nothing else was written")

	require.NoError(t, kv.Delete(ctx, "n"))
	revision, err := kv.Modify(ctx, "n", func(old []byte) ([]byte, error) {
		assert.Nil(t, old)
		return []byte("new"), nil
	})
	require.NoError(t, err)
	assert.EqualValues(t, writers*times+2, revision)
	failure := errors.New("failure")
	_, err = kv.Modify(ctx, "n", func([]byte) ([]byte, error) { return nil, failure })
	assert.Equal(t, failure, err)
	_, err = kv.Modify(ctx, "n", nil)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	_, err = kv.Modify(ctx, "a b", increment)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)

	calls := 0
	bounded, cancel := context.WithCancel(ctx)
	_, err = kv.Modify(bounded, "n", func([]byte) ([]byte, error) { // it always loses
		if calls++; calls == 5 {
			cancel()
		}
		put(t, theirs, "n", "faster")
		return []byte("slower"), nil
	})
	require.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, 5, calls)
}

// A lost race names the latest revision.
func TestKeyValueConflict(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	kv := newKeys(t, connect(t, s, nil), "conf")
	ctx := context.Background()
	first := put(t, kv, "k", "1")
	second := put(t, kv, "k", "2")
	_, update := kv.Update(ctx, "k", nil, first)
	_, never := kv.Update(ctx, "never", nil, first)
	for err, latest := range map[error]uint64{
		update: second, never: 0,
		kv.Delete(ctx, "k", jetstream.LastRevision(first)): second,
	} {
		var conflict *nats.ConflictError
		require.ErrorAs(t, err, &conflict)
		assert.Equal(t, "conf", conflict.Bucket)
		assert.Equal(t, conflict.Expected, first)
		assert.Equal(t, latest, conflict.Revision)
		require.ErrorIs(t, err, nats.ErrConflict)
		require.ErrorIs(t, err, jetstream.ErrKeyRevisionMismatch)
		require.ErrorContains(t, err, `"conf/`+conflict.Key)
	}
}

// In a cluster the server does not name it, and may refuse for a message on its way.
func TestKeyValueConflictInACluster(t *testing.T) {
	t.Parallel()
	cluster := natstest.RunCluster(t, 3)
	client := connect(t, cluster.Servers()[0], nil)
	ctx := context.Background()
	kv, err := client.CreateKeyValue(ctx, "conf", nats.WithKeyValueReplicas(3))
	require.NoError(t, err)
	first := put(t, kv, "k", "1")
	second := put(t, kv, "k", "2")
	_, err = kv.Update(ctx, "k", nil, first)
	var conflict *nats.ConflictError
	require.ErrorAs(t, err, &conflict)
	assert.Equal(t, second, conflict.Revision)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				_, err := kv.Modify(within(t, 3*patience), "n", increment)
				assert.NoError(t, err)
			}
		})
	}
	wg.Wait()
	eventually(t, "the replica that answers has all", func() bool {
		entry, err := kv.Get(ctx, "n")
		return err == nil && string(entry.Value()) == "80"
	})
}
