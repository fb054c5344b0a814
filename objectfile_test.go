//go:build unix

package nats_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// What is no file stays what it is: a pipe gets the content, a link's target is written, also one that is not there yet.
func TestObjectGetFileThroughWhatIsNoFile(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, func(c *nats.Config) { c.RequestTimeout = 500 * time.Millisecond })
	store := newObjects(t, client, "files")
	ctx := within(t, time.Minute)
	content := noise(300_000)
	_, err := store.PutBytes(ctx, "x", content)
	require.NoError(t, err)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }

	require.NoError(t, syscall.Mkfifo(at("pipe"), 0o600))
	require.NoError(t, os.Symlink("pipe", at("to pipe")))
	for _, name := range []string{"pipe", "to pipe"} {
		var got []byte
		var wg sync.WaitGroup
		wg.Go(func() {
			time.Sleep(50 * time.Millisecond) // the reader comes later
			f, err := os.Open(at(name))
			if assert.NoError(t, err) {
				got, err = io.ReadAll(f)
				assert.NoError(t, err)
				assert.NoError(t, f.Close())
			}
		})
		require.NoError(t, store.GetFile(ctx, "x", at(name)), name)
		wg.Wait()
		assert.True(t, bytes.Equal(content, got), name)
	}
	info, err := os.Lstat(at("pipe"))
	require.NoError(t, err)
	assert.Equal(t, os.ModeNamedPipe, info.Mode().Type())
	require.NoError(t, store.GetFile(ctx, "x", os.DevNull))
	info, err = os.Stat(os.DevNull)
	require.NoError(t, err)
	assert.False(t, info.Mode().IsRegular())

	// Nobody reads, or nobody reads on: the call ends with its time.
	require.ErrorIs(t, store.GetFile(within(t, 200*time.Millisecond), "x", at("pipe")), nats.ErrTimeout)
	reader, err := os.OpenFile(at("pipe"), os.O_RDWR, 0)
	require.NoError(t, err)
	require.ErrorIs(t, store.GetFile(within(t, 200*time.Millisecond), "x", at("pipe")), nats.ErrTimeout)
	require.NoError(t, reader.Close())
	require.ErrorIs(t, store.GetFile(ctx, "x", dir), syscall.EISDIR)

	require.NoError(t, os.Symlink("not there yet", at("link")))
	require.NoError(t, os.Symlink(at("link"), at("to link")))
	for range 2 {
		require.NoError(t, store.GetFile(ctx, "x", at("to link")))
		got, err := os.ReadFile(at("not there yet"))
		require.NoError(t, err)
		assert.True(t, bytes.Equal(content, got))
		target, err := os.Readlink(at("link"))
		require.NoError(t, err)
		assert.Equal(t, "not there yet", target)
	}
	require.NoError(t, os.Symlink("circle", at("circle")))
	require.Error(t, store.GetFile(ctx, "x", filepath.Join(at("circle"), "file")))
}

// oneObject returns a store with the object "x", and what bounds the calls.
func oneObject(t *testing.T, content string) (*nats.ObjectStore, context.Context) {
	t.Helper()
	store := newObjects(t, connect(t, natstest.RunServer(t), nil), "files")
	ctx := within(t, patience)
	_, err := store.PutString(ctx, "x", content)
	require.NoError(t, err)
	return store, ctx
}

// A path leads where the system says: links are followed to their end, and ".." is where a link leads.
func TestObjectGetFileFollowsLinks(t *testing.T) {
	t.Parallel()
	store, ctx := oneObject(t, "content")
	dir := t.TempDir() + "/"
	require.NoError(t, os.MkdirAll(dir+"real/sub", 0o700))
	require.NoError(t, os.Symlink("real/sub", dir+"here"))
	require.NoError(t, os.Symlink("../target", dir+"real/sub/link"))
	last := "end"
	for i := range 12 {
		next := "chain" + strconv.Itoa(i)
		require.NoError(t, os.Symlink(last, dir+next))
		last = next
	}
	for file, written := range map[string]string{"here/../plain": "real/plain", "here/link": "real/target", last: "end"} {
		for _, what := range []string{"a new file", "one that is there"} {
			require.NoError(t, store.GetFile(ctx, "x", dir+file), "%s at %s", what, file)
			info, err := os.Lstat(dir + written)
			require.NoError(t, err, "%s at %s", what, file)
			assert.True(t, info.Mode().IsRegular(), "%s at %s", what, file)
		}
	}
	for _, elsewhere := range []string{"plain", "target"} {
		assert.NoFileExists(t, dir+elsewhere)
	}
	require.NoError(t, os.Symlink("circle", dir+"circle"))
	require.ErrorIs(t, store.GetFile(ctx, "x", dir+"circle"), syscall.ELOOP)
	info, err := os.Lstat(dir + "circle")
	require.NoError(t, err)
	assert.Equal(t, os.ModeSymlink, info.Mode().Type())
}

