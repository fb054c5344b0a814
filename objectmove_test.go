package nats_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// A rename is cut after each of its messages, by a network that goes away. Whatever is done next with one of the two
// names, the object is lost only where it is deleted or replaced, and no chunk is left of it.
func TestObjectRenameCut(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	observer := connect(t, s, nil)
	store := newObjects(t, observer, "files")
	content := noise(5000)
	next := map[string]func(ctx context.Context) error{
		"repeated": func(ctx context.Context) error {
			return store.UpdateMeta(ctx, "old", jetstream.ObjectMeta{Name: "new"})
		},
		"undone": func(ctx context.Context) error {
			return store.UpdateMeta(ctx, "new", jetstream.ObjectMeta{Name: "old"})
		},
		"another name": func(ctx context.Context) error {
			return store.UpdateMeta(ctx, "old", jetstream.ObjectMeta{Name: "third"})
		},
		"moved on": func(ctx context.Context) error {
			return store.UpdateMeta(ctx, "new", jetstream.ObjectMeta{Name: "third"})
		},
		"described": func(ctx context.Context) error {
			return store.UpdateMeta(ctx, "old", jetstream.ObjectMeta{Name: "old", Description: "d"})
		},
		"old deleted":  func(ctx context.Context) error { return store.Delete(ctx, "old") },
		"new deleted":  func(ctx context.Context) error { return store.Delete(ctx, "new") },
		"old replaced": func(ctx context.Context) error { _, err := store.PutBytes(ctx, "old", content); return err },
		"new replaced": func(ctx context.Context) error { _, err := store.PutBytes(ctx, "new", content); return err },
	}
	for what, then := range next {
		for cut := int32(1); cut <= 3; cut++ {
			name := fmt.Sprintf("%s after message %d", what, cut)
			ctx := within(t, time.Minute)
			_, err := store.Put(ctx, chunked("old", 1000), bytes.NewReader(content))
			require.NoError(t, err)
			cutRename(t, s, cut)

			err = then(ctx)
			if err != nil && !errors.Is(err, nats.ErrObjectNotFound) && !errors.Is(err, nats.ErrAlreadyExists) {
				require.NoError(t, err, name)
			}
			left := names(t, store)
			if what == "repeated" || what == "undone" {
				require.Len(t, left, 1, name)
			}
			for _, object := range left {
				got, err := store.GetBytes(ctx, object)
				require.NoError(t, err, "%s: %s", name, object)
				assert.True(t, bytes.Equal(content, got), name)
			}
			for _, object := range left { // one after the other, and each time the rest must be there
				for _, other := range names(t, store) {
					_, err := store.GetBytes(ctx, other)
					require.NoError(t, err, "%s: %s, before %s is deleted", name, other, object)
				}
				require.NoError(t, store.Delete(ctx, object), name)
			}
			eventually(t, name+": no chunks are left", func() bool {
				for _, late := range names(t, store) { // by what was on its way at the cut
					require.NoError(t, store.Delete(ctx, late), name)
				}
				return len(chunkCounts(t, observer, "files")) == 0
			})
		}
	}
}

// cutRename renames old to new through a network that goes away after so many messages.
func cutRename(t *testing.T, s *natstest.Server, after int32) {
	t.Helper()
	client, proxy := through(t, s)
	store, err := client.GetObjectStore(within(t, patience), "files")
	require.NoError(t, err)
	nc := raw(t, s)
	ctx, cancel := context.WithCancel(within(t, patience))
	defer cancel()
	var seen atomic.Int32
	_, err = nc.Subscribe("$O.files.M.>", func(*natsgo.Msg) {
		if seen.Add(1) == after {
			proxy.BlackHole()
			cancel()
		}
	})
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	_ = store.UpdateMeta(ctx, "old", jetstream.ObjectMeta{Name: "new"})
	nc.Close()
	end, stop := context.WithTimeout(context.Background(), time.Millisecond)
	defer stop()
	_ = client.Shutdown(end)
}

