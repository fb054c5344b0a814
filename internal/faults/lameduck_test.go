package faults_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// every calls f that often until ctx ends, and waits for the calls.
func every(ctx context.Context, interval time.Duration, f func(i int)) {
	var calls sync.WaitGroup
	defer calls.Wait()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-tick.C:
			calls.Go(func() { f(i) })
		case <-ctx.Done():
			return
		}
	}
}

// Each server of a cluster is shut down as a platform does it, and comes back: no request fails and
// no message is handled twice.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	cluster := natstest.RunCluster(t, 3, natstest.WithConfig(func(o *server.Options) {
		o.LameDuckGracePeriod, o.LameDuckDuration = 4*time.Second, 5*time.Second
	}))
	urls := cluster.URLs()
	client := func() *nats.Client { return connect(t, urls...) }
	requester, publisher, worker := client(), client(), client()
	ctx := context.Background()
	for range 2 {
		_, err := client().QueueSubscribe(ctx, "echo", "responders", func(msg *nats.Message) error {
			time.Sleep(2 * time.Millisecond) // the work
			return msg.Respond(msg.Data)
		})
		require.NoError(t, err)
	}
	_, err := publisher.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: 3})
	require.NoError(t, err)
	const ackWait = 10 * time.Second
	_, err = publisher.CreateConsumer(ctx, "S", &jetstream.ConsumerConfig{Name: "c", AckWait: ackWait})
	require.NoError(t, err)
	var handled, twice, again atomic.Int64
	var seen sync.Map
	_, err = worker.Consume(ctx, "S", "c", func(msg *nats.Message) error {
		if _, before := seen.LoadOrStore(string(msg.Data), true); before {
			twice.Add(1)
		}
		if meta, err := msg.Metadata(); assert.NoError(t, err) && meta.NumDelivered > 1 {
			again.Add(1)
		}
		handled.Add(1)
		return nil
	}, nats.WithWorkers(2), nats.WithConfirmedAcks())
	require.NoError(t, err)

	running, stop := context.WithCancel(ctx)
	var load sync.WaitGroup
	var requests, failed, stored atomic.Int64
	var longest atomic.Int64
	load.Go(func() {
		every(running, 5*time.Millisecond, func(i int) {
			want := fmt.Sprint(i)
			begin := time.Now()
			answer, err := requester.Request(ctx, "echo", []byte(want), 10*time.Second)
			took := time.Since(begin)
			for old := longest.Load(); int64(took) > old && !longest.CompareAndSwap(old, int64(took)); old = longest.Load() {
			}
			requests.Add(1)
			if err != nil {
				failed.Add(1)
				t.Logf("after %v: %v", took.Round(time.Millisecond), err)
				return
			}
			assert.Equal(t, want, string(answer.Data))
		})
	})
	load.Go(func() {
		every(running, 20*time.Millisecond, func(i int) {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			if _, err := publisher.PublishToStream(ctx, "s", fmt.Append(nil, i)); assert.NoError(t, err) {
				stored.Add(1)
			}
		})
	})
	for _, s := range cluster.Servers() {
		s.LameDuck()
		s.Embedded().WaitForShutdown()
		s.Restart()
		cluster.WaitReady()
	}
	stop()
	load.Wait()
	publishEventually(t, "all handled", func() bool { return handled.Load() >= stored.Load() })
	publishEventually(t, "all acknowledged", func() bool {
		info, err := publisher.GetConsumerInfo(ctx, "S", "c")
		return err == nil && info.NumAckPending == 0
	})
	t.Attr("figure", fmt.Sprintf("%d requests, %d failed, the longest took %v; %d messages, handled %d times, %d of them twice, %d by a later delivery",
		requests.Load(), failed.Load(), time.Duration(longest.Load()).Round(time.Millisecond),
		stored.Load(), handled.Load(), twice.Load(), again.Load()))
	assert.Zero(t, failed.Load())
	// A consumer's leader that steps down drops what it has counted as delivered and not yet sent
	// (resetPendingDeliveries in the server): that comes after the ack wait, for the first time here.
	assert.Zero(t, twice.Load())
	assert.Equal(t, stored.Load(), handled.Load())
}
