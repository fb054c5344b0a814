package nats_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// forge publishes an object's metadata past the library.
func forge(t testing.TB, client *nats.Client, bucket string, info jetstream.ObjectInfo, change func(*jetstream.ObjectInfo)) {
	t.Helper()
	change(&info)
	body, err := json.Marshal(info)
	require.NoError(t, err)
	m := natsgo.NewMsg("$O." + bucket + ".M." + base64.URLEncoding.EncodeToString([]byte(info.Name)))
	m.Header.Set(natsgo.MsgRollup, natsgo.MsgRollupSubject)
	m.Data = body
	_, err = client.JetStream().PublishMsg(context.Background(), m)
	require.NoError(t, err)
}

// Every way to read must refuse bytes that are not those that were stored.
func TestObjectCorrupt(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	js := client.JetStream()
	store := newObjects(t, client, "files")
	ctx := context.Background()
	const size = 5000
	content := noise(size)
	other := jetstream.ObjectInfo{}
	for name, corrupt := range map[string]func(t *testing.T, info jetstream.ObjectInfo){
		"digest": func(t *testing.T, info jetstream.ObjectInfo) {
			forge(t, client, "files", info, func(i *jetstream.ObjectInfo) {
				i.Digest = "SHA-256=" + base64.URLEncoding.EncodeToString(make([]byte, 32))
			})
		},
		"no digest": func(t *testing.T, info jetstream.ObjectInfo) {
			forge(t, client, "files", info, func(i *jetstream.ObjectInfo) { i.Digest = "" })
		},
		"size too large": func(t *testing.T, info jetstream.ObjectInfo) {
			forge(t, client, "files", info, func(i *jetstream.ObjectInfo) { i.Size++ })
		},
		"size absurd": func(t *testing.T, info jetstream.ObjectInfo) {
			forge(t, client, "files", info, func(i *jetstream.ObjectInfo) { i.Size = 1 << 62 })
		},
		"size too small": func(t *testing.T, info jetstream.ObjectInfo) {
			forge(t, client, "files", info, func(i *jetstream.ObjectInfo) { i.Size -= 1000 })
		},
		"size zero": func(t *testing.T, info jetstream.ObjectInfo) {
			forge(t, client, "files", info, func(i *jetstream.ObjectInfo) { i.Size = 0 })
		},
		"chunks zero": func(t *testing.T, info jetstream.ObjectInfo) {
			forge(t, client, "files", info, func(i *jetstream.ObjectInfo) { i.Chunks = 0 })
		},
		"chunks too few": func(t *testing.T, info jetstream.ObjectInfo) {
			forge(t, client, "files", info, func(i *jetstream.ObjectInfo) { i.Chunks-- })
		},
		"no nuid": func(t *testing.T, info jetstream.ObjectInfo) {
			forge(t, client, "files", info, func(i *jetstream.ObjectInfo) { i.NUID = "" })
		},
		"another's chunks": func(t *testing.T, info jetstream.ObjectInfo) {
			forge(t, client, "files", info, func(i *jetstream.ObjectInfo) { i.NUID = other.NUID })
		},
		"chunk missing": func(t *testing.T, info jetstream.ObjectInfo) {
			stream, err := js.Stream(ctx, "OBJ_files")
			require.NoError(t, err)
			m, err := stream.GetMsg(ctx, 1, jetstream.WithGetMsgSubject("$O.files.C."+info.NUID))
			require.NoError(t, err)
			require.NoError(t, stream.DeleteMsg(ctx, m.Sequence+1))
		},
		"chunk too many": func(t *testing.T, info jetstream.ObjectInfo) {
			_, err := js.Publish(ctx, "$O.files.C."+info.NUID, []byte("x"))
			require.NoError(t, err)
		},
		"chunk altered": func(t *testing.T, info jetstream.ObjectInfo) {
			stream, err := js.Stream(ctx, "OBJ_files")
			require.NoError(t, err)
			m, err := stream.GetLastMsgForSubject(ctx, "$O.files.C."+info.NUID)
			require.NoError(t, err)
			require.NoError(t, stream.DeleteMsg(ctx, m.Sequence))
			m.Data[len(m.Data)/2] ^= 1
			_, err = js.Publish(ctx, m.Subject, m.Data)
			require.NoError(t, err)
		},
	} {
		if other.NUID == "" {
			info, err := store.PutBytes(ctx, "other", bytes.Repeat([]byte("x"), size))
			require.NoError(t, err)
			other = *info
		}
		info, err := store.Put(ctx, chunked(name, 1000), bytes.NewReader(content))
		require.NoError(t, err)
		corrupt(t, *info)

		data, err := store.GetBytes(ctx, name)
		require.ErrorIs(t, err, nats.ErrObjectCorrupt, name)
		assert.Nil(t, data, name)
		text, err := store.GetString(ctx, name)
		require.ErrorIs(t, err, nats.ErrObjectCorrupt, name)
		assert.Empty(t, text, name)

		dir := t.TempDir()
		file := filepath.Join(dir, "file")
		require.NoError(t, os.WriteFile(file, []byte("old"), 0o600))
		require.ErrorIs(t, store.GetFile(ctx, name, file), nats.ErrObjectCorrupt, name)
		require.ErrorIs(t, store.GetFile(ctx, name, filepath.Join(dir, "new")), nats.ErrObjectCorrupt, name)
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		assert.Len(t, entries, 1, name)
		old, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.Equal(t, "old", string(old), name)

		result, err := store.Get(ctx, name)
		if err == nil {
			_, err = io.ReadAll(result)
			require.ErrorIs(t, result.Error(), nats.ErrObjectCorrupt, name)
			_ = result.Close()
		}
		require.ErrorIs(t, err, nats.ErrObjectCorrupt, name)
	}
	eventually(t, "no consumers", func() bool { return consumers(t, client, "OBJ_files") == 0 })
}

