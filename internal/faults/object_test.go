package faults_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

const (
	objectSize  = 200_000
	objectPiece = 5_000
)

// objectLoad overwrites one object, puts others, and reads, and knows what has to be there.
type objectLoad struct {
	t     *testing.T
	store *nats.ObjectStore
	stop  chan struct{}
	wg    sync.WaitGroup

	acknowledged atomic.Uint64 // the last version of "x" whose Put returned nil
	attempted    atomic.Uint64 // the last one that began
	puts         atomic.Int64
	failed       atomic.Int64
	reads        atomic.Int64
	missed       atomic.Int64 // reads that said so
}

func (l *objectLoad) put(name string, version uint64) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	meta := jetstream.ObjectMeta{Name: name, Opts: &jetstream.ObjectMetaOptions{ChunkSize: objectPiece}}
	_, err := l.store.Put(ctx, meta, newObjectSource(version, objectSize, objectPiece, 10*time.Millisecond))
	if err != nil {
		l.failed.Add(1)
		l.t.Logf("put of %s, version %d: %v", name, version, err)
		assert.True(l.t, errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrConnectionLost) || errors.Is(err, nats.ErrNotConnected), err)
		return err
	}
	l.puts.Add(1)
	return nil
}

func (l *objectLoad) get(name string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return l.store.GetBytes(ctx, name)
}

func (l *objectLoad) until(f func(i uint64)) {
	l.wg.Go(func() {
		for i := uint64(1); ; i++ {
			select {
			case <-l.stop:
				return
			default:
				f(i)
			}
		}
	})
}

// overwrite puts the next version of "x", which is alone in being written.
func (l *objectLoad) overwrite(version uint64) {
	l.attempted.Store(version)
	if l.put("x", version) == nil {
		l.acknowledged.Store(version)
	}
}

// check reads "x", which must be a version not older than the last one acknowledged.
func (l *objectLoad) check(uint64) {
	oldest := l.acknowledged.Load()
	data, err := l.get("x")
	if err != nil {
		l.missed.Add(1)
		assert.NotErrorIs(l.t, err, nats.ErrObjectCorrupt)
		assert.NotErrorIs(l.t, err, nats.ErrObjectNotFound, "the old version is lost")
		return
	}
	for version := l.attempted.Load(); version >= max(oldest, 1); version-- {
		if bytes.Equal(data, objectContent(version, objectSize, objectPiece)) {
			l.reads.Add(1)
			return
		}
	}
	assert.Fail(l.t, "not a version, or one that was replaced", "between %d and %d", oldest, l.attempted.Load())
}

// create puts an object under a new name and reads it.
func (l *objectLoad) create(i uint64) {
	name, version := fmt.Sprint("new-", i%10), 1_000_000+i
	if l.put(name, version) != nil {
		return
	}
	data, err := l.get(name)
	if assert.NoError(l.t, err) {
		assert.True(l.t, bytes.Equal(data, objectContent(version, objectSize, objectPiece)), "%s is corrupt", name)
	}
}

// Upstream's Put returned nil and stored a corrupt object at 4 of 4 such leader changes.
func TestObjectsOverLeaderChanges(t *testing.T) {
	stepdowns, kills := 45, 5
	if testing.Short() {
		stepdowns, kills = 5, 1
	}
	servers := publishServers(t, 3)
	client := publishClient(t, servers)
	var store *nats.ObjectStore
	publishEventually(t, "the bucket is created", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		var err error
		store, err = client.CreateObjectStore(ctx, "files", nats.WithObjectStoreConfig(
			func(c *jetstream.ObjectStoreConfig) { c.Replicas = 3 }))
		return err == nil
	})
	l := &objectLoad{t: t, store: store, stop: make(chan struct{})}
	l.overwrite(1)
	require.EqualValues(t, 1, l.acknowledged.Load())
	l.until(func(i uint64) { l.overwrite(i + 1) })
	l.until(l.create)
	l.until(l.check)
	for i := range stepdowns + kills {
		publishEventually(t, "the load goes on", func() bool { return l.puts.Load() > int64(i/4) && l.reads.Load() > int64(i/2) })
		leader := publishLeader(t, client, servers, "OBJ_files")
		time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond) // somewhere in a Put
		if i%10 == 9 {
			leader.kill()
			time.Sleep(time.Second) // nobody leads
			leader.start()
			continue
		}
		publishEventually(t, "the leader steps down", func() bool {
			_, err := client.Conn().Request("$JS.API.STREAM.LEADER.STEPDOWN.OBJ_files", nil, 5*time.Second)
			return err == nil
		})
	}
	publishLeader(t, client, servers, "OBJ_files")
	close(l.stop)
	l.wg.Wait()
	l.check(0)

	// All that is stored can be read, and nothing else is stored.
	ctx := within(t, time.Minute)
	objects, err := store.List(ctx)
	require.NoError(t, err)
	for object := range objects {
		_, err := store.GetBytes(ctx, object.Name)
		require.NoError(t, err, object.Name)
	}
	time.Sleep(time.Second) // makes what is left an orphan
	swept, err := store.Sweep(ctx, time.Second)
	require.NoError(t, err)
	objectSum(t, client, store)
	assert.Greater(t, l.puts.Load(), int64(stepdowns+kills)/4)
	assert.Greater(t, l.reads.Load(), int64(stepdowns+kills)/2)
	t.Attr("figure", fmt.Sprintf("%d puts (%d failed) and %d whole reads (%d failed) over %d stepdowns and %d kills; %d chunks swept",
		l.puts.Load(), l.failed.Load(), l.reads.Load(), l.missed.Load(), stepdowns, kills, swept))
}

