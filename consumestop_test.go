package nats_test

import (
	"context"
	"errors"
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

// Raw nats.go leaves what it has prefetched to its deadline, 30 s by default.
func TestStopHandsBackAtOnce(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	newStream(t, client, 50)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", AckWait: time.Minute})
	started := make(chan struct{}, 100)
	release := make(chan struct{})
	quick := make(chan struct{}, 20) // makes the consumer fetch ahead
	for range 20 {
		quick <- struct{}{}
	}
	var finished atomic.Int64
	consumption := consume(t, client, func(msg *nats.Message) error {
		select {
		case <-quick:
			return nil
		default:
		}
		started <- struct{}{}
		<-release
		finished.Add(1)
		return msg.Context().Err()
	}, nats.WithWorkers(2))
	<-started
	<-started
	eventually(t, "messages are fetched ahead", func() bool { return consumption.Stats().Ready > 0 })

	stopped := make(chan error, 1)
	go func() { stopped <- consumption.Stop(within(t, patience)) }()
	begin := time.Now()
	var rest calls
	consume(t, connect(t, s, nil), func(msg *nats.Message) error { rest.note(msg); return nil })
	eventually(t, "the rest is handled elsewhere", func() bool { return rest.distinct() == 28 })
	assert.Less(t, since(begin), 5*time.Second)
	close(release)
	require.NoError(t, <-stopped)
	assert.EqualValues(t, 2, finished.Load())
	idle(t, client)
	assert.Equal(t, 28, rest.len(), "those in a handler are not handed back")
}

func TestStopEndsWithItsContext(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 1)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	started := make(chan struct{})
	consumption := consume(t, client, func(msg *nats.Message) error {
		close(started)
		<-msg.Context().Done()
		return nil
	})
	<-started
	begin := time.Now()
	err := consumption.Stop(within(t, 100*time.Millisecond))
	require.ErrorIs(t, err, nats.ErrDrainTimeout)
	require.ErrorContains(t, err, "1 handlers")
	assert.Less(t, since(begin), time.Second)
	<-consumption.Done() // the context told the handler
	idle(t, client)
}

func TestConsumeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 0)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	consumption, err := client.Consume(ctx, "ORDERS", "worker", func(*nats.Message) error { return nil })
	require.NoError(t, err)
	begin := time.Now()
	cancel(cause)
	<-consumption.Done()
	assert.Less(t, since(begin), 100*time.Millisecond+raceSlack)
	require.ErrorIs(t, consumption.Err(), cause)
}

// raceSlack is what a loaded machine may take beside the time under test.
const raceSlack = 3 * time.Second

func TestShutdownStopsConsumptions(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, other := connect(t, s, nil), connect(t, s, nil)
	newStream(t, client, 10)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", AckWait: time.Minute})
	started := make(chan struct{}, 10)
	consumption := consume(t, client, func(*nats.Message) error {
		started <- struct{}{}
		time.Sleep(100 * time.Millisecond)
		return nil
	}, nats.WithWorkers(2))
	<-started
	<-started
	require.NoError(t, client.Close())
	require.ErrorIs(t, consumption.Err(), nats.ErrClosed)
	var rest calls
	consume(t, other, func(msg *nats.Message) error { rest.note(msg); return nil })
	idle(t, other)
	assert.EqualValues(t, 10, uint64(rest.len())+consumption.Stats().Handled, "each handled once")

	// With a handler that does not end, the error counts it.
	hanging := connect(t, s, nil)
	newConsumer(t, hanging, jetstream.ConsumerConfig{Name: "hanging"})
	stuck, release := make(chan struct{}, 10), make(chan struct{})
	defer close(release)
	_, err := hanging.Consume(context.Background(), "ORDERS", "hanging", func(*nats.Message) error {
		stuck <- struct{}{}
		<-release
		return nil
	})
	require.NoError(t, err)
	<-stuck
	var left *nats.ShutdownError
	require.ErrorAs(t, hanging.Shutdown(within(t, 100*time.Millisecond)), &left)
	assert.Equal(t, 1, left.Handlers)
	assert.ErrorIs(t, left, nats.ErrDrainTimeout)
}

