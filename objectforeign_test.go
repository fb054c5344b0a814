package nats_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// putForeign stores an object of one chunk as another client might, and returns its metadata's bytes.
func putForeign(t testing.TB, client *nats.Client, name, nuid, content string, change func(map[string]any) []byte) {
	t.Helper()
	ctx := within(t, patience)
	_, err := client.JetStream().Publish(ctx, "$O.files.C."+nuid, []byte(content))
	require.NoError(t, err)
	sum := sha256.Sum256([]byte(content))
	meta := map[string]any{
		"name": name, "bucket": "files", "nuid": nuid, "size": len(content), "chunks": 1,
		"digest": "SHA-256=" + base64.URLEncoding.EncodeToString(sum[:]),
	}
	body := change(meta)
	if body == nil {
		body, err = json.Marshal(meta)
		require.NoError(t, err)
	}
	m := natsgo.NewMsg("$O.files.M." + base64.URLEncoding.EncodeToString([]byte(name)))
	m.Header.Set(natsgo.MsgRollup, natsgo.MsgRollupSubject)
	m.Data = body
	_, err = client.JetStream().PublishMsg(ctx, m)
	require.NoError(t, err)
}

// foreignMetadata are kinds of metadata that other clients have written: with them a part of it cannot be read.
var foreignMetadata = map[string]func(map[string]any) []byte{
	"headers as strings": func(m map[string]any) []byte {
		m["headers"] = map[string]string{"Content-Type": "image/jpeg"}
		return nil
	},
	"numbers as strings":    func(m map[string]any) []byte { m["size"], m["chunks"] = "4", "1"; return nil },
	"numbers as floats":     func(m map[string]any) []byte { m["size"], m["chunks"] = 4.5, 1.5; return nil },
	"metadata of any type":  func(m map[string]any) []byte { m["metadata"] = map[string]any{"width": 640}; return nil },
	"options of another":    func(m map[string]any) []byte { m["options"] = []string{"fast"}; return nil },
	"a description in two":  func(m map[string]any) []byte { m["description"] = []string{"a", "b"}; return nil },
	"a digest of any type":  func(m map[string]any) []byte { m["digest"] = 17; return nil },
	"a negative chunk size": func(m map[string]any) []byte { m["options"] = map[string]int{"max_chunk_size": -1}; return nil },
}

// Objects whose metadata is of another make are not invalid calls: they are listed, watched, kept by Sweep, read by
// those who ask for it, replaced, and deleted.
func TestForeignObjects(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	store := newObjects(t, client, "files")
	ctx := within(t, time.Minute)
	for name, change := range foreignMetadata {
		putForeign(t, client, name, "N"+base64.RawURLEncoding.EncodeToString([]byte(name)), "jpeg", change)
	}
	kept := chunkCounts(t, client, "files")
	require.Len(t, kept, len(foreignMetadata))
	eventually(t, "an orphan is swept", func() bool {
		_, err := client.JetStream().Publish(ctx, "$O.files.C.orphan", nil)
		require.NoError(t, err)
		time.Sleep(1100 * time.Millisecond) // what Sweep takes for old
		removed, err := store.Sweep(ctx, time.Second)
		require.NoError(t, err)
		return removed > 0
	})
	assert.Equal(t, kept, chunkCounts(t, client, "files"))
	assert.Len(t, names(t, store), len(foreignMetadata))

	for name := range foreignMetadata {
		for _, err := range []error{
			func() error { _, err := store.GetInfo(ctx, name); return err }(),
			func() error { _, err := store.GetBytes(ctx, name); return err }(),
			store.UpdateMeta(ctx, name, jetstream.ObjectMeta{Name: name}),
			store.UpdateMeta(ctx, name, jetstream.ObjectMeta{Name: "new"}),
		} {
			require.ErrorIs(t, err, nats.ErrObjectCorrupt, name)
			require.NotErrorIs(t, err, nats.ErrInvalidArgument, name)
		}
		text, err := store.GetString(ctx, name, nats.WithUnverifiedObject())
		require.NoError(t, err, name)
		assert.Equal(t, "jpeg", text, name)
		if len(name)%2 == 0 {
			require.NoError(t, store.Delete(ctx, name), name)
			continue
		}
		_, err = store.PutString(ctx, name, "png", nats.WithProgress(func(int64, int64) {}))
		require.NoError(t, err, name)
		text, err = store.GetString(ctx, name)
		require.NoError(t, err, name)
		assert.Equal(t, "png", text, name)
	}
	eventually(t, "no chunks are left", func() bool {
		return maps.Equal(liveChunks(t, store, "files"), chunkCounts(t, client, "files"))
	})
}