// objectSum compares the bytes of all chunks in the bucket with the sizes of its objects.
func objectSum(t *testing.T, client *nats.Client, store *nats.ObjectStore) {
	t.Helper()
	ctx := within(t, time.Minute)
	var live, stored uint64
	objects, err := store.List(ctx)
	require.NoError(t, err)
	for object := range objects {
		live += object.Size
	}
	consumer, err := client.JetStream().OrderedConsumer(ctx, "OBJ_files", jetstream.OrderedConsumerConfig{FilterSubjects: []string{"$O.files.C.>"}})
	require.NoError(t, err)
	info, err := consumer.Info(ctx)
	require.NoError(t, err)
	for left := int(info.NumPending); left > 0; {
		batch, err := consumer.Fetch(min(left, 500), jetstream.FetchMaxWait(10*time.Second))
		require.NoError(t, err)
		for msg := range batch.Messages() {
			stored += uint64(len(msg.Data()))
			left--
		}
		require.NoError(t, batch.Error())
	}
	assert.Equal(t, live, stored, "bytes in the stream == the objects' sizes")
}

func TestObjectOrphansOfKilledProcesses(t *testing.T) {
	servers := publishServers(t, 1)
	client := publishClient(t, servers)
	ctx := within(t, 5*time.Minute)
	store, err := client.CreateObjectStore(ctx, "files")
	require.NoError(t, err)
	for i := range 5 {
		_, err := store.PutBytes(ctx, fmt.Sprint("kept-", i), objectContent(uint64(i), 300_000, 1000))
		require.NoError(t, err)
	}
	_, err = store.PutBytes(ctx, "killed", objectContent(7, 300_000, 1000)) // the uploads would replace it
	require.NoError(t, err)

	// One upload goes on all the time.
	stop, uploaded, size := make(chan struct{}), make(chan error, 1), 0
	go func() {
		_, err := store.Put(ctx, jetstream.ObjectMeta{Name: "concurrent", Opts: &jetstream.ObjectMetaOptions{ChunkSize: 1000}},
			objectReader(func(p []byte) (int, error) {
				select {
				case <-stop:
					return 0, io.EOF
				case <-time.After(50 * time.Millisecond):
				}
				size += len(p)
				return len(p), nil
			}))
		uploaded <- err
	}()
	for range 20 {
		objectKilledUpload(t, servers[0].url(), rand.Int64N(2<<20))
	}
	swept := 0
	publishEventually(t, "the last orphan is old enough", func() bool {
		n, err := store.Sweep(ctx, 2*time.Second)
		require.NoError(t, err)
		swept += n
		info, err := store.Status(ctx)
		require.NoError(t, err)
		stream, err := client.JetStream().Stream(ctx, "OBJ_"+info.Bucket())
		require.NoError(t, err)
		state, err := stream.Info(ctx, jetstream.WithSubjectFilter("$O.files.C.>"))
		require.NoError(t, err)
		return len(state.State.Subjects) == 5+1+1
	})
	close(stop)
	require.NoError(t, <-uploaded)
	data, err := store.GetBytes(ctx, "concurrent")
	require.NoError(t, err)
	assert.Len(t, data, size)
	data, err = store.GetBytes(ctx, "killed")
	require.NoError(t, err)
	assert.True(t, bytes.Equal(objectContent(7, 300_000, 1000), data))
	objectSum(t, client, store)
	t.Attr("figure", fmt.Sprintf("20 uploads killed, %d chunks swept", swept))
}

type objectReader func(p []byte) (int, error)

func (f objectReader) Read(p []byte) (int, error) { return f(p) }

// Nothing is in memory but what is on its way.
func TestObjectLargerThanMemory(t *testing.T) {
	size := 256 << 20
	if testing.Short() {
		size = 64 << 20
	}
	client := publishClient(t, publishServers(t, 1)) // its memory is not this process's
	ctx := within(t, 10*time.Minute)
	store, err := client.CreateObjectStore(ctx, "files")
	require.NoError(t, err)
	growth := func(what string, f func()) {
		runtime.GC()
		memory := func() int64 {
			var stats runtime.MemStats
			runtime.ReadMemStats(&stats)
			return int64(stats.HeapInuse + stats.StackInuse)
		}
		before, done, most := memory(), make(chan struct{}), int64(0)
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				most = max(most, memory()-before)
				select {
				case <-done:
					return
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
		begin := time.Now()
		f()
		took := time.Since(begin)
		close(done)
		wg.Wait()
		assert.Less(t, most, int64(64<<20), "bytes of growth during a %s", what)
		t.Logf("%s of %d MiB in %v (%.0f MB/s), at most %d KiB more in memory", what, size>>20,
			took.Round(time.Millisecond), float64(size)/1e6/took.Seconds(), most>>10)
	}
	growth("Put", func() {
		_, err = store.Put(ctx, jetstream.ObjectMeta{Name: "large"}, newObjectSource(1, size, 1<<20, 0))
		require.NoError(t, err)
	})
	growth("Get", func() {
		result, err := store.Get(ctx, "large")
		require.NoError(t, err)
		n, err := io.Copy(io.Discard, result)
		require.NoError(t, errors.Join(err, result.Close()))
		require.EqualValues(t, size, n)
	})
}