// Handing a message back costs one of its deliveries. Where these are few, what was fetched is handled: given
// back, 81 of 1,000 messages were lost with a MaxDeliver of 1, and dead letters made that no handler saw.
func TestStopCostsNoDelivery(t *testing.T) {
	t.Parallel()
	for name, how := range map[string]struct {
		servers int
		opts    []nats.ConsumeOption
	}{
		"MaxDeliver 1":     {servers: 1},
		"MaxDeliver 3":     {servers: 3},
		"WithMaxDeliver 1": {servers: -1, opts: []nats.ConsumeOption{nats.WithMaxDeliver(1)}},
		"by key": {servers: 2, opts: []nats.ConsumeOption{
			nats.WithKey(func(m *nats.Message) string { return string(m.Data[:1]) }), nats.WithWorkers(4),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := natstest.RunServer(t)
			proxy := natstest.NewProxy(t, s.URL())
			proxy.Delay(20 * time.Millisecond) // far enough to fetch ahead
			client := connect(t, s, func(c *nats.Config) { c.URLs = []string{proxy.URL()} })
			newStream(t, connect(t, s, nil), 500)
			newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", MaxDeliver: how.servers})
			var got calls
			var again atomic.Int64
			handler := func(msg *nats.Message) error {
				if meta, err := msg.Metadata(); err != nil || meta.NumDelivered > 1 {
					again.Add(1)
				}
				got.note(msg)
				time.Sleep(time.Millisecond)
				return nil
			}
			for range 3 {
				before := got.len()
				consumption := consume(t, client, handler, how.opts...)
				eventually(t, "messages are fetched ahead", func() bool {
					stats := consumption.Stats()
					return got.len() > before+20 && stats.Ready+stats.Waiting > 10 || got.len() == 500
				})
				require.NoError(t, consumption.Stop(within(t, patience)))
				assert.Zero(t, consumption.Stats().HandedBack)
				assert.Zero(t, consumption.Stats().DeadLettered)
			}
			consume(t, client, handler, how.opts...)
			eventually(t, "all are handled", func() bool { return got.distinct() == 500 })
			assert.Equal(t, 500, got.len())
			assert.Zero(t, again.Load(), "second deliveries")
		})
	}
}

// When there is no time left for what was fetched, it is handed back after all.
func TestStopHandsBackWhenItsTimeIsUp(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 40)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", MaxDeliver: 3, AckWait: time.Minute})
	var quick atomic.Int64
	started := make(chan struct{}, 40)
	consumption := consume(t, client, func(msg *nats.Message) error {
		if quick.Add(1) <= 20 {
			return nil
		}
		started <- struct{}{}
		<-msg.Context().Done()
		return nil
	})
	<-started
	eventually(t, "messages are fetched ahead", func() bool { return consumption.Stats().Ready > 0 })
	require.ErrorIs(t, consumption.Stop(within(t, 50*time.Millisecond)), nats.ErrDrainTimeout)
	<-consumption.Done()
	var rest calls
	consume(t, client, func(msg *nats.Message) error { rest.note(msg); return nil })
	eventually(t, "the rest is handled", func() bool { return rest.len() == 19 })
	idle(t, client)
}

// The end of a Consumption does not wait for what it has asked about a stream that it does not use.
func TestStopInAnOutage(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	near := connect(t, s, nil)
	newStream(t, near, 0)
	newConsumer(t, near, jetstream.ConsumerConfig{Name: "c"})
	client, proxy := through(t, s)
	nc := raw(t, s)
	_, err := nc.Subscribe("$JS.API.STREAM.INFO.ORDERS_RETRY", func(*natsgo.Msg) { proxy.Cut() })
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	proxy.Delay(200 * time.Millisecond) // so that the answer, mostly, is lost
	consumption, err := client.Consume(t.Context(), "ORDERS", "c", func(*nats.Message) error { return nil })
	require.NoError(t, err)
	eventually(t, "the connection is cut", func() bool { return !client.IsConnected() })
	begun := time.Now()
	require.NoError(t, consumption.Stop(within(t, patience)))
	assert.Less(t, since(begun), 4*time.Second)
	proxy.Restore()
}

// Nor does it wait for how long the stream keeps what has failed meanwhile.
func TestStopAfterAFailureInAnOutage(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	near := connect(t, s, nil)
	newStream(t, near, 1)
	newConsumer(t, near, jetstream.ConsumerConfig{Name: "c"})
	client, proxy := through(t, s)
	begun, release := make(chan struct{}), make(chan struct{})
	consumption, err := client.Consume(t.Context(), "ORDERS", "c", func(*nats.Message) error {
		close(begun)
		<-release
		return errors.New("not today")
	})
	require.NoError(t, err)
	<-begun
	proxy.Cut()
	eventually(t, "the connection is cut", func() bool { return !client.IsConnected() })
	close(release)
	begin := time.Now()
	require.NoError(t, consumption.Stop(within(t, patience)))
	assert.Less(t, since(begin), 4*time.Second)
	proxy.Restore()
}