// An existing file keeps its mode, and its owner where the process may give it.
func TestObjectGetFileKeepsTheOwner(t *testing.T) {
	t.Parallel()
	store, ctx := oneObject(t, "new")
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("old"), 0o640))
	if os.Getuid() == 0 {
		require.NoError(t, os.Chown(file, 4711, 4712))
	}
	before, err := os.Stat(file)
	require.NoError(t, err)
	require.NoError(t, store.GetFile(ctx, "x", file))
	after, err := os.Stat(file)
	require.NoError(t, err)
	assert.Equal(t, before.Mode(), after.Mode())
	assert.Equal(t, before.Sys().(*syscall.Stat_t).Uid, after.Sys().(*syscall.Stat_t).Uid)
	assert.Equal(t, before.Sys().(*syscall.Stat_t).Gid, after.Sys().(*syscall.Stat_t).Gid)
}

// A callback that panics or ends its goroutine leaves no part behind.
func TestObjectGetFileAndPanics(t *testing.T) {
	t.Parallel()
	store, ctx := oneObject(t, "new")
	dir := t.TempDir()
	for name, callback := range map[string]func(int64, int64){
		"panics": func(int64, int64) { panic("callback") }, "exits": func(int64, int64) { runtime.Goexit() },
	} {
		var wg sync.WaitGroup
		wg.Go(func() { _ = store.GetFile(ctx, "x", filepath.Join(dir, name), nats.WithProgress(callback)) })
		wg.Wait()
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, entry := range entries {
		assert.NotContains(t, entry.Name(), ".part")
	}
}

// The view has upstream's interface, and our guarantees behind it.
func TestObjectUpstreamView(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	store := newObjects(t, connect(t, s, nil), "files")
	view := store.Upstream()
	ctx := within(t, patience)
	_, err := view.List(ctx)
	require.ErrorIs(t, err, jetstream.ErrNoObjectsFound)
	_, err = view.Put(ctx, jetstream.ObjectMeta{Name: "x"}, readerFunc(func([]byte) (int, error) { panic("source") }))
	require.ErrorIs(t, err, nats.ErrHandlerPanic)
	_, err = view.PutString(ctx, "x", "content")
	require.NoError(t, err)
	_, err = view.PutBytes(ctx, "y", []byte("content"))
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, view.GetFile(ctx, "x", file))
	_, err = view.PutFile(ctx, file)
	require.NoError(t, err)
	text, err := view.GetString(ctx, file)
	require.NoError(t, err)
	assert.Equal(t, "content", text)
	require.NoError(t, view.Delete(ctx, "y"))
	_, err = view.GetBytes(ctx, "y")
	require.ErrorIs(t, err, nats.ErrObjectNotFound)
	require.ErrorIs(t, err, jetstream.ErrObjectNotFound)
	result, err := view.Get(ctx, "y", jetstream.GetObjectShowDeleted())
	require.NoError(t, err)
	require.NoError(t, result.Close())
	for _, bucket := range []jetstream.ObjectStore{view, store.ObjectStore} {
		link, err := view.AddBucketLink(ctx, "bucket", bucket)
		require.NoError(t, err)
		assert.Equal(t, "files", link.Opts.Link.Bucket)
	}
	_, err = view.AddBucketLink(ctx, "bucket", nil)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	all, err := view.List(ctx)
	require.NoError(t, err)
	assert.Len(t, all, 3)
}
