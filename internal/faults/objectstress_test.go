package faults_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// objectStress does something at random with one of a few names, so that the clients are often at the same one.
func objectStress(ctx context.Context, t *testing.T, store *nats.ObjectStore) (what string, err error) {
	name := func() string { return fmt.Sprint("object-", rand.IntN(6)) }
	link := fmt.Sprint("link-", rand.IntN(3))
	switch n := rand.IntN(100); {
	case n < 30:
		seed := rand.Uint64N(1000)
		meta := jetstream.ObjectMeta{
			Name: name(), Opts: &jetstream.ObjectMetaOptions{ChunkSize: objectPiece},
		}
		_, err := store.Put(ctx, meta, newObjectSource(seed, 4*objectPiece+int(seed), objectPiece, 0))
		return "put", err
	case n < 42:
		return "delete", store.Delete(ctx, name())
	case n < 60:
		return "rename", store.UpdateMeta(ctx, name(), jetstream.ObjectMeta{Name: name()})
	case n < 65:
		_, err := store.AddLink(ctx, link, &jetstream.ObjectInfo{Bucket: "files", ObjectMeta: jetstream.ObjectMeta{Name: name()}})
		return "link", err
	case n < 68:
		_, err := store.Sweep(ctx, time.Second)
		return "sweep", err
	case n < 73:
		_, err := store.GetBytes(ctx, link)
		return "follow a link", err
	}
	result, err := store.Get(ctx, name())
	if err != nil {
		return "read", err
	}
	defer func() { _ = result.Close() }()
	var data bytes.Buffer
	_, err = data.ReadFrom(result)
	return "read", err
}

// Four clients put, delete, rename, link, sweep and read at random over changes of the leader. No read finds an object
// that is corrupt, and nothing is left of what was replaced or deleted.
func TestObjectStress(t *testing.T) {
	operations := 5000
	if testing.Short() {
		operations = 500
	}
	servers := publishServers(t, 3)
	stores := make([]*nats.ObjectStore, 4)
	clients := make([]*nats.Client, len(stores))
	for i := range stores {
		clients[i] = publishClient(t, servers)
		publishEventually(t, "the bucket is created", func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			var err error
			stores[i], err = clients[i].CreateObjectStore(ctx, "files", nats.WithObjectStoreReplicas(3))
			return err == nil
		})
	}
	var left atomic.Int64
	left.Store(int64(operations))
	var mu sync.Mutex
	outcomes := map[string]int{}
	fine := []error{nats.ErrObjectNotFound, nats.ErrAlreadyExists, nats.ErrConflict}
	var wg sync.WaitGroup
	for _, store := range stores {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				what, err := objectStress(ctx, t, store)
				cancel()
				outcome := what
				if err != nil {
					outcome += ", refused"
					known := what == "put" && errors.Is(err, nats.ErrObjectCorrupt) // it paused, and a Sweep took it for an orphan
					for _, one := range fine {
						known = known || errors.Is(err, one)
					}
					assert.True(t, known, "%s: %v", what, err)
				}
				mu.Lock()
				outcomes[outcome]++
				mu.Unlock()
			}
		})
	}
	// To the very end: a leader may take a subject for one that is being stored to until the next election.
	var ended atomic.Bool
	go func() { wg.Wait(); ended.Store(true) }()
	changes := 0
	for !ended.Load() {
		publishLeader(t, clients[0], servers, "OBJ_files")
		time.Sleep(time.Duration(500+rand.IntN(1000)) * time.Millisecond)
		if _, err := clients[0].Conn().Request("$JS.API.STREAM.LEADER.STEPDOWN.OBJ_files", nil, 5*time.Second); err == nil {
			changes++
		}
	}
	publishLeader(t, clients[0], servers, "OBJ_files")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	objects, err := stores[0].List(ctx)
	require.NoError(t, err)
	for object := range objects {
		if object.Opts != nil && object.Opts.Link != nil {
			continue
		}
		seed := object.Size - 4*objectPiece // no change of the metadata changes it
		got, err := stores[1].GetBytes(ctx, object.Name)
		require.NoError(t, err, object.Name)
		assert.True(t, bytes.Equal(objectContent(seed, int(object.Size), objectPiece), got), "%s is another's content", object.Name)
	}
	publishEventually(t, "nothing is left of what was replaced", func() bool {
		var live uint64
		objects, err := stores[0].List(ctx)
		require.NoError(t, err)
		for object := range objects {
			live += uint64(object.Chunks)
		}
		asked, cancel := context.WithTimeout(ctx, 5*time.Second) // upstream asks once
		defer cancel()
		stream, err := clients[0].JetStream().Stream(asked, "OBJ_files")
		if err != nil {
			return false
		}
		info, err := stream.Info(asked, jetstream.WithSubjectFilter("$O.files.C.>"))
		if err != nil {
			return false
		}
		var stored uint64
		for _, n := range info.State.Subjects {
			stored += n
		}
		return stored == live
	})
	t.Logf("%d operations over %d changes of the leader: %v", operations, changes, outcomes)
}
