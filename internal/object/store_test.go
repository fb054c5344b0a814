package object_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lifecycle"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/object"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/publish"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for a state that is sure to come.
const patience = time.Minute

// told records what a store reports.
type told struct{ conntest.Words }

func (r *told) LeftBehind(bucket, _ string, _ error) { r.Say("left behind in", bucket) }
func (r *told) Swept(bucket, upload string, _ int)   { r.Say("swept", upload, "in", bucket) }
func (r *told) Unread(bucket, name string, _ error)  { r.Say("unread", name, "in", bucket) }
func (r *told) Unmarked(bucket, name string)         { r.Say("unmarked", name, "in", bucket) }
func (r *told) Ended(bucket, _ string, err error)    { r.Say("ended in", bucket, err.Error()) }

// newStore returns a store, upstream's stream under it, and what it reports.
func newStore(t *testing.T) (*object.Store, jetstream.JetStream, *told) {
	t.Helper()
	life := lifecycle.New()
	t.Cleanup(life.End)
	return newStoreOf(t, life)
}

func newStoreOf(t *testing.T, life *lifecycle.Life) (*object.Store, jetstream.JetStream, *told) {
	t.Helper()
	return newStoreAt(t, life, natstest.RunServer(t).URL(), jsapi.Options{})
}

func newStoreAt(t *testing.T, life *lifecycle.Life, url string, o jsapi.Options) (*object.Store, jetstream.JetStream, *told) {
	t.Helper()
	o.Timeout = patience
	api, err := jsapi.New(conntest.Open(t, url, nil), o)
	require.NoError(t, err)
	_, err = api.JetStream().CreateObjectStore(context.Background(), jetstream.ObjectStoreConfig{Bucket: "b"})
	require.NoError(t, err)
	r := &told{}
	return object.Open(api, publish.New(life.Context(), api, patience), life, "b", patience, r), api.JetStream(), r
}

// An object through every door.
func TestStore(t *testing.T) {
	t.Parallel()
	store, _, _ := newStore(t)
	ctx := context.Background()
	content := bytes.Repeat([]byte("0123456789"), 1000)
	var done, total int64
	meta := jetstream.ObjectMeta{Name: "x", Opts: &jetstream.ObjectMetaOptions{ChunkSize: 1000}}
	put, err := store.Put(ctx, meta, bytes.NewReader(content), object.Options{Progress: func(d, t int64) { done, total = d, t }})
	require.NoError(t, err)
	assert.EqualValues(t, 10, put.Chunks)
	assert.Equal(t, []int64{10_000, 10_000}, []int64{done, total})
	require.NoError(t, store.Describe(ctx, "x", jetstream.ObjectMeta{Name: "y"}))
	_, err = store.Link(ctx, "link", &jetstream.ObjectLink{Bucket: "b", Name: "y"})
	require.NoError(t, err)
	got, err := store.Bytes(ctx, "link", object.Options{})
	require.NoError(t, err)
	assert.Equal(t, content, got)
	all, err := store.List(ctx, false)
	require.NoError(t, err)
	assert.Len(t, all, 2)
	require.NoError(t, store.Delete(ctx, "y"))
	_, err = store.Info(ctx, "y", false)
	require.ErrorIs(t, err, jetstream.ErrObjectNotFound)
	gone, err := store.Info(ctx, "y", true)
	require.NoError(t, err)
	assert.True(t, gone.Deleted)
}

