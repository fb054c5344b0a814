package faults_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// tally counts how often each of many numbered messages came.
type tally struct{ seen []atomic.Int32 }

func newTally(n int) *tally { return &tally{seen: make([]atomic.Int32, n)} }

func (y *tally) hit(data []byte) { y.seen[binary.BigEndian.Uint32(data)].Add(1) }

// count returns how many of the first n never came, how many came more than once, and the longest run of those
// that never came.
func (y *tally) count(n int) (lost, twice, run int) {
	current := 0
	for i := range n {
		switch y.seen[i].Load() {
		case 0:
			lost++
			current++
			run = max(run, current)
		case 1:
			current = 0
		default:
			twice++
			current = 0
		}
	}
	return lost, twice, run
}

// Twelve moves of a client under load: of queue groups with a member elsewhere, requests and pulls nothing is
// lost, and nothing comes twice. A plain subscription has a gap, and is told how long it was.
func TestMovesUnderLoad(t *testing.T) {
	t.Parallel()
	cluster := natstest.RunCluster(t, 2)
	urls := cluster.URLs()
	var mu sync.Mutex
	var gaps []time.Duration
	var troubles []error
	mover, leave := connectShifting(t, urls, nats.WithEventHandler(func(e nats.Event) {
		mu.Lock()
		defer mu.Unlock()
		switch e.Type {
		case nats.EventReconnected:
			gaps = append(gaps, e.Gap)
		case nats.EventAsyncError:
			troubles = append(troubles, e.Err)
		}
	}))
	still := connect(t, urls[1])
	ctx := context.Background()
	const most = 2_000_000
	const perSecond = 10_000 // by each of two publishers, one at either server
	groups, plains := []*tally{newTally(most), newTally(most)}, []*tally{newTally(most), newTally(most)}
	for i := range 2 {
		for _, c := range []*nats.Client{mover, still} {
			_, err := c.QueueSubscribe(ctx, fmt.Sprint("queue.", i), "g", func(msg *nats.Message) error { groups[i].hit(msg.Data); return nil })
			require.NoError(t, err)
		}
		_, err := mover.Subscribe(ctx, fmt.Sprint("plain.", i), func(msg *nats.Message) error { plains[i].hit(msg.Data); return nil })
		require.NoError(t, err)
	}
	_, err := still.QueueSubscribe(ctx, "echo", "responders", func(msg *nats.Message) error {
		time.Sleep(10 * time.Millisecond)
		return msg.Respond(msg.Data)
	}, nats.WithConcurrency(20))
	require.NoError(t, err)
	_, err = still.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	require.NoError(t, err)
	_, err = still.CreateConsumer(ctx, "S", &jetstream.ConsumerConfig{Name: "c", AckWait: 10 * time.Second})
	require.NoError(t, err)
	pulled := newTally(most)
	_, err = mover.Consume(ctx, "S", "c", func(msg *nats.Message) error { pulled.hit(msg.Data); return nil })
	require.NoError(t, err)

	running, stop := context.WithCancel(ctx)
	var load sync.WaitGroup
	var requests, failed, stored atomic.Int64
	for range 8 {
		load.Go(func() {
			for running.Err() == nil {
				requests.Add(1)
				if _, err := mover.Request(ctx, "echo", nil, 30*time.Second); err != nil {
					failed.Add(1)
					t.Log(err)
				}
			}
		})
	}
	published := make([]int, 2)
	for i := range 2 {
		nc, err := natsgo.Connect(urls[i])
		require.NoError(t, err)
		t.Cleanup(nc.Close)
		load.Go(func() {
			begin := time.Now()
			for n := 0; running.Err() == nil && n < most; n++ {
				data := binary.BigEndian.AppendUint32(nil, uint32(n))
				assert.NoError(t, nc.Publish(fmt.Sprint("queue.", i), data))
				assert.NoError(t, nc.Publish(fmt.Sprint("plain.", i), data))
				published[i] = n + 1
				if n%10 == 9 {
					time.Sleep(time.Until(begin.Add(time.Duration(n) * time.Second / perSecond)))
				}
			}
			assert.NoError(t, nc.Flush())
		})
	}
	load.Go(func() {
		every(running, 2*time.Millisecond, func(int) {
			n := stored.Add(1) - 1
			_, err := still.PublishToStream(ctx, "s", binary.BigEndian.AppendUint32(nil, uint32(n)))
			assert.NoError(t, err)
		})
	})
	for range 12 {
		time.Sleep(100 * time.Millisecond)
		leave()
	}
	stop()
	load.Wait()
	publishEventually(t, "all pulled", func() bool { lost, _, _ := pulled.count(int(stored.Load())); return lost == 0 })
	for i := range 2 {
		publishEventually(t, "all of the queue group's", func() bool { lost, _, _ := groups[i].count(published[i]); return lost == 0 })
	}
	publishEventually(t, "nothing waits", func() bool { return mover.Stats().Pending+still.Stats().Pending == 0 })
	publishEventually(t, "all moves are told", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(gaps) >= 12
	})
	time.Sleep(200 * time.Millisecond) // what may come twice
	for i := range 2 {
		_, twice, _ := groups[i].count(published[i])
		plainLost, plainTwice, run := plains[i].count(published[i])
		t.Logf("published at server %d: %d; queue group: %d twice; plain: %d lost, %d twice, the longest gap %d messages",
			i, published[i], twice, plainLost, plainTwice, run)
		assert.Zero(t, twice)
		assert.Zero(t, plainTwice)
	}
	_, twice, _ := pulled.count(int(stored.Load()))
	mu.Lock()
	defer mu.Unlock()
	t.Logf("%d requests, %d failed; %d messages pulled, %d twice; gaps as told: %v", requests.Load(), failed.Load(), stored.Load(), twice, gaps)
	assert.Zero(t, failed.Load())
	assert.Zero(t, twice)
	assert.Len(t, gaps, 12)
	for _, gap := range gaps {
		assert.Positive(t, gap)
	}
	assert.Empty(t, troubles)
}