// Renames there and back, deletions, and uploads of four clients over few names: what is listed can be read.
func TestObjectRenamesRace(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	store := newObjects(t, connect(t, s, nil), "files")
	ctx := within(t, time.Minute)
	var wg sync.WaitGroup
	for i := range 4 {
		client := connect(t, s, nil)
		own, err := client.GetObjectStore(ctx, "files")
		require.NoError(t, err)
		wg.Go(func() {
			for n := range 40 {
				name, other := fmt.Sprint((i+n)%3), fmt.Sprint((i+2*n+1)%3)
				var err error
				switch (i + n) % 4 {
				case 0:
					_, err = own.Put(ctx, chunked(name, 1000), bytes.NewReader(noise(3000)))
				case 1:
					err = own.Delete(ctx, name)
				default:
					err = own.UpdateMeta(ctx, name, jetstream.ObjectMeta{Name: other})
				}
				for _, fine := range []error{nil, nats.ErrObjectNotFound, nats.ErrAlreadyExists, nats.ErrConflict} {
					if errors.Is(err, fine) {
						err = nil
					}
				}
				assert.NoError(t, err)
			}
		})
	}
	wg.Wait()
	for _, name := range names(t, store) {
		got, err := store.GetBytes(ctx, name)
		require.NoError(t, err, name)
		assert.True(t, bytes.Equal(noise(3000), got))
	}
	client := connect(t, s, nil)
	eventually(t, "no chunks are left", func() bool {
		return maps.Equal(liveChunks(t, store, "files"), chunkCounts(t, client, "files"))
	})
}

// A Sweep that has seen no object yet, and removes chunks when the upload has ended: Put returns no nil for what is
// lost, and what it replaced is back.
func TestObjectSweptAfterCommit(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	store := newObjects(t, client, "files")
	ctx := within(t, time.Minute)
	_, err := store.PutString(ctx, "x", "old")
	require.NoError(t, err)
	nc := raw(t, s)
	var upload atomic.Pointer[string]
	_, err = nc.Subscribe("$O.files.C.*", func(m *natsgo.Msg) { upload.CompareAndSwap(nil, &m.Subject) })
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	_, err = store.Put(ctx, chunked("x", 1000), io.MultiReader(bytes.NewReader(noise(1000)), readerFunc(func([]byte) (int, error) {
		eventually(t, "the upload is seen", func() bool { return upload.Load() != nil })
		_, err := client.JetStream().Publish(ctx, *upload.Load()+".sweep", nil) // what a Sweep says first
		assert.NoError(t, err)
		time.Sleep(1100 * time.Millisecond) // a slow source
		return 0, io.EOF
	})))
	require.ErrorIs(t, err, nats.ErrObjectCorrupt)
	text, err := store.GetString(ctx, "x")
	require.NoError(t, err)
	assert.Equal(t, "old", text)
	eventually(t, "nothing is left of it", func() bool { return len(chunkCounts(t, client, "files")) == 2 })
	eventually(t, "the claim is removed", func() bool {
		_, err := store.Sweep(ctx, time.Second)
		require.NoError(t, err)
		return len(chunkCounts(t, client, "files")) == 1
	})
}

// A rename is done when the old name is deleted. That a trace of it stays is no failure.
func TestObjectRenameWithoutPurge(t *testing.T) {
	t.Parallel()
	s := restricted(t, &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.API.STREAM.PURGE.>"}}})
	ctx := within(t, patience)
	own := newObjects(t, connect(t, s, as("admin")), "files")
	_, err := own.PutString(ctx, "old", "content")
	require.NoError(t, err)
	store, err := connect(t, s, as("u")).GetObjectStore(ctx, "files")
	require.NoError(t, err)
	require.NoError(t, store.UpdateMeta(ctx, "old", jetstream.ObjectMeta{Name: "new"}))
	assert.Equal(t, []string{"new"}, names(t, own))
	got, err := own.GetString(ctx, "new")
	require.NoError(t, err)
	assert.Equal(t, "content", got)
}
