package nats_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// Objects of a domain that is away are waited for, by every call, and then it succeeds.
func TestObjectsWhileTheirDomainIsAway(t *testing.T) {
	t.Parallel()
	servers := leafPair(t, nil)
	ctx := within(t, 4*patience)
	near, err := connect(t, servers["hub"], inDomain("hub")).CreateObjectStore(ctx, "files", nats.WithObjectStoreStorage(jetstream.FileStorage))
	require.NoError(t, err)
	content := noise(300_000)
	for _, name := range []string{"read", "renamed", "deleted"} {
		_, err := near.Put(ctx, chunked(name, 50_000), bytes.NewReader(content))
		require.NoError(t, err)
	}
	far := connect(t, servers["leaf"], inDomain("hub"))
	store, err := far.GetObjectStore(ctx, "files")
	require.NoError(t, err)
	servers["hub"].Stop()
	calls := map[string]func() error{
		"put":    func() error { _, err := store.PutBytes(ctx, "put", content); return err },
		"rename": func() error { return store.UpdateMeta(ctx, "renamed", jetstream.ObjectMeta{Name: "new"}) },
		"delete": func() error { return store.Delete(ctx, "deleted") },
		"link": func() error {
			_, err := store.AddLink(ctx, "link", &jetstream.ObjectInfo{Bucket: "files", ObjectMeta: jetstream.ObjectMeta{Name: "read"}})
			return err
		},
		"get": func() error {
			got, err := store.GetBytes(ctx, "read")
			assert.True(t, bytes.Equal(content, got))
			return err
		},
		"info":   func() error { _, err := store.GetInfo(ctx, "read"); return err },
		"list":   func() error { _, err := store.List(ctx); return err },
		"sweep":  func() error { _, err := store.Sweep(ctx, time.Hour); return err },
		"status": func() error { _, err := store.Status(ctx); return err },
		"handle": func() error { _, err := far.GetObjectStore(ctx, "files"); return err },
		"watch": func() error {
			w, err := store.Watch(ctx)
			if err == nil {
				err = w.Stop()
			}
			return err
		},
	}
	ended := make(chan bool, len(calls))
	for name, call := range calls {
		go func() {
			err := call()
			ended <- assert.NoError(t, err, name)
		}()
	}
	time.AfterFunc(time.Second, func() { servers["hub"].Restart() })
	for range calls {
		require.True(t, <-ended)
	}
	assert.ElementsMatch(t, []string{"read", "new", "put", "link"}, names(t, store))
}

// Two domains may have a bucket of one name, whose streams both store what is uploaded to either. What a call says is
// true of its own domain, and it removes nothing of the other's.
func TestObjectsOfTwoDomains(t *testing.T) {
	t.Parallel()
	servers := leafPair(t, nil)
	ctx := within(t, 4*patience)
	own := newObjects(t, connect(t, servers["leaf"], inDomain("leaf")), "files")
	for i := range 5 {
		_, err := own.PutString(ctx, fmt.Sprint(i), "the leaf's")
		require.NoError(t, err)
	}
	hub := newObjects(t, connect(t, servers["hub"], inDomain("hub")), "files")
	away, err := connect(t, servers["leaf"], inDomain("hub")).GetObjectStore(ctx, "files")
	require.NoError(t, err)
	for i := range 20 {
		name, content := fmt.Sprint(i%10), fmt.Sprint("version ", i)
		if _, err := away.PutString(ctx, name, content); err != nil {
			require.ErrorIs(t, err, nats.ErrWrongDomain, "it says so")
			continue
		}
		got, err := hub.GetString(ctx, name)
		require.NoError(t, err)
		assert.Equal(t, content, got)
		if i%3 == 0 {
			require.NoError(t, away.UpdateMeta(ctx, name, jetstream.ObjectMeta{Name: "renamed " + name}))
			got, err = hub.GetString(ctx, "renamed "+name)
			require.NoError(t, err)
			assert.Equal(t, content, got)
			require.NoError(t, away.Delete(ctx, "renamed "+name))
		}
	}
	// Where only the leaf's stream stores the chunks, the error says so, and they stay.
	near := connect(t, servers["hub"], inDomain("hub"))
	info, err := near.GetStreamInfo(ctx, "OBJ_files")
	require.NoError(t, err)
	info.Config.Subjects = []string{"$O.files.M.>"}
	_, err = near.UpdateStream(ctx, &info.Config)
	require.NoError(t, err)
	leaf := connect(t, servers["leaf"], inDomain("leaf"))
	stored := func(n int) func() bool { return func() bool { return len(chunkCounts(t, leaf, "files")) == n } }
	eventually(t, "the leaf has all chunks", stored(5+20))
	_, err = away.PutString(within(t, 5*time.Second), "elsewhere", "content")
	require.ErrorIs(t, err, nats.ErrWrongDomain)
	eventually(t, "the leaf keeps the chunk", stored(5+20+1))
	for _, name := range names(t, own) {
		_, err := own.GetString(ctx, name)
		require.NoError(t, err, "the leaf's own %s", name)
	}
}
