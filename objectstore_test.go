package nats_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// noise returns n bytes that are the same in every run and differ from offset to offset.
func noise(n int) []byte {
	data := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(data)
	return data
}

// chunked is the metadata of an object with chunks of a size of its own.
func chunked(name string, size uint32) jetstream.ObjectMeta {
	return jetstream.ObjectMeta{Name: name, Opts: &jetstream.ObjectMetaOptions{ChunkSize: size}}
}

// newObjects returns a new bucket in memory.
func newObjects(t testing.TB, client *nats.Client, bucket string) *nats.ObjectStore {
	t.Helper()
	store, err := client.CreateObjectStore(within(t, patience), bucket, nats.WithObjectStoreConfig(
		func(c *jetstream.ObjectStoreConfig) { c.Storage = jetstream.MemoryStorage }))
	require.NoError(t, err)
	return store
}

// names collects the names of a listing.
func names(t testing.TB, store *nats.ObjectStore, opts ...jetstream.ListObjectsOpt) []string {
	t.Helper()
	objects, err := store.List(context.Background(), opts...)
	require.NoError(t, err)
	var found []string
	for obj := range objects {
		found = append(found, obj.Name)
	}
	slices.Sort(found)
	return found
}

func TestObjectBuckets(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()

	_, err := client.GetObjectStore(ctx, "files")
	require.ErrorIs(t, err, nats.ErrBucketNotFound)
	require.ErrorIs(t, err, jetstream.ErrBucketNotFound)
	err = client.DeleteObjectStore(ctx, "files")
	require.ErrorIs(t, err, nats.ErrBucketNotFound)
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound)

	_, err = client.CreateObjectStore(ctx, "files", nats.WithObjectStoreConfig(func(c *jetstream.ObjectStoreConfig) {
		c.Bucket, c.Description = "another", "the files"
	}))
	require.NoError(t, err)
	store, err := client.GetObjectStore(ctx, "files")
	require.NoError(t, err)
	status, err := store.Status(ctx)
	require.NoError(t, err)
	assert.Equal(t, "files", status.Bucket())
	assert.Equal(t, "the files", status.Description())
	_, err = client.CreateObjectStore(ctx, "files")
	require.ErrorIs(t, err, nats.ErrAlreadyExists)
	require.ErrorIs(t, err, jetstream.ErrBucketExists)

	sent := client.Stats().OutMsgs
	for _, bad := range []string{"", "a b", "a.b", "a*", "ä", "a/b"} {
		_, err := client.CreateObjectStore(ctx, bad)
		require.ErrorIs(t, err, nats.ErrInvalidArgument, bad)
		_, err = client.GetObjectStore(ctx, bad)
		require.ErrorIs(t, err, nats.ErrInvalidArgument, bad)
		require.ErrorIs(t, client.DeleteObjectStore(ctx, bad), nats.ErrInvalidArgument, bad)
	}
	assert.Equal(t, sent, client.Stats().OutMsgs)

	require.NoError(t, client.DeleteObjectStore(ctx, "files"))
	_, err = store.Get(ctx, "x")
	assert.Error(t, err)
}

func TestObjectRoundTrips(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	store := newObjects(t, client, "files")
	upstream, err := client.JetStream().ObjectStore(context.Background(), "files")
	require.NoError(t, err)
	const chunk = 1000
	for _, size := range []int{0, 1, chunk - 1, chunk, chunk + 1, 5*chunk - 1, 5 * chunk, 5*chunk + 1, 100 * chunk} {
		ctx := within(t, patience)
		content := noise(size)
		info, err := store.Put(ctx, chunked("ours", chunk), iotest.OneByteReader(bytes.NewReader(content)))
		require.NoError(t, err)
		assert.EqualValues(t, (size+chunk-1)/chunk, info.Chunks, "one chunk for every Read of the source would be %d", size)
		got, err := store.GetBytes(ctx, "ours")
		require.NoError(t, err)
		assert.True(t, bytes.Equal(content, got), "ours by us, %d bytes", size)
		assert.NotNil(t, got)
		got, err = upstream.GetBytes(ctx, "ours")
		require.NoError(t, err)
		assert.True(t, bytes.Equal(content, got), "ours by upstream, %d bytes", size)

		_, err = upstream.Put(ctx, chunked("theirs", chunk), bytes.NewReader(content))
		require.NoError(t, err)
		text, err := store.GetString(ctx, "theirs")
		require.NoError(t, err)
		assert.Equal(t, text, string(content), "theirs by us, %d bytes", size)

		result, err := store.Get(ctx, "theirs")
		require.NoError(t, err)
		require.NoError(t, iotest.TestReader(result, content))
		require.NoError(t, result.Error())
		require.NoError(t, result.Close())
		require.NoError(t, result.Close())
		require.NoError(t, result.Error())
	}
	eventually(t, "no consumers", func() bool { return consumers(t, client, "OBJ_files") == 0 })
}