// A reader of exactly the size never sees the end, where upstream checks.
func TestObjectCorruptReadExactly(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	store := newObjects(t, client, "files")
	ctx := within(t, patience)
	info, err := store.Put(ctx, chunked("x", 1000), bytes.NewReader(noise(5000)))
	require.NoError(t, err)
	forge(t, client, "files", *info, func(i *jetstream.ObjectInfo) {
		i.Digest = "SHA-256=" + base64.URLEncoding.EncodeToString(make([]byte, 32))
	})
	buffer := make([]byte, info.Size)
	result, err := store.Get(ctx, "x")
	require.NoError(t, err)
	_, err = io.ReadFull(result, buffer)
	require.ErrorIs(t, err, nats.ErrObjectCorrupt)
	require.ErrorIs(t, err, jetstream.ErrDigestMismatch)

	upstream, err := store.ObjectStore.Get(ctx, "x")
	require.NoError(t, err)
	_, err = io.ReadFull(upstream, buffer)
	require.NoError(t, err, "upstream has learnt to check: the test can go")
	_, _ = io.Copy(io.Discard, upstream) // lets its goroutine go
}

func TestObjectGetFile(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	store := newObjects(t, client, "files")
	ctx := context.Background()
	content := noise(1 << 20)
	_, err := store.PutBytes(ctx, "x", content)
	require.NoError(t, err)
	dir := t.TempDir()
	holds := func(file string) {
		t.Helper()
		got, err := os.ReadFile(file)
		require.NoError(t, err)
		assert.True(t, bytes.Equal(content, got))
	}
	mode := func(file string) os.FileMode {
		t.Helper()
		info, err := os.Lstat(file)
		require.NoError(t, err)
		return info.Mode()
	}
	created := filepath.Join(dir, "new")
	require.NoError(t, store.GetFile(ctx, "x", created))
	holds(created)
	for _, want := range []os.FileMode{0o600, 0o666, 0o640} {
		file := filepath.Join(dir, want.String())
		require.NoError(t, os.WriteFile(file, []byte("old"), 0o600))
		require.NoError(t, os.Chmod(file, want)) // the umask does not apply
		require.NoError(t, store.GetFile(ctx, "x", file))
		holds(file)
		assert.Equal(t, want, mode(file))
	}
	link := filepath.Join(dir, "link")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "target"), nil, 0o600))
	require.NoError(t, os.Symlink("target", link))
	require.NoError(t, store.GetFile(ctx, "x", link))
	holds(filepath.Join(dir, "target"))
	assert.NotZero(t, mode(link)&os.ModeSymlink)
	long := filepath.Join(dir, string(bytes.Repeat([]byte("l"), 255)))
	require.NoError(t, store.GetFile(ctx, "x", long))
	holds(long)

	before, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.ErrorIs(t, store.GetFile(ctx, "x", filepath.Join(dir, "missing", "file")), os.ErrNotExist)
	require.Error(t, store.GetFile(ctx, "x", dir))
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	require.ErrorIs(t, store.GetFile(cancelled, "x", created), context.Canceled)
	after, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, after, len(before), "temporary files are left")
}