// A name that is not UTF-8, as those of files may be, is an object's name like any other, but for what others tell of it.
func TestNameThatIsNoText(t *testing.T) {
	t.Parallel()
	store, _, _ := newStore(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	const name = "caf\xe9"
	meta := jetstream.ObjectMeta{Name: name}
	var nuids []string
	for _, content := range []string{"one", "two"} {
		put, err := store.Put(ctx, meta, strings.NewReader(content), object.Options{})
		require.NoError(t, err)
		nuids = append(nuids, put.NUID)
		got, err := store.Bytes(ctx, name, object.Options{})
		require.NoError(t, err)
		assert.Equal(t, content, string(got))
	}
	described := meta
	described.Description = "new"
	require.NoError(t, store.Describe(ctx, name, described))
	all, err := store.List(ctx, false)
	require.NoError(t, err)
	require.Len(t, all, 1)
	assert.Equal(t, []string{name, "new"}, []string{all[0].Name, all[0].Description})
	require.ErrorIs(t, store.Describe(ctx, name, jetstream.ObjectMeta{Name: "other"}), fault.ErrInvalidArgument)
	_, err = store.Link(ctx, "link", &jetstream.ObjectLink{Bucket: "b", Name: name})
	require.ErrorIs(t, err, fault.ErrInvalidArgument)
	require.NoError(t, store.Delete(ctx, name))
	_, err = store.Info(ctx, name, false)
	require.ErrorIs(t, err, jetstream.ErrObjectNotFound)
	for _, nuid := range nuids {
		left, err := store.StoredChunks(ctx, nuid)
		require.NoError(t, err)
		assert.Zero(t, left)
	}
}

// What no caller sees is reported.
func TestReports(t *testing.T) {
	t.Parallel()
	store, js, r := newStore(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := js.Publish(ctx, "$O.b.M.YnJva2Vu", []byte(`{"nuid":"N","chunks":"one"}`))
	require.NoError(t, err)
	for _, upload := range []string{"N", "orphan"} {
		_, err = js.Publish(ctx, "$O.b.C."+upload, nil)
		require.NoError(t, err)
	}
	_, err = store.Put(ctx, jetstream.ObjectMeta{Name: "early"}, strings.NewReader(""), object.Options{})
	require.NoError(t, err)
	watcher, err := store.Watch(ctx, object.Watch{})
	require.NoError(t, err)
	assert.Equal(t, "broken", (<-watcher.Updates()).Name)
	assert.Equal(t, "early", (<-watcher.Updates()).Name)
	assert.Nil(t, <-watcher.Updates())
	removed := 0
	require.Eventually(t, func() bool {
		removed, err = store.Sweep(ctx, time.Second)
		require.NoError(t, err)
		return removed > 0
	}, patience, 50*time.Millisecond)
	assert.Equal(t, 1, removed)
	require.NoError(t, js.DeleteObjectStore(ctx, "b"))
	for range watcher.Updates() {
		t.Error("an update")
	}
	_, err = store.Sweep(ctx, time.Second)
	require.ErrorIs(t, err, fault.ErrBucketNotFound)
	_, err = store.Put(ctx, jetstream.ObjectMeta{Name: "late"}, strings.NewReader(""), object.Options{})
	require.ErrorIs(t, err, fault.ErrBucketNotFound)
	assert.Equal(t, 1, strings.Count(err.Error(), jetstream.ErrBucketNotFound.Error()), err)
	said := r.Said()
	require.Len(t, said, 3)
	assert.Equal(t, []string{"unread broken in b", "swept orphan in b"}, said[:2])
	assert.Contains(t, said[2], "ended in b")
}

// An upload whose end is not known leaves nothing behind, and takes nothing from who has renamed it since.
func TestSweepAway(t *testing.T) {
	t.Parallel()
	store, js, _ := newStore(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	kept, err := store.Put(ctx, jetstream.ObjectMeta{Name: "kept"}, strings.NewReader("content"), object.Options{})
	require.NoError(t, err)
	moving, err := store.CutRename(ctx, "moving", "moved")
	require.NoError(t, err)
	for _, upload := range []string{"orphan", "claimed", "claimed.sweep", "another's"} {
		_, err = js.Publish(ctx, "$O.b.C."+upload, nil)
		require.NoError(t, err)
	}
	require.NoError(t, store.SweepAway(ctx, "orphan", "claimed", kept.NUID, moving))
	for upload, want := range map[string]uint64{"orphan": 0, "claimed": 1, "another's": 1, kept.NUID: 1, moving: 1} {
		n, err := store.StoredChunks(ctx, upload)
		require.NoError(t, err)
		assert.Equal(t, want, n, upload)
	}
	n, err := store.StoredChunks(ctx, "orphan.sweep")
	require.NoError(t, err)
	assert.Zero(t, n, "the claim is left")
}

// What is flying when a chunk cannot be stored anew is waited for before it is removed, and nothing more.
func TestPutOutOfOrderInVain(t *testing.T) {
	t.Parallel()
	store, js, _ := newStore(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.ErrorIs(t, store.PutOutOfOrder(ctx, "x"), fault.ErrPayloadTooLarge)
	stream, err := js.Stream(ctx, "OBJ_b")
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		info, err := stream.Info(ctx)
		return err == nil && info.State.Msgs == 0
	}, time.Minute, 10*time.Millisecond)
}

// Who is replaced at once has put an object all the same.
func TestPutReplacedAtOnce(t *testing.T) {
	t.Parallel()
	store, js, _ := newStore(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(t, store.PutSlowly(ctx, "replaced", func() {
		_, err := store.Put(ctx, jetstream.ObjectMeta{Name: "replaced"}, strings.NewReader("newer"), object.Options{})
		require.NoError(t, err)
	}))
	require.NoError(t, store.PutSlowly(ctx, "deleted", func() { require.NoError(t, store.Delete(ctx, "deleted")) }))
	require.ErrorIs(t, store.PutSlowly(ctx, "swept", func() {
		stream, err := js.Stream(ctx, "OBJ_b")
		require.NoError(t, err)
		info, err := store.Info(ctx, "swept", false)
		require.NoError(t, err)
		require.NoError(t, stream.Purge(ctx, jetstream.WithPurgeSubject("$O.b.C."+info.NUID)))
	}), fault.ErrObjectCorrupt)
	got, err := store.Bytes(ctx, "replaced", object.Options{})
	require.NoError(t, err)
	assert.Equal(t, "newer", string(got))
}

// Uploads side by side, some of which fail half-way, use each other's buffers, and each stores its own.
func TestUploadsShareBuffers(t *testing.T) {
	t.Parallel()
	store, _, _ := newStore(t)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			content := bytes.Repeat([]byte{byte('a' + i)}, 600<<10)
			meta := jetstream.ObjectMeta{Name: string(content[:1])}
			for range 3 {
				broken := io.MultiReader(bytes.NewReader(content[:400<<10]), iotest.ErrReader(io.ErrClosedPipe))
				_, err := store.Put(ctx, meta, broken, object.Options{})
				assert.ErrorIs(t, err, io.ErrClosedPipe)
				_, err = store.Put(ctx, meta, io.MultiReader(bytes.NewReader(content)), object.Options{}) // of unknown length
				assert.NoError(t, err)
				got, err := store.Bytes(ctx, meta.Name, object.Options{})
				assert.NoError(t, err)
				assert.True(t, bytes.Equal(content, got))
			}
		})
	}
	wg.Wait()
}

// A client that is closed during an upload leaves nothing of it, and does not wait for its end.
func TestCloseDuringAnUpload(t *testing.T) {
	t.Parallel()
	life := lifecycle.New()
	store, js, told := newStoreOf(t, life)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	stored := func() uint64 {
		stream, err := js.Stream(ctx, object.StreamPrefix+"b")
		require.NoError(t, err)
		return stream.CachedInfo().State.Msgs
	}
	source, feed := io.Pipe()
	ended := make(chan error)
	go func() {
		_, err := store.Put(ctx, jetstream.ObjectMeta{Name: "file"}, source, object.Options{})
		ended <- err
	}()
	_, err := feed.Write(make([]byte, 600<<10))
	require.NoError(t, err)
	require.Eventually(t, func() bool { return stored() > 1 }, patience, time.Millisecond)
	left := make(chan uint64, 1)
	go func() {
		_, err := life.Close(ctx, func(context.Context) {}, func(context.Context) { left <- stored() })
		assert.NoError(t, err)
	}()
	require.ErrorIs(t, <-ended, fault.ErrClosed)
	assert.Zero(t, <-left)
	assert.Empty(t, told.Said())
	require.NoError(t, feed.Close())
}