// consumers counts the consumers of a stream.
func consumers(t testing.TB, client *nats.Client, stream string) int {
	t.Helper()
	info, err := client.GetStreamInfo(context.Background(), stream)
	require.NoError(t, err)
	return info.State.Consumers
}

func TestObjectCalls(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	store := newObjects(t, client, "files")
	ctx := context.Background()
	assert.Empty(t, names(t, store), "an empty bucket is an empty sequence")

	for _, err := range []error{
		func() error { _, err := store.Get(ctx, "x"); return err }(),
		func() error { _, err := store.GetBytes(ctx, "x"); return err }(),
		func() error { _, err := store.GetString(ctx, "x"); return err }(),
		func() error { _, err := store.GetInfo(ctx, "x"); return err }(),
		store.GetFile(ctx, "x", filepath.Join(t.TempDir(), "x")),
		store.Delete(ctx, "x"),
		store.UpdateMeta(ctx, "x", jetstream.ObjectMeta{Name: "y"}),
	} {
		require.ErrorIs(t, err, nats.ErrObjectNotFound)
		require.ErrorContains(t, err, `"files/x"`)
	}
	_, err := store.PutBytes(ctx, "", nil)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	_, err = store.GetBytes(ctx, "")
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	_, err = store.PutFile(ctx, filepath.Join(t.TempDir(), "missing"))
	require.ErrorIs(t, err, os.ErrNotExist)

	options := &jetstream.ObjectMetaOptions{}
	_, err = store.Put(ctx, jetstream.ObjectMeta{Name: "put", Opts: options}, strings.NewReader("content"))
	require.NoError(t, err)
	assert.Zero(t, options.ChunkSize, "upstream writes into the caller's struct")
	_, err = store.PutString(ctx, "string with spaces / and > signs", "content")
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("content"), 0o600))
	info, err := store.PutFile(ctx, file)
	require.NoError(t, err)
	assert.Equal(t, file, info.Name)
	for _, name := range []string{"put", "string with spaces / and > signs", file} {
		text, err := store.GetString(ctx, name)
		require.NoError(t, err)
		assert.Equal(t, "content", text)
	}
	assert.Len(t, names(t, store), 3)

	require.NoError(t, store.Delete(ctx, "put"))
	_, err = store.Get(ctx, "put")
	require.ErrorIs(t, err, nats.ErrObjectNotFound)
	assert.Len(t, names(t, store), 2)
	assert.Contains(t, names(t, store, jetstream.ListObjectsShowDeleted()), "put")
	info, err = store.GetInfo(ctx, "put", jetstream.GetObjectInfoShowDeleted())
	require.NoError(t, err)
	assert.True(t, info.Deleted)
	content, err := store.GetBytes(ctx, "put", nats.WithDeletedObject())
	require.NoError(t, err, "as upstream has it")
	assert.Empty(t, content)

	require.NoError(t, store.UpdateMeta(ctx, file, jetstream.ObjectMeta{Name: "renamed"}))
	text, err := store.GetString(ctx, "renamed")
	require.NoError(t, err)
	assert.Equal(t, "content", text)
	require.NoError(t, store.Seal(ctx))
	_, err = store.PutString(ctx, "y", "content")
	require.Error(t, err)
}

func TestObjectWatch(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	store := newObjects(t, client, "files")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err := store.PutString(ctx, "a", "1")
	require.NoError(t, err)
	w, err := store.Watch(ctx)
	require.NoError(t, err)
	assert.Equal(t, "a", (<-w.Updates()).Name)
	assert.Nil(t, <-w.Updates())
	_, err = store.PutString(ctx, "b", "1")
	require.NoError(t, err)
	assert.Equal(t, "b", (<-w.Updates()).Name)
	require.NoError(t, store.Delete(ctx, "b"))
	assert.True(t, (<-w.Updates()).Deleted)
	require.NoError(t, w.Stop())
	require.NoError(t, w.Stop())
	for range w.Updates() {
	}
	w, err = store.Watch(ctx, jetstream.UpdatesOnly())
	require.NoError(t, err)
	cancel()
	for range w.Updates() {
		assert.Fail(t, "an update")
	}
}