// The object's chunks go while a reader is in the middle.
func TestObjectChangedWhileRead(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	content := noise(1 << 20)
	for name, test := range map[string]struct {
		change func(store *nats.ObjectStore) error
		want   error
	}{
		"replaced": {func(store *nats.ObjectStore) error {
			_, err := store.Put(ctx, chunked("x", 1000), bytes.NewReader(make([]byte, len(content))))
			return err
		}, nats.ErrConflict},
		"deleted": {func(store *nats.ObjectStore) error { return store.Delete(ctx, "x") }, nats.ErrObjectNotFound},
		"purged": {func(*nats.ObjectStore) error {
			return client.PurgeStream(ctx, "OBJ_purged", jetstream.WithPurgeSubject("$O.purged.C.>"))
		}, nats.ErrObjectCorrupt},
		"bucket":   {func(*nats.ObjectStore) error { return client.DeleteObjectStore(ctx, "bucket") }, nats.ErrBucketNotFound},
		"finished": {func(*nats.ObjectStore) error { return nil }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := newObjects(t, client, name)
			_, err := store.Put(ctx, chunked("x", 1000), bytes.NewReader(content))
			require.NoError(t, err)
			result, err := store.Get(within(t, time.Minute), "x")
			require.NoError(t, err)
			defer func() { _ = result.Close() }()
			got := make([]byte, len(content))
			n, err := io.ReadFull(result, got[:5000])
			require.NoError(t, err)
			require.NoError(t, test.change(store))
			begin := time.Now()
			more, err := io.ReadFull(result, got[n:])
			require.ErrorIs(t, err, test.want)
			assert.True(t, bytes.Equal(content[:n+more], got[:n+more]), "not a mix")
			assert.Less(t, since(begin), patience)
		})
	}
}

// While a writer replaces the object all the time, every read yields one version as a whole or says
// that it was replaced.
func TestObjectReplacedAllTheTime(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	store := newObjects(t, client, "files")
	ctx, cancel := context.WithCancel(context.Background())
	version := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, 20_000) }
	_, err := store.Put(ctx, chunked("x", 1000), bytes.NewReader(version(0)))
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 1; ctx.Err() == nil; i++ {
			_, _ = store.Put(ctx, chunked("x", 1000), bytes.NewReader(version(i)))
		}
	}()
	defer func() { cancel(); <-done }()
	whole := 0
	for begin := time.Now(); whole < 20 || time.Since(begin) < time.Second; {
		data, err := store.GetBytes(within(t, patience), "x")
		if err != nil {
			require.ErrorIs(t, err, nats.ErrConflict)
			continue
		}
		require.True(t, bytes.Equal(version(int(data[0])), data), "a mix")
		whole++
	}
}

func TestObjectReadersEnd(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	proxy := natstest.NewProxy(t, s.URL())
	observer := connect(t, s, nil)
	client := connect(t, s, func(c *nats.Config) {
		c.URLs, c.RequestTimeout = []string{proxy.URL()}, 2*time.Second
	})
	store := newObjects(t, observer, "files")
	content := noise(2 << 20)
	_, err := store.Put(context.Background(), chunked("x", 1000), bytes.NewReader(content))
	require.NoError(t, err)
	store, err = client.GetObjectStore(within(t, patience), "files")
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(within(t, time.Hour))
	reason := errors.New("the reason")

	// All of them hang at the same black hole.
	open := func(ctx context.Context) jetstream.ObjectResult {
		result, err := store.Get(ctx, "x")
		require.NoError(t, err)
		return result
	}
	forever, stop := context.WithTimeout(context.Background(), time.Hour)
	defer stop()
	idle, cancelled, timed, closed := open(context.Background()), open(ctx), open(within(t, 4*time.Second)), open(forever)
	unread := open(ctx)
	proxy.BlackHole()
	read := func(result jetstream.ObjectResult) <-chan error {
		ended := make(chan error, 1)
		go func() {
			_, err := io.ReadAll(result)
			ended <- err
		}()
		return ended
	}
	begin := time.Now()
	ends := []<-chan error{read(idle), read(cancelled), read(timed), read(closed)}
	err = <-ends[0]
	require.ErrorIs(t, err, nats.ErrTimeout)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Less(t, since(begin), 20*time.Second, "upstream waits for ever")
	require.ErrorIs(t, <-ends[2], nats.ErrTimeout)
	begin = time.Now()
	cancel(reason)
	require.ErrorIs(t, <-ends[1], reason)
	require.NoError(t, closed.Close())
	require.ErrorIs(t, <-ends[3], os.ErrClosed)
	assert.Less(t, since(begin), 20*time.Second, "not after the hour that the context allows")
	_, err = unread.Read(make([]byte, 1))
	require.ErrorIs(t, err, reason, "what came before the cancellation is void, too")
	proxy.Restore()
	eventually(t, "no consumers", func() bool { return consumers(t, observer, "OBJ_files") == 0 })
	eventually(t, "no subscriptions", func() bool { return client.Conn().NumSubscriptions() <= 2 }) // for answers: upstream's and ours
}

