package nats_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// What code that knows upstream alone gets is upstream's in shape, and ours in what it promises.
func TestKeyValueUpstream(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	ctx := within(t, patience)
	kv := newKeys(t, client, "b").Upstream()
	assert.Equal(t, "b", kv.Bucket())
	_, err := kv.Keys(ctx)
	require.ErrorIs(t, err, jetstream.ErrNoKeysFound)
	_, err = kv.Put(ctx, "a", []byte("1"))
	require.NoError(t, err)
	revision, err := kv.PutString(ctx, "b", "1")
	require.NoError(t, err)
	_, err = kv.Update(ctx, "b", []byte("2"), revision)
	require.NoError(t, err)
	_, err = kv.Update(ctx, "b", []byte("3"), revision)
	require.ErrorIs(t, err, nats.ErrConflict)
	require.ErrorIs(t, err, jetstream.ErrKeyRevisionMismatch)
	keys, err := kv.Keys(ctx)
	require.NoError(t, err)
	assert.ElementsMatch(t, []string{"a", "b"}, keys)
	watch := map[string]func() (jetstream.KeyWatcher, error){
		"one":      func() (jetstream.KeyWatcher, error) { return kv.Watch(ctx, "a") },
		"all":      func() (jetstream.KeyWatcher, error) { return kv.WatchAll(ctx) },
		"filtered": func() (jetstream.KeyWatcher, error) { return kv.WatchFiltered(ctx, []string{"b"}) },
	}
	for name, f := range watch {
		w, err := f()
		require.NoError(t, err, name)
		assert.NotNil(t, <-w.Updates(), name)
		require.NoError(t, w.Stop())
	}
	none, err := kv.Watch(ctx, "a b")
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	assert.Nil(t, none)
	far, proxy := through(t, s)
	theirs := newKeys(t, far, "b").Upstream()
	proxy.Cut()
	time.AfterFunc(300*time.Millisecond, proxy.Restore)
	_, err = theirs.Put(ctx, "a", []byte("2"))
	require.NoError(t, err, "it outlasts a cut")
}
