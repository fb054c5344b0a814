package nats_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// chunkCounts returns how many chunks each upload has in the bucket, orphans included.
func chunkCounts(t testing.TB, client *nats.Client, bucket string) map[string]uint64 {
	t.Helper()
	stream, err := client.JetStream().Stream(context.Background(), "OBJ_"+bucket)
	require.NoError(t, err)
	info, err := stream.Info(context.Background(), jetstream.WithSubjectFilter("$O."+bucket+".C.>"))
	require.NoError(t, err)
	return info.State.Subjects
}

// liveChunks returns the same for the objects that are there.
func liveChunks(t testing.TB, store *nats.ObjectStore, bucket string) map[string]uint64 {
	t.Helper()
	objects, err := store.List(context.Background())
	require.NoError(t, err)
	live := make(map[string]uint64)
	for object := range objects {
		if object.Chunks > 0 {
			live["$O."+bucket+".C."+object.NUID] = uint64(object.Chunks)
		}
	}
	return live
}

// Upstream leaves the chunks of all but two of eight such writers behind.
func TestObjectConcurrentWriters(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	store := newObjects(t, client, "files")
	ctx := within(t, time.Minute)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 5 {
				_, err := store.Put(ctx, chunked("x", 1000), bytes.NewReader(bytes.Repeat([]byte{byte(i)}, 20_000)))
				assert.NoError(t, err)
			}
		})
	}
	wg.Go(func() {
		for range 5 {
			if err := store.Delete(ctx, "x"); err != nil {
				assert.ErrorIs(t, err, nats.ErrObjectNotFound)
			}
		}
	})
	wg.Go(func() {
		for i := range 20 {
			err := store.UpdateMeta(ctx, "x", jetstream.ObjectMeta{Name: "x", Description: string(rune('a' + i))})
			if err != nil {
				assert.ErrorIs(t, err, nats.ErrObjectNotFound)
			}
		}
	})
	wg.Wait()
	_, err := store.Put(ctx, chunked("x", 1000), bytes.NewReader(noise(20_000)))
	require.NoError(t, err)
	got, err := store.GetBytes(ctx, "x")
	require.NoError(t, err)
	assert.True(t, bytes.Equal(noise(20_000), got))
	assert.Equal(t, liveChunks(t, store, "files"), chunkCounts(t, client, "files"), "chunks are left behind")
}

// While the metadata changes under an upload, and an object is renamed under an overwriting, nothing is lost.
func TestObjectRename(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	store := newObjects(t, client, "files")
	ctx := within(t, time.Minute)
	old, err := store.PutString(ctx, "old", "content")
	require.NoError(t, err)
	_, err = store.PutString(ctx, "taken", "other")
	require.NoError(t, err)
	require.ErrorIs(t, store.UpdateMeta(ctx, "old", jetstream.ObjectMeta{Name: "taken"}), nats.ErrAlreadyExists)
	require.ErrorIs(t, store.UpdateMeta(ctx, "old", jetstream.ObjectMeta{}), nats.ErrInvalidArgument)
	require.NoError(t, store.Delete(ctx, "taken"))
	require.NoError(t, store.UpdateMeta(ctx, "old", jetstream.ObjectMeta{Name: "taken"}))
	_, err = store.GetInfo(ctx, "old", jetstream.GetObjectInfoShowDeleted())
	require.ErrorIs(t, err, nats.ErrObjectNotFound, "upstream leaves no trace, either")
	renamed, err := store.GetInfo(ctx, "taken")
	require.NoError(t, err)
	assert.Equal(t, old.NUID, renamed.NUID)
	// The old name is free, and storing under it leaves the renamed object alone.
	_, err = store.PutString(ctx, "old", "new")
	require.NoError(t, err)
	text, err := store.GetString(ctx, "taken")
	require.NoError(t, err)
	assert.Equal(t, "content", text)
	require.ErrorIs(t, store.Delete(ctx, "nothing"), nats.ErrObjectNotFound)
	require.NoError(t, store.Delete(ctx, "old"))
	require.ErrorIs(t, store.Delete(ctx, "old"), nats.ErrObjectNotFound)
}