func TestObjectLinks(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	store, other := newObjects(t, client, "files"), newObjects(t, client, "others")
	info, err := other.PutString(ctx, "target", "linked")
	require.NoError(t, err)
	link, err := store.AddLink(ctx, "link", info)
	require.NoError(t, err)
	text, err := store.GetString(ctx, "link")
	require.NoError(t, err)
	assert.Equal(t, "linked", text)

	_, err = store.AddLink(ctx, "link to link", link)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	require.ErrorIs(t, err, jetstream.ErrNoLinkToLink)
	_, err = store.AddLink(ctx, "", info)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	_, err = other.AddLink(ctx, "target", info)
	require.ErrorIs(t, err, nats.ErrAlreadyExists)
	// Upstream refuses only what the information says, which may be stale.
	toLink := func(bucket, name string) *jetstream.ObjectInfo {
		return &jetstream.ObjectInfo{Bucket: bucket, ObjectMeta: jetstream.ObjectMeta{Name: name}}
	}
	_, err = store.AddLink(ctx, "link to link", toLink("files", "link"))
	require.NoError(t, err)
	text, err = store.GetString(ctx, "link to link")
	require.NoError(t, err)
	assert.Equal(t, "linked", text)

	_, err = store.AddLink(ctx, "circle", toLink("others", "circle"))
	require.NoError(t, err)
	_, err = other.AddLink(ctx, "circle", toLink("files", "circle"))
	require.NoError(t, err)
	_, err = store.GetString(ctx, "circle")
	require.ErrorContains(t, err, "links in a row")
	_, err = store.AddLink(ctx, "dead", toLink("others", "nothing"))
	require.NoError(t, err)
	_, err = store.GetString(ctx, "dead")
	require.ErrorIs(t, err, nats.ErrObjectNotFound)
	_, err = store.AddLink(ctx, "lost", toLink("nowhere", "nothing"))
	require.NoError(t, err)
	_, err = store.GetString(ctx, "lost")
	require.ErrorIs(t, err, nats.ErrBucketNotFound)
	_, err = store.AddBucketLink(ctx, "bucket", other)
	require.NoError(t, err)
	_, err = store.GetString(ctx, "bucket")
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	require.ErrorIs(t, err, jetstream.ErrCantGetBucket)
}

// A Put that fails leaves the object of that name as it was, and no chunk of its own.
func TestObjectPutFails(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	store := newObjects(t, client, "files")
	_, err := store.Put(context.Background(), chunked("x", 1000), bytes.NewReader(noise(10_000)))
	require.NoError(t, err)
	before, err := client.GetStreamInfo(context.Background(), "OBJ_files")
	require.NoError(t, err)

	broken := errors.New("broken source")
	_, err = store.Put(context.Background(), chunked("x", 1000), io.MultiReader(bytes.NewReader(noise(50_000)), iotest.ErrReader(broken)))
	require.ErrorIs(t, err, broken)
	ctx, cancel := context.WithCancelCause(context.Background())
	reason := errors.New("the reason")
	_, err = store.Put(ctx, chunked("x", 1000), io.MultiReader(bytes.NewReader(noise(50_000)), readerFunc(func(p []byte) (int, error) {
		cancel(reason)
		return len(p), nil
	})))
	require.ErrorIs(t, err, reason)
	_, err = store.Put(context.Background(), jetstream.ObjectMeta{Name: "x"}, nil)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)

	eventually(t, "no chunks are left", func() bool {
		after, err := client.GetStreamInfo(context.Background(), "OBJ_files")
		require.NoError(t, err)
		return after.State.Msgs == before.State.Msgs
	})
	got, err := store.GetBytes(context.Background(), "x")
	require.NoError(t, err)
	assert.True(t, bytes.Equal(noise(10_000), got))
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// The default chunk of 256 KiB does not fit a server whose messages are smaller.
func TestObjectChunksFitTheServer(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) { o.MaxPayload = 64 << 10 }))
	client := connect(t, s, nil)
	store := newObjects(t, client, "files")
	content := noise(300 << 10)
	info, err := store.PutBytes(context.Background(), "x", content)
	require.NoError(t, err)
	assert.EqualValues(t, 5, info.Chunks)
	got, err := store.GetBytes(context.Background(), "x")
	require.NoError(t, err)
	assert.True(t, bytes.Equal(content, got))
	_, err = store.Put(context.Background(), chunked("y", 128<<10), bytes.NewReader(content))
	require.ErrorIs(t, err, nats.ErrPayloadTooLarge)
}

func TestObjectAfterClose(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	store := newObjects(t, client, "files")
	_, err := store.PutBytes(context.Background(), "x", noise(1<<20))
	require.NoError(t, err)
	result, err := store.Get(context.Background(), "x")
	require.NoError(t, err)
	require.NoError(t, client.Close())
	_, err = io.ReadAll(result)
	require.ErrorIs(t, err, nats.ErrClosed)
	require.ErrorIs(t, result.Error(), nats.ErrClosed)
	begin := time.Now()
	_, err = store.GetBytes(context.Background(), "x")
	require.ErrorIs(t, err, nats.ErrClosed)
	_, err = store.List(context.Background())
	require.ErrorIs(t, err, nats.ErrClosed)
	_, err = store.PutString(context.Background(), "x", "")
	require.ErrorIs(t, err, nats.ErrClosed)
	assert.Less(t, since(begin), 5*time.Second)
	other := connect(t, s, nil)
	eventually(t, "the client takes its consumer with it", func() bool { return consumers(t, other, "OBJ_files") == 0 })
}
