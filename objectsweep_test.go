package nats_test

import (
	"bytes"
	"context"
	"io"
	"maps"
	"sync"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestObjectSweep(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	store := newObjects(t, client, "files")
	ctx := within(t, time.Minute)
	for _, name := range []string{"a", "b", "renamed", "deleted"} {
		_, err := store.Put(ctx, chunked(name, 1000), bytes.NewReader(noise(5500)))
		require.NoError(t, err)
	}
	require.NoError(t, store.UpdateMeta(ctx, "renamed", jetstream.ObjectMeta{Name: "c"}))
	require.NoError(t, store.Delete(ctx, "deleted"))
	live := liveChunks(t, store, "files")
	for range 7 {
		_, err := client.PublishToStream(ctx, "$O.files.C.orphan", noise(1000))
		require.NoError(t, err)
	}
	_, err := store.Sweep(ctx, time.Second-1)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	removed, err := store.Sweep(ctx, time.Hour)
	require.NoError(t, err)
	assert.Zero(t, removed, "it may be an upload")
	eventually(t, "the orphan is old enough", func() bool {
		removed, err = store.Sweep(ctx, time.Second)
		require.NoError(t, err)
		return removed > 0
	})
	assert.Equal(t, 7, removed)
	assert.Equal(t, live, chunkCounts(t, client, "files"))
	for _, name := range []string{"a", "b", "c"} {
		got, err := store.GetBytes(ctx, name)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(noise(5500), got))
	}
	require.NoError(t, client.DeleteObjectStore(ctx, "files"))
	_, err = store.Sweep(ctx, time.Hour)
	require.ErrorIs(t, err, nats.ErrBucketNotFound)
}

// An upload that was taken for an orphan fails, and what it would have replaced stays.
func TestObjectSweptUpload(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	store := newObjects(t, client, "files")
	ctx := within(t, time.Minute)
	_, err := store.PutString(ctx, "x", "old")
	require.NoError(t, err)
	_, err = store.Put(ctx, chunked("x", 1000), io.MultiReader(bytes.NewReader(noise(1000)), readerFunc(func(p []byte) (int, error) {
		eventually(t, "the upload is swept", func() bool {
			removed, err := store.Sweep(ctx, time.Second)
			assert.NoError(t, err)
			return removed > 0
		})
		return len(p), io.EOF
	})))
	require.ErrorIs(t, err, nats.ErrObjectCorrupt)
	text, err := store.GetString(ctx, "x")
	require.NoError(t, err)
	assert.Equal(t, "old", text)
	eventually(t, "nothing is left of it", func() bool { return len(chunkCounts(t, client, "files")) == 1 })
}

// A chunk that nobody stored at first is stored behind its successors.
func TestObjectChunksInOrder(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	store := newObjects(t, client, "files")
	ctx := within(t, time.Minute)
	info, err := client.GetStreamInfo(ctx, "OBJ_files")
	require.NoError(t, err)
	subjects := info.Config.Subjects
	stores := func(subjects ...string) {
		cfg := info.Config
		cfg.Subjects = subjects
		_, err := client.UpdateStream(context.Background(), &cfg)
		require.NoError(t, err)
	}
	content := noise(40_000)
	source, reads := bytes.NewReader(content), 0
	put, err := store.Put(ctx, chunked("x", 1000), readerFunc(func(p []byte) (int, error) {
		switch reads++; reads {
		case 5:
			stores("$O.files.M.>")
		case 7: // two chunks find no stream
			require.NoError(t, client.Flush(ctx))
			stores(subjects...)
		}
		return source.Read(p[:min(len(p), 1000)])
	}))
	require.NoError(t, err)
	assert.EqualValues(t, 40, put.Chunks)
	got, err := store.GetBytes(ctx, "x")
	require.NoError(t, err, "the chunks are in a wrong order")
	assert.True(t, bytes.Equal(content, got))
	assert.Equal(t, liveChunks(t, store, "files"), chunkCounts(t, client, "files"))
}

// The network fails in the moment in which the new version takes the old one's place. Whatever came of
// it, one of them is there as a whole, and nothing else.
func TestObjectPutInDoubt(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	proxy := natstest.NewProxy(t, s.URL())
	observer := connect(t, s, nil)
	client := connect(t, s, func(c *nats.Config) { c.URLs, c.Timeout = []string{proxy.URL()}, time.Second })
	store := newObjects(t, observer, "files")
	doubtful, err := client.GetObjectStore(within(t, patience), "files")
	require.NoError(t, err)
	before := noise(5000)
	_, err = store.Put(within(t, patience), chunked("x", 1000), bytes.NewReader(before))
	require.NoError(t, err)

	lose := make(chan struct{}, 1)
	sub, err := raw(t, s).Subscribe("$O.files.M.>", func(*natsgo.Msg) {
		select {
		case lose <- struct{}{}:
		default: // sent again, to settle the doubt
		}
	})
	require.NoError(t, err)
	require.NoError(t, sub.SetPendingLimits(-1, -1))
	failed := 0
	for i := range 10 {
		after := bytes.Repeat([]byte{byte(i)}, 5000)
		ctx, cancel := context.WithCancel(within(t, time.Minute))
		select {
		case <-lose: // of the last round, sent again
		default:
		}
		done := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			select {
			case <-lose:
				proxy.BlackHole()
			case <-done:
			}
			cancel()
		})
		_, err := doubtful.Put(ctx, chunked("x", 1000), bytes.NewReader(after))
		close(done)
		wg.Wait()
		proxy.Restore()
		eventually(t, "nothing else is there", func() bool {
			return maps.Equal(liveChunks(t, store, "files"), chunkCounts(t, observer, "files"))
		})
		got, broken := store.GetBytes(within(t, patience), "x")
		require.NoError(t, broken)
		if err != nil {
			failed++
			require.ErrorIs(t, err, context.Canceled)
			require.True(t, bytes.Equal(got, before) || bytes.Equal(got, after), "neither the old nor the new")
		} else {
			require.True(t, bytes.Equal(got, after))
		}
		before = got
	}
	t.Logf("%d of 10 uploads failed in the end", failed)
}
