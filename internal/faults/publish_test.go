package faults_test

import (
	"context"
	"fmt"
	"iter"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// publishLoad publishes in every way at once and remembers what was acknowledged.
type publishLoad struct {
	t      *testing.T
	client *nats.Client
	ctx    context.Context
	stop   chan struct{}
	wg     sync.WaitGroup

	mu       sync.Mutex
	acked    map[string]bool
	failures []error
	batches  int // atomic ones, of 10 messages
	longest  time.Duration
}

func startPublishLoad(t *testing.T, client *nats.Client, subject string) *publishLoad {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	t.Cleanup(cancel)
	l := &publishLoad{t: t, client: client, ctx: ctx, stop: make(chan struct{}), acked: make(map[string]bool)}
	for worker := range 4 {
		l.run(fmt.Sprint("sync", worker), 5*time.Millisecond, func(id string) { l.one(subject, id) })
	}
	l.run("async", 2*time.Millisecond, func(id string) { l.async(subject, id) })
	l.run("batch", 200*time.Millisecond, func(id string) { l.batch(subject, id) })
	l.run("atomic", 200*time.Millisecond, func(id string) { l.atomic(subject, id) })
	return l
}

func (l *publishLoad) run(name string, pause time.Duration, publish func(id string)) {
	l.wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-l.stop:
				return
			case <-time.After(pause):
				publish(fmt.Sprint(name, "-", i))
			}
		}
	})
}

func (l *publishLoad) note(id string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.failures = append(l.failures, fmt.Errorf("%s: %w", id, err))
		return
	}
	assert.False(l.t, l.acked[id], "%s is acknowledged twice", id)
	l.acked[id] = true
}

func (l *publishLoad) message(subject, id string) *nats.Message {
	return &nats.Message{Subject: subject, Header: map[string][]string{jetstream.MsgIDHeader: {id}}, Data: []byte(id)}
}

func (l *publishLoad) one(subject, id string) {
	begin := time.Now()
	_, err := l.client.PublishMsgToStream(l.ctx, l.message(subject, id))
	l.note(id, err)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.longest = max(l.longest, time.Since(begin))
}

func (l *publishLoad) async(subject, id string) {
	future, err := l.client.PublishAsync(l.ctx, l.message(subject, id))
	if err != nil {
		l.note(id, err)
		return
	}
	ok, failed := future.Ok(), future.Err()
	l.wg.Go(func() {
		select {
		case <-ok:
			l.note(id, nil)
		case err := <-failed:
			l.note(id, err)
		}
	})
}

func (l *publishLoad) batch(subject, id string) {
	msgs := make([]*nats.Message, 100)
	for i := range msgs {
		msgs[i] = l.message(subject, fmt.Sprint(id, ".", i))
	}
	acks, err := l.client.PublishBatch(l.ctx, msgs)
	if !assert.NoError(l.t, err) {
		return
	}
	for i, ack := range acks {
		assert.NotNil(l.t, ack)
		l.note(fmt.Sprint(id, ".", i), nil)
	}
}

func (l *publishLoad) atomic(subject, id string) {
	msgs := make([]*nats.Message, 10)
	for i := range msgs {
		msgs[i] = l.message(subject, fmt.Sprint(id, ".", i))
	}
	_, err := l.client.PublishAtomic(l.ctx, msgs)
	for i := range msgs {
		l.note(fmt.Sprint(id, ".", i), err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.batches++
}

// end stops the load and compares what was acknowledged with what is stored.
func (l *publishLoad) end(stream string) {
	l.t.Helper()
	close(l.stop)
	l.wg.Wait() // every future has resolved
	stored := publishStored(l.t, l.client, stream)
	lost, duplicates := 0, 0
	for id := range l.acked {
		if stored[id] == 0 {
			lost++
		}
	}
	for _, n := range stored {
		duplicates += n - 1
	}
	assert.Empty(l.t, l.failures, "failed")
	assert.Zero(l.t, lost, "lost")
	assert.Zero(l.t, duplicates, "stored twice")
	assert.Len(l.t, stored, len(l.acked), "stored == acknowledged")
	l.t.Attr("figure", fmt.Sprintf("%d acknowledged, %d lost, %d twice; the longest took %v",
		len(l.acked), lost, duplicates, l.longest.Round(time.Millisecond)))
}

// Upstream at one kill of the leader: a call of 5 s that fails, a quarter to a half of the futures
// failed, some of them stored all the same, and some that never resolve.
func TestPublishOverKilledLeaders(t *testing.T) {
	t.Parallel()
	kills := 20
	if testing.Short() {
		kills = 2
	}
	servers := publishServers(t, 3)
	client := publishClient(t, servers)
	publishEventually(t, "the stream is created", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_, err := client.EnsureStream(ctx, &jetstream.StreamConfig{
			Name: "LEDGER", Subjects: []string{"ledger"}, Replicas: 3, AllowAtomicPublish: true,
		})
		return err == nil
	})
	load := startPublishLoad(t, client, "ledger")
	for range kills {
		leader := publishLeader(t, client, servers, "LEDGER")
		leader.kill()
		time.Sleep(time.Second) // nobody leads
		leader.start()
	}
	publishLeader(t, client, servers, "LEDGER")
	load.end("LEDGER")
}

// A single server is killed: what it had in memory is gone with it, the file is not.
func TestPublishOverKilledServer(t *testing.T) {
	servers := publishServers(t, 1)
	client := publishClient(t, servers)
	ctx := context.Background()
	_, err := client.EnsureStream(ctx, &jetstream.StreamConfig{Name: "LEDGER", Subjects: []string{"ledger"}, AllowAtomicPublish: true})
	require.NoError(t, err)
	load := startPublishLoad(t, client, "ledger")
	for range 10 {
		time.Sleep(300 * time.Millisecond) // the load
		servers[0].kill()
		servers[0].start()
		require.NoError(t, client.Ping(ctx))
	}
	load.end("LEDGER")
}

// A million messages, of which only those in flight are in memory.
func TestPublishSeqOfAMillion(t *testing.T) {
	messages := 1_000_000
	if testing.Short() {
		messages = 100_000
	}
	client := publishClient(t, publishServers(t, 1)) // its memory is not this process's
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Storage: jetstream.MemoryStorage, MaxMsgs: 1000})
	require.NoError(t, err)
	heap := func() uint64 {
		runtime.GC()
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before, most, n := heap(), uint64(0), uint64(0)
	begin := time.Now()
	for ack, err := range client.PublishSeq(ctx, publishMessages(messages)) {
		require.NoError(t, err)
		if n++; n != ack.Sequence {
			t.Fatalf("message %d has sequence %d", n, ack.Sequence)
		}
		if n%50_000 == 0 {
			most = max(most, heap())
		}
	}
	assert.EqualValues(t, messages, n)
	assert.Less(t, int64(most)-int64(before), int64(16<<20), "bytes")
	t.Logf("%d messages in %v, at most %d KiB more on the heap", n, time.Since(begin).Round(time.Millisecond), (int64(most)-int64(before))>>10)
}

func publishMessages(n int) iter.Seq[*nats.Message] {
	return func(yield func(*nats.Message) bool) {
		msg := &nats.Message{Subject: "s", Data: make([]byte, 128)}
		for range n {
			if !yield(msg) {
				return
			}
		}
	}
}