// Of metadata that cannot be read at all the name is known, from its subject. Where its text has the NUID the
// object is kept, and where it has not nothing is removed, until somebody replaces it or deletes it.
func TestForeignObjectsBeyondReading(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	store := newObjects(t, client, "files")
	ctx := within(t, time.Minute)
	putForeign(t, client, "cut", "CUT", "jpeg", func(map[string]any) []byte { return []byte(`{"name":"cut","nuid":"CUT","size":4,"ch`) })
	_, err := client.JetStream().Publish(ctx, "$O.files.C.orphan", nil)
	require.NoError(t, err)
	time.Sleep(1100 * time.Millisecond) // what Sweep takes for old
	removed, err := store.Sweep(ctx, time.Second)
	require.NoError(t, err)
	assert.Equal(t, 1, removed)

	putForeign(t, client, "lost", "LOST", "jpeg", func(map[string]any) []byte { return []byte("\x00\x01") })
	putForeign(t, client, "marked", "ANY", "jpeg", func(m map[string]any) []byte { m["nuid"], m["deleted"] = 5, true; return nil })
	assert.ElementsMatch(t, []string{"cut", "lost"}, names(t, store))
	_, err = store.GetString(ctx, "lost", nats.WithUnverifiedObject())
	require.ErrorIs(t, err, nats.ErrObjectCorrupt)
	time.Sleep(1100 * time.Millisecond)
	removed, err = store.Sweep(ctx, time.Second)
	require.ErrorIs(t, err, nats.ErrObjectCorrupt)
	require.ErrorContains(t, err, "lost")
	assert.Zero(t, removed)
	require.NoError(t, store.Delete(ctx, "lost"))
	_, err = store.PutString(ctx, "cut", "png")
	require.NoError(t, err)
	removed, err = store.Sweep(ctx, time.Second)
	require.NoError(t, err)
	assert.Equal(t, 3, removed)
	assert.Equal(t, liveChunks(t, store, "files"), chunkCounts(t, client, "files"))
}

// Content whose digest is missing, or of another kind, is read by those who say that they want it unchecked; a digest
// that there is is checked all the same.
func TestForeignDigests(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	store := newObjects(t, client, "files")
	for name, digest := range map[string]string{
		"none": "", "other": "SHA-512=" + base64.URLEncoding.EncodeToString(make([]byte, 64)), "no base64": "SHA-256=***",
		"wrong": "SHA-256=" + base64.URLEncoding.EncodeToString(make([]byte, 32)),
	} {
		putForeign(t, client, name, "N"+name[:2], "jpeg", func(m map[string]any) []byte { m["digest"] = digest; return nil })
		_, err := store.GetString(within(t, patience), name)
		require.ErrorIs(t, err, nats.ErrObjectCorrupt, name)
		text, err := store.GetString(within(t, patience), name, nats.WithUnverifiedObject())
		if name == "wrong" {
			require.ErrorIs(t, err, nats.ErrObjectCorrupt)
			continue
		}
		require.NoError(t, err, name)
		assert.Equal(t, "jpeg", text, name)
	}
}

// Objects without content may have no NUID, and are not one object for that.
func TestForeignObjectsWithoutContent(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	store := newObjects(t, client, "files")
	ctx := within(t, patience)
	for _, name := range []string{"a", "b"} {
		putForeign(t, client, name, "UNUSED", "", func(m map[string]any) []byte { delete(m, "nuid"); m["chunks"] = 0; return nil })
	}
	require.ErrorIs(t, store.UpdateMeta(ctx, "a", jetstream.ObjectMeta{Name: "b"}), nats.ErrAlreadyExists)
	require.NoError(t, store.UpdateMeta(ctx, "a", jetstream.ObjectMeta{Name: "c"}))
	assert.Equal(t, []string{"b", "c"}, names(t, store))
	got, err := store.GetBytes(ctx, "c")
	require.NoError(t, err)
	assert.Empty(t, got)
}

// A server that marks what has expired leaves no object that cannot be read.
func TestObjectExpiryMarks(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	store := newObjects(t, client, "files")
	ctx := context.Background()
	m := natsgo.NewMsg("$O.files.M." + base64.URLEncoding.EncodeToString([]byte("x")))
	m.Header.Set(jetstream.MarkerReasonHeader, "MaxAge")
	_, err := client.JetStream().PublishMsg(ctx, m)
	require.NoError(t, err)
	_, err = store.GetInfo(ctx, "x")
	require.ErrorIs(t, err, nats.ErrObjectNotFound)
	assert.Empty(t, names(t, store))
	_, err = store.PutString(ctx, "x", "new")
	require.NoError(t, err)
}
