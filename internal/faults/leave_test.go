package faults_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// shifting is a discovery that names other servers whenever it is told to.
type shifting struct {
	urls    []string
	changes chan []string
}

func (s *shifting) Resolve(context.Context) ([]string, error) { return s.urls, nil }

func (s *shifting) Watch(ctx context.Context, update func([]string)) error {
	for {
		select {
		case urls := <-s.changes:
			update(urls)
		case <-ctx.Done():
			return nil
		}
	}
}

// connectShifting returns a client and what makes it leave its server for another one.
func connectShifting(t *testing.T, urls []string, opts ...nats.Option) (client *nats.Client, leave func()) {
	t.Helper()
	resolver := &shifting{urls: urls[:1], changes: make(chan []string)}
	client, err := nats.NewClient(&nats.Config{
		JetStreamEnabled: true, Consul: nats.ConsulConfig{Evict: true},
		ReconnectWait: 20 * time.Millisecond, ReconnectMaxWait: 100 * time.Millisecond,
	}, append(opts, nats.WithResolver(resolver))...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	at := 0
	return client, func() {
		at = (at + 1) % len(urls)
		before := client.Conn().Stats().Reconnects
		resolver.changes <- urls[at : at+1]
		publishEventually(t, "on the other server", func() bool {
			return client.Conn().Stats().Reconnects > before && client.IsConnected()
		})
	}
}

// A handler that takes long holds nobody up: the client leaves, the answer arrives all the same, and what
// waits behind it is handled after it, one at a time.
func TestLeaveDuringALongHandler(t *testing.T) {
	t.Parallel()
	urls := natstest.RunCluster(t, 2).URLs()
	var told, handled, running atomic.Int64
	responder, leave := connectShifting(t, urls, nats.WithEventHandler(func(e nats.Event) {
		if e.Type == nats.EventAsyncError {
			told.Add(1)
		}
	}))
	requester := connect(t, urls[0]) // where the responder is, whose interest is known there
	ctx := context.Background()
	began, release := make(chan struct{}, 1), make(chan struct{})
	end := sync.OnceFunc(func() { close(release) })
	defer end()
	_, err := responder.QueueSubscribe(ctx, "slow", "responders", func(msg *nats.Message) error {
		assert.EqualValues(t, 1, running.Add(1))
		defer running.Add(-1)
		if handled.Add(1) > 1 {
			return nil
		}
		began <- struct{}{}
		<-release
		return msg.Respond(msg.Data)
	})
	require.NoError(t, err)
	var request sync.WaitGroup
	request.Go(func() {
		_, err := requester.Request(ctx, "slow", nil, time.Minute)
		assert.NoError(t, err)
	})
	publishEventually(t, "the handler runs", func() bool { return len(began) == 1 })
	for range 100 {
		require.NoError(t, requester.Publish(ctx, "slow", nil))
	}
	require.NoError(t, requester.Flush(ctx))
	leave()
	assert.EqualValues(t, 1, handled.Load(), "left while the handler runs")
	end()
	request.Wait()
	publishEventually(t, "what was behind it is handled", func() bool { return handled.Load() == 101 })
	assert.Zero(t, told.Load())
}

// Clients that leave one server after the other lose no publish, no request and no answer, and handle no
// message twice. What a consumer's leader sends into a connection that is just given up comes again when
// the ack wait is over.
func TestLeaveWithoutLoss(t *testing.T) {
	t.Parallel()
	cluster := natstest.RunCluster(t, 3)
	urls := cluster.URLs()
	requester, leaveRequester := connectShifting(t, urls)
	responder, leaveResponder := connectShifting(t, urls)
	worker, leaveWorker := connectShifting(t, urls)
	publisher, leavePublisher := connectShifting(t, urls)
	still := connect(t, urls...)
	ctx := context.Background()

	for _, c := range []*nats.Client{responder, still} {
		_, err := c.QueueSubscribe(ctx, "echo", "responders", func(msg *nats.Message) error {
			time.Sleep(time.Millisecond) // the work
			return msg.Respond(msg.Data)
		}, nats.WithConcurrency(10))
		require.NoError(t, err)
	}
	var published, received atomic.Int64
	_, err := still.Subscribe(ctx, "core", func(*nats.Message) error { received.Add(1); return nil })
	require.NoError(t, err)
	_, err = still.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: 3})
	require.NoError(t, err)
	_, err = still.CreateConsumer(ctx, "S", &jetstream.ConsumerConfig{Name: "c", AckWait: 10 * time.Second})
	require.NoError(t, err)
	var handled, twice, again atomic.Int64
	var seen sync.Map
	_, err = worker.Consume(ctx, "S", "c", func(msg *nats.Message) error {
		if meta, err := msg.Metadata(); assert.NoError(t, err) && meta.NumDelivered > 1 {
			again.Add(1)
		}
		if _, before := seen.LoadOrStore(string(msg.Data), true); before {
			twice.Add(1)
		}
		handled.Add(1)
		return nil
	}, nats.WithWorkers(2))
	require.NoError(t, err)

	running, stop := context.WithCancel(ctx)
	var load sync.WaitGroup
	var requests, failed, stored atomic.Int64
	load.Go(func() {
		every(running, time.Millisecond, func(i int) {
			requests.Add(1)
			if _, err := requester.Request(ctx, "echo", fmt.Append(nil, i), 5*time.Second); err != nil {
				failed.Add(1)
				t.Log(err)
			}
		})
	})
	load.Go(func() {
		every(running, 2*time.Millisecond, func(i int) {
			if _, err := still.PublishToStream(ctx, "s", fmt.Append(nil, i)); assert.NoError(t, err) {
				stored.Add(1)
			}
		})
	})
	var longest time.Duration
	load.Go(func() {
		for running.Err() == nil {
			begin := time.Now()
			if assert.NoError(t, publisher.Publish(ctx, "core", []byte("x"))) {
				published.Add(1)
			}
			longest = max(longest, time.Since(begin))
			time.Sleep(20 * time.Microsecond)
		}
	})
	for range 10 {
		for _, leave := range []func(){leaveRequester, leaveResponder, leaveWorker, leavePublisher} {
			leave()
		}
	}
	stop()
	load.Wait()
	publishEventually(t, "all handled", func() bool { return handled.Load() >= stored.Load() })
	require.NoError(t, publisher.Flush(ctx))
	publishEventually(t, "all received", func() bool { return received.Load() >= published.Load() })
	t.Logf("%d requests, %d failed; %d messages handled, %d of them twice, %d delivered again; %d published, %d received, the longest publish took %v",
		requests.Load(), failed.Load(), handled.Load(), twice.Load(), again.Load(), published.Load(), received.Load(), longest)
	assert.Zero(t, failed.Load())
	assert.Zero(t, twice.Load())
	assert.Equal(t, published.Load(), received.Load())
}