// Upstream gives a download without a deadline 5 s for the whole; here the time is for every chunk.
func TestObjectSlowLink(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	proxy := natstest.NewProxy(t, s.URL())
	client := connect(t, s, func(c *nats.Config) { c.URLs, c.RequestTimeout = []string{proxy.URL()}, 3*time.Second })
	store := newObjects(t, client, "files")
	content := noise(2 << 20)
	_, err := store.Put(within(t, patience), chunked("x", 64<<10), bytes.NewReader(content))
	require.NoError(t, err)
	proxy.Throttle(400 << 10)
	begin := time.Now()
	got, err := store.GetBytes(context.Background(), "x")
	require.NoError(t, err)
	assert.True(t, bytes.Equal(content, got))
	assert.Greater(t, time.Since(begin), 4*time.Second)
}

// One chunk takes longer than the silence after which a consumer counts as dead.
func TestObjectVerySlowLink(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	proxy := natstest.NewProxy(t, s.URL())
	client := connect(t, s, func(c *nats.Config) { c.URLs, c.RequestTimeout = []string{proxy.URL()}, patience })
	store := newObjects(t, client, "files")
	content := noise(256 << 10)
	_, err := store.PutBytes(context.Background(), "x", content)
	require.NoError(t, err)
	proxy.Throttle(52 << 10)
	received := client.Stats().InBytes
	got, err := store.GetBytes(context.Background(), "x")
	require.NoError(t, err)
	assert.True(t, bytes.Equal(content, got))
	assert.Less(t, client.Stats().InBytes-received, uint64(len(content)*3/2), "the chunks come again and again")
}

func TestObjectReaderSurvivesRestart(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	ctx := within(t, time.Minute)
	store, err := client.CreateObjectStore(ctx, "files")
	require.NoError(t, err)
	content := noise(2 << 20)
	_, err = store.Put(ctx, chunked("x", 1000), bytes.NewReader(content))
	require.NoError(t, err)
	result, err := store.Get(ctx, "x")
	require.NoError(t, err)
	got := make([]byte, len(content))
	n, err := io.ReadFull(result, got[:100_000])
	require.NoError(t, err)
	s.Stop()
	begin := time.Now()
	s.Restart()
	_, err = io.ReadFull(result, got[n:])
	require.NoError(t, err)
	assert.True(t, bytes.Equal(content, got))
	assert.Less(t, since(begin), 10*time.Second, "upstream takes 20 s")
	require.NoError(t, result.Close())
	eventually(t, "no consumers", func() bool { return consumers(t, client, "OBJ_files") == 0 })
}

// With an open download there is nothing that Close would have to send.
func TestObjectReaderDoesNotHoldCloseWhileDisconnected(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	store := newObjects(t, client, "files")
	_, err := store.Put(context.Background(), chunked("x", 1000), bytes.NewReader(noise(2<<20)))
	require.NoError(t, err)
	result, err := store.Get(context.Background(), "x")
	require.NoError(t, err)
	_, err = result.Read(make([]byte, 1))
	require.NoError(t, err)
	s.Stop()
	eventually(t, "disconnected", func() bool { return !client.IsConnected() })
	begin := time.Now()
	require.NoError(t, client.Close())
	assert.Less(t, since(begin), 5*time.Second)
	_, err = io.ReadAll(result)
	require.ErrorIs(t, err, nats.ErrClosed)
}

func TestGetBytesAllocatesOnce(t *testing.T) { // alone: it counts all of the process
	client := connect(t, natstest.RunServer(t), nil)
	store := newObjects(t, client, "files")
	const size = 16 << 20
	_, err := store.PutBytes(within(t, patience), "x", noise(size))
	require.NoError(t, err)
	allocated := func(get func(ctx context.Context)) uint64 { // at least: what is sent again on a busy machine, and what the race detector drops, is no measure
		var least uint64
		for i := range 3 {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			get(within(t, patience))
			runtime.ReadMemStats(&after)
			if took := after.TotalAlloc - before.TotalAlloc; i == 0 || took < least {
				least = took
			}
		}
		return least
	}
	// What the server in this process and nats.go take cannot be avoided.
	least := allocated(func(ctx context.Context) {
		result, err := store.ObjectStore.Get(ctx, "x")
		require.NoError(t, err)
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, result, make([]byte, 32<<10))
		require.NoError(t, err)
	})
	ours := allocated(func(ctx context.Context) {
		data, err := store.GetBytes(ctx, "x")
		require.NoError(t, err)
		assert.Len(t, data, size)
	})
	assert.Less(t, ours, least+size*3/2, "the result and little more")
}