func TestObjectProgress(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	store := newObjects(t, client, "files")
	ctx := within(t, time.Minute)
	var calls [][2]int64
	progress := nats.WithProgress(func(done, total int64) { calls = append(calls, [2]int64{done, total}) })
	took := func(what string, want ...[2]int64) {
		t.Helper()
		assert.Equal(t, want, calls, what)
		calls = nil
	}
	content := noise(2500)
	known := [][2]int64{{1000, 2500}, {2000, 2500}, {2500, 2500}}
	_, err := store.Put(ctx, chunked("x", 1000), bytes.NewReader(content), progress)
	require.NoError(t, err)
	took("an upload of known size", known...)
	_, err = store.Put(ctx, chunked("x", 1000), iotest.OneByteReader(bytes.NewReader(content)), progress)
	require.NoError(t, err)
	took("an upload of unknown size", [2]int64{1000, -1}, [2]int64{2000, -1}, [2]int64{2500, -1}, [2]int64{2500, 2500})
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, content, 0o600))
	_, err = store.PutFile(ctx, file, progress)
	require.NoError(t, err)
	took("a file", [2]int64{2500, 2500})
	_, err = store.PutBytes(ctx, "empty", nil, progress)
	require.NoError(t, err)
	took("an empty upload", [2]int64{0, 0})

	_, err = store.GetBytes(ctx, "x", progress)
	require.NoError(t, err)
	took("a download", known...)
	_, err = store.GetString(ctx, "empty", progress)
	require.NoError(t, err)
	took("an empty download", [2]int64{0, 0})
	require.NoError(t, store.GetFile(ctx, "x", file, progress))
	took("a download to a file", known...)
	result, err := store.Get(ctx, "x", nats.WithProgress(nil), nil, progress)
	require.NoError(t, err)
	_, err = io.ReadFull(result, make([]byte, 1500))
	require.NoError(t, err)
	took("half a download", known[:2]...)
	require.NoError(t, result.Close())

	// The function may end the download.
	result, err = store.Get(ctx, "x", nats.WithProgress(func(int64, int64) { _ = result.Close() }))
	require.NoError(t, err)
	_, err = io.ReadAll(result)
	require.ErrorIs(t, err, os.ErrClosed)
}

// A download into bytes or a file that is overtaken by an upload yields the new object.
func TestObjectDownloadStartsAnew(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	store := newObjects(t, client, "files")
	ctx := within(t, time.Minute)
	_, err := store.Put(ctx, chunked("x", 1000), bytes.NewReader(noise(1<<20)))
	require.NoError(t, err)
	replaced := false
	file := filepath.Join(t.TempDir(), "file")
	want := bytes.Repeat([]byte("new"), 1000)
	require.NoError(t, store.GetFile(ctx, "x", file, nats.WithProgress(func(int64, int64) {
		if !replaced {
			replaced = true
			_, err := store.PutBytes(ctx, "x", want)
			assert.NoError(t, err)
		}
	})))
	got, err := os.ReadFile(file)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(want, got))
}

// A cancelled upload leaves nothing, whether the server answers at the moment or not.
func TestObjectPutCancelled(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	observer := connect(t, s, nil)
	client, proxy := through(t, s)
	store := newObjects(t, client, "files")
	for _, silent := range []bool{false, true} {
		ctx, cancel := context.WithCancelCause(context.Background())
		reason := errors.New("the reason")
		read := 0
		_, err := store.Put(ctx, chunked("x", 10_000), readerFunc(func(p []byte) (int, error) {
			if read += len(p); read > 300_000 {
				if silent {
					proxy.BlackHole()
				}
				cancel(reason)
			}
			return len(p), nil
		}))
		require.ErrorIs(t, err, reason)
		proxy.Restore()
		eventually(t, "no chunks are left", func() bool { return len(chunkCounts(t, observer, "files")) == 0 })
	}
}

// A slow link does not pass for one that loses chunks: sending them again would make it slower still.
func TestObjectPutSlowLink(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	observer := connect(t, s, nil)
	client, proxy := through(t, s)
	store := newObjects(t, observer, "files")
	ctx := within(t, time.Minute)
	throttled, err := client.GetObjectStore(ctx, "files")
	require.NoError(t, err)
	content := noise(2 << 20)
	proxy.Throttle(512 << 10)
	sent := client.Stats().OutBytes
	_, err = throttled.PutBytes(ctx, "x", content)
	require.NoError(t, err)
	assert.Less(t, client.Stats().OutBytes-sent, uint64(len(content)*3/2), "the chunks are sent again and again")
	got, err := store.GetBytes(ctx, "x")
	require.NoError(t, err)
	assert.True(t, bytes.Equal(content, got))
}
