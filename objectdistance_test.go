package nats_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// A server that is far away is asked in the same way, and no consumer is left on it.
func TestObjectsAtADistance(t *testing.T) {
	t.Parallel()
	const trip = time.Second
	s := natstest.RunServer(t)
	near := connect(t, s, nil)
	newObjects(t, near, "files")
	proxy := natstest.NewProxy(t, s.URL())
	far := connect(t, s, func(c *nats.Config) {
		c.URLs, c.RequestTimeout, c.Timeout = []string{proxy.URL()}, 30*time.Second, 30*time.Second
	})
	proxy.Delay(trip / 2)
	ctx := context.Background()
	store, err := far.GetObjectStore(ctx, "files")
	require.NoError(t, err)
	took := func(what string, trips int, f func() error) {
		t.Helper()
		begun := time.Now()
		require.NoError(t, f(), what)
		t.Logf("%s: %.1f trips", what, time.Since(begun).Seconds()/trip.Seconds())
		assert.Less(t, since(begun), time.Duration(trips)*trip+time.Second, what)
	}
	content := noise(600_000)
	took("put", 8, func() error { _, err := store.PutBytes(ctx, "x", content); return err })
	took("put small", 6, func() error { _, err := store.PutString(ctx, "y", "content"); return err })
	took("get", 8, func() error {
		got, err := store.GetBytes(ctx, "x")
		assert.True(t, bytes.Equal(content, got))
		return err
	})
	took("get small", 6, func() error { _, err := store.GetBytes(ctx, "y"); return err })
	took("list", 6, func() error { _, err := store.List(ctx); return err })
	took("rename", 12, func() error { return store.UpdateMeta(ctx, "y", jetstream.ObjectMeta{Name: "z"}) })
	took("delete", 8, func() error { return store.Delete(ctx, "z") })
	proxy.Delay(0)
	eventually(t, "no consumers", func() bool { return consumers(t, near, "OBJ_files") == 0 })
	eventually(t, "one object's chunks", func() bool { return len(chunkCounts(t, near, "files")) == 1 })
}
