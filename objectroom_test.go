package nats_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// A source that yields nothing, hangs, panics, ends its goroutine or lies ends the Put, and nothing is left of it.
func TestObjectPutFromStuckSources(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, func(c *nats.Config) { c.RequestTimeout = 2 * time.Second })
	store := newObjects(t, client, "files")
	released := make(chan struct{})
	defer close(released)
	pipe, writer, err := os.Pipe()
	require.NoError(t, err)
	defer func() { _ = pipe.Close() }()
	defer func() { _ = writer.Close() }()
	for name, test := range map[string]struct {
		source io.Reader
		want   error
	}{
		"nothing": {readerFunc(func([]byte) (int, error) { return 0, nil }), nats.ErrTimeout},
		"hangs":   {readerFunc(func([]byte) (int, error) { <-released; return 0, io.EOF }), nats.ErrTimeout},
		"a pipe":  {pipe, nats.ErrTimeout},
		"panics":  {readerFunc(func([]byte) (int, error) { panic("source") }), nats.ErrHandlerPanic},
		"lies":    {readerFunc(func(p []byte) (int, error) { return len(p) + 1, nil }), nil},
		"less":    {readerFunc(func([]byte) (int, error) { return -1, nil }), nil},
	} {
		ctx := within(t, patience)
		switch {
		case name == "nothing": // without a deadline it is the pause that is bounded
			ctx, test.want = context.Background(), io.ErrNoProgress
		case errors.Is(test.want, nats.ErrTimeout):
			ctx = within(t, 500*time.Millisecond)
		}
		begun := time.Now()
		_, err := store.Put(ctx, jetstream.ObjectMeta{Name: name, Opts: &jetstream.ObjectMetaOptions{ChunkSize: 10}},
			io.MultiReader(strings.NewReader("0123456789012345"), test.source))
		require.Error(t, err, name)
		if test.want != nil {
			require.ErrorIs(t, err, test.want, name)
		}
		assert.Less(t, since(begun), 20*time.Second, name)
	}
	eventually(t, "no chunks are left", func() bool { return len(chunkCounts(t, client, "files")) == 0 })
	// A source that pauses is no stuck one.
	reads := 0
	_, err = store.Put(within(t, patience), chunked("slow", 10), readerFunc(func(p []byte) (int, error) {
		if reads++; reads < 300 {
			return 0, nil
		}
		return copy(p, "content"), io.EOF
	}))
	require.NoError(t, err)
	text, err := store.GetString(context.Background(), "slow")
	require.NoError(t, err)
	assert.Equal(t, "content", text)
}

// Deleting is the way out of a full bucket, and so is replacing what is large by what is small.
func TestObjectFullBucket(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	ctx := within(t, time.Minute)
	for what, size := range map[string]int{"small": 1, "large": 3000} {
		store, err := client.CreateObjectStore(ctx, what, nats.WithObjectStoreMaxBytes(40_000))
		require.NoError(t, err)
		name := func(i int) string { return fmt.Sprint(strings.Repeat("dir/", 50), i) }
		meta := func(i int) jetstream.ObjectMeta {
			return jetstream.ObjectMeta{Name: name(i), Metadata: map[string]string{"m": strings.Repeat("m", 300)}}
		}
		n := 0
		for ; err == nil; n++ {
			_, err = store.Put(ctx, meta(n), bytes.NewReader(noise(size)))
		}
		require.ErrorIs(t, err, nats.ErrStreamFull)
		n--
		require.Greater(t, n, 3)
		for i := 1; err != nil || i < 50; i++ { // until it is really full
			_, err = client.JetStream().Publish(ctx, "$O."+what+".C.filler", bytes.Repeat([]byte("x"), 10))
			if err != nil {
				break
			}
		}
		_, err = store.Put(ctx, meta(0), io.LimitReader(bytes.NewReader(noise(size)), int64(size)))
		require.ErrorIs(t, err, nats.ErrStreamFull, "its size is not known")
		_, err = store.Put(ctx, meta(0), bytes.NewReader(noise(size+10_000)))
		require.ErrorIs(t, err, nats.ErrStreamFull, "it is larger")
		got, err := store.GetBytes(ctx, name(0))
		require.NoError(t, err)
		assert.Equal(t, noise(size), got, "what was there stays")

		_, err = store.Put(ctx, meta(0), bytes.NewReader(bytes.Repeat([]byte("y"), (size+1)/2)))
		require.NoError(t, err, "it is smaller")
		text, err := store.GetString(ctx, name(0))
		require.NoError(t, err)
		assert.Equal(t, strings.Repeat("y", (size+1)/2), text)
		for i := range n {
			require.NoError(t, store.Delete(ctx, name(i)), "%d of %d", i, n)
		}
		assert.Empty(t, names(t, store))
		counts := chunkCounts(t, client, what)
		delete(counts, "$O."+what+".C.filler")
		assert.Empty(t, counts)
	}
}

// Chunks fit what the bucket's administrator allows, and one who asks for more is told.
func TestObjectChunksFitTheBucket(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := within(t, patience)
	store := newObjects(t, client, "files")
	info, err := client.GetStreamInfo(ctx, "OBJ_files")
	require.NoError(t, err)
	info.Config.MaxMsgSize = 2000
	_, err = client.UpdateStream(ctx, &info.Config)
	require.NoError(t, err)
	put, err := store.PutBytes(ctx, "x", noise(10_000))
	require.NoError(t, err)
	assert.EqualValues(t, 6, put.Chunks)
	got, err := store.GetBytes(ctx, "x")
	require.NoError(t, err)
	assert.Equal(t, noise(10_000), got)
	_, err = store.Put(ctx, chunked("x", 3000), bytes.NewReader(noise(10_000)))
	require.ErrorIs(t, err, nats.ErrPayloadTooLarge)
	require.ErrorContains(t, err, "max_msg_size is 2000")
}

// Changing the metadata in a bucket whose objects expire leaves no object without its content, and takes none from
// another writer.
func TestObjectUpdateMetaOfWhatExpires(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := within(t, time.Minute)
	store, err := client.CreateObjectStore(ctx, "files", nats.WithObjectStoreTTL(10*time.Second))
	require.NoError(t, err)
	for _, name := range []string{"a", "b"} {
		_, err = store.Put(ctx, chunked(name, 1000), bytes.NewReader(noise(5500)))
		require.NoError(t, err)
	}
	time.Sleep(5 * time.Second) // the half of their life
	require.NoError(t, store.UpdateMeta(ctx, "a", jetstream.ObjectMeta{Name: "a", Description: "new"}))
	require.ErrorIs(t, store.UpdateMeta(ctx, "a", jetstream.ObjectMeta{Name: "b"}), nats.ErrAlreadyExists)
	require.NoError(t, store.UpdateMeta(ctx, "b", jetstream.ObjectMeta{Name: "c"}))
	assert.Equal(t, []string{"a", "c"}, names(t, store))
	assert.Equal(t, liveChunks(t, store, "files"), chunkCounts(t, client, "files"))
	eventually(t, "all has expired", func() bool {
		for _, name := range names(t, store) {
			if info, err := store.GetInfo(ctx, name); err == nil && time.Since(info.ModTime) < 5*time.Second {
				got, err := store.GetBytes(ctx, name)
				require.NoError(t, err, name)
				require.Equal(t, noise(5500), got)
			}
		}
		return maps.Equal(chunkCounts(t, client, "files"), map[string]uint64{})
	})
	assert.Empty(t, names(t, store))
}
