package nats_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
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

// calls records what a handler was called with.
type calls struct {
	mu    sync.Mutex
	data  []string
	times []time.Time
}

func (c *calls) note(msg *nats.Message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.data = append(c.data, string(msg.Data))
	c.times = append(c.times, time.Now())
}

func (c *calls) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.data)
}

func (c *calls) len() int { return len(c.all()) }

// distinct returns how many different payloads came.
func (c *calls) distinct() int {
	all := c.all()
	slices.Sort(all)
	return len(slices.Compact(all))
}

// consume starts a Consumption of ORDERS/worker that ends with the test.
func consume(t testing.TB, client *nats.Client, h nats.Handler, opts ...nats.ConsumeOption) *nats.Consumption {
	t.Helper()
	consumption, err := client.Consume(context.Background(), "ORDERS", "worker", h, opts...)
	require.NoError(t, err)
	return consumption
}

// idle waits until the consumer has nothing delivered and nothing to deliver.
func idle(t testing.TB, client *nats.Client) {
	t.Helper()
	eventually(t, "everything acknowledged", func() bool {
		info, err := client.GetConsumerInfo(context.Background(), "ORDERS", "worker")
		return err == nil && info.NumPending == 0 && info.NumAckPending == 0
	})
}

func TestConsumeAcksInOrder(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 1000)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	var got calls
	consumption := consume(t, client, func(msg *nats.Message) error { got.note(msg); return nil })
	eventually(t, "all handled", func() bool { return got.len() == 1000 })
	for i, data := range got.all() {
		require.Equal(t, fmt.Sprint(i), data)
	}
	idle(t, client)
	lag, err := consumption.Lag(context.Background())
	require.NoError(t, err)
	assert.Zero(t, lag)
	assert.True(t, consumption.Healthy())
	require.NoError(t, consumption.Err())

	require.NoError(t, consumption.Stop(within(t, patience)))
	<-consumption.Done()
	require.ErrorIs(t, consumption.Err(), nats.ErrStopped)
	assert.False(t, consumption.Healthy())
	assert.EqualValues(t, 1000, consumption.Stats().Handled)
}

func TestConsumeRefuses(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 0)
	ctx := context.Background()
	h := func(*nats.Message) error { return nil }
	_, err := client.Consume(ctx, "ORDERS", "worker", nil)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	_, err = client.Consume(ctx, "ORDERS", "worker", h)
	require.ErrorIs(t, err, nats.ErrConsumerNotFound)
	_, err = client.Consume(ctx, "NOWHERE", "worker", h)
	require.ErrorIs(t, err, nats.ErrStreamNotFound)
	_, err = client.Consume(ctx, "ORDERS", "a.b", h)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	_, err = client.Consume(ctx, "ORDERS", "worker", h, nats.WithDeadLetter("a.*"))
	require.ErrorIs(t, err, nats.ErrInvalidSubject)
	_, err = client.Consume(ctx, "ORDERS", "worker", h, nats.WithConsumerConfig(&jetstream.ConsumerConfig{Name: "other"}))
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "none", AckPolicy: jetstream.AckNonePolicy})
	_, err = client.Consume(ctx, "ORDERS", "none", h)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", FilterSubject: "orders.created"})
	_, err = client.Consume(ctx, "ORDERS", "worker", h, nats.WithConsumerConfig(&jetstream.ConsumerConfig{FilterSubject: "orders.paid"}))
	require.ErrorIs(t, err, nats.ErrAlreadyExists)
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = client.Consume(cancelled, "ORDERS", "worker", h)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, client.Close())
	_, err = client.Consume(ctx, "ORDERS", "worker", h)
	require.ErrorIs(t, err, nats.ErrClosed)
}

// Raw nats.go: 16 handler calls for 6 messages of 2.5 s with an AckWait of 1 s, and an InProgress
// ticker inside the handler makes no difference: the prefetched messages expire.
func TestConsumeExtendsTheDeadline(t *testing.T) {
	t.Parallel()
	for name, messages := range map[string]int{"one handler of 5 s": 1, "prefetched": 3} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := connect(t, natstest.RunServer(t), nil)
			newStream(t, client, messages)
			newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", AckWait: time.Second})
			var got calls
			first := true
			consumption := consume(t, client, func(msg *nats.Message) error {
				got.note(msg)
				if messages > 1 && first {
					first = false
					return nil // quick, so that the next ones are fetched ahead
				}
				time.Sleep(5 * time.Second / time.Duration(max(messages-1, 1)))
				return nil
			})
			if messages > 1 {
				eventually(t, "one is fetched ahead", func() bool { return consumption.Stats().Ready == 1 })
			}
			eventually(t, "all handled", func() bool { return consumption.Stats().Handled == uint64(messages) })
			idle(t, client)
			assert.Equal(t, messages, got.len())
			info, err := client.GetConsumerInfo(context.Background(), "ORDERS", "worker")
			require.NoError(t, err)
			assert.Zero(t, info.NumRedelivered)
			assert.EqualValues(t, messages, info.Delivered.Consumer, "deliveries")
		})
	}
}

// A handler that hangs does not keep its message from the others for ever.
func TestConsumeGivesUpAHungHandler(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 1)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", AckWait: 300 * time.Millisecond})
	release := make(chan struct{})
	var got calls
	consumption := consume(t, client, func(msg *nats.Message) error {
		if got.note(msg); got.len() == 1 {
			<-release
		}
		return nil
	}, nats.WithWorkers(2), nats.WithMaxHandling(500*time.Millisecond))
	start := time.Now()
	eventually(t, "the second delivery", func() bool { return got.len() == 2 })
	assert.Greater(t, time.Since(start), 500*time.Millisecond)
	assert.EqualValues(t, 1, consumption.Stats().Expired)
	close(release)
	idle(t, client)
	time.Sleep(400 * time.Millisecond) // nothing is to come
	assert.Equal(t, 2, got.len())
}

func TestConsumeRunsExactlyNWorkers(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 200)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	const workers = 7
	var running, most, handled atomic.Int64
	consume(t, client, func(*nats.Message) error {
		n := running.Add(1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		time.Sleep(5 * time.Millisecond)
		running.Add(-1)
		handled.Add(1)
		return nil
	}, nats.WithWorkers(workers))
	eventually(t, "all handled", func() bool { return handled.Load() == 200 })
	assert.EqualValues(t, workers, most.Load())
}

// Raw nats.go with its default prefetch: 41 redeliveries and a split of 105 to 36.
func TestConsumersShareEvenly(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	one, two := connect(t, s, nil), connect(t, s, nil)
	newStream(t, one, 0)
	newConsumer(t, one, jetstream.ConsumerConfig{Name: "worker", AckWait: 2 * time.Second})
	var first, second atomic.Int64
	handler := func(counter *atomic.Int64) nats.Handler {
		return func(*nats.Message) error {
			time.Sleep(50 * time.Millisecond)
			counter.Add(1)
			return nil
		}
	}
	consume(t, one, handler(&first), nats.WithWorkers(2))
	consume(t, two, handler(&second), nats.WithWorkers(2))
	for i := range 100 {
		_, err := one.PublishToStream(context.Background(), "orders.created", []byte(fmt.Sprint(i)))
		require.NoError(t, err)
	}
	eventually(t, "all handled", func() bool { return first.Load()+second.Load() >= 100 })
	idle(t, one)
	info, err := one.GetConsumerInfo(context.Background(), "ORDERS", "worker")
	require.NoError(t, err)
	assert.EqualValues(t, 100, info.Delivered.Consumer, "no redelivery")
	assert.InDelta(t, 50, first.Load(), 10)
	assert.InDelta(t, 50, second.Load(), 10)
}

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
	assert.Less(t, time.Since(begin), 5*time.Second)
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
	assert.Less(t, time.Since(begin), time.Second)
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
	assert.Less(t, time.Since(begin), 100*time.Millisecond+raceSlack)
	require.ErrorIs(t, consumption.Err(), cause)
}

// raceSlack is what a loaded machine may take beside the time under test.
const raceSlack = 500 * time.Millisecond

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

// A handler may settle its message itself.
func TestConsumeLeavesTheHandlersAckAlone(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 2)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	var got calls
	consume(t, client, func(msg *nats.Message) error {
		got.note(msg)
		switch got.len() {
		case 1:
			require.NoError(t, msg.Ack())
			return errors.New("done nevertheless")
		case 2:
			return msg.NakWithDelay(20 * time.Millisecond)
		}
		return nil
	})
	idle(t, client)
	assert.Equal(t, []string{"0", "1", "1"}, got.all())
}

func TestConfirmedAcks(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	newStream(t, client, 20)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	var unconfirmed atomic.Int64
	var handled int // how many the server must know of when the next one comes
	consumption := consume(t, client, func(*nats.Message) error {
		info, err := client.GetConsumerInfo(context.Background(), "ORDERS", "worker")
		require.NoError(t, err)
		if int(info.AckFloor.Consumer) != handled {
			unconfirmed.Add(1)
		}
		handled++
		return nil
	}, nats.WithConfirmedAcks())
	eventually(t, "all handled", func() bool { return consumption.Stats().Handled == 20 })
	idle(t, client)
	assert.Zero(t, unconfirmed.Load())
	assert.Zero(t, consumption.Stats().Unconfirmed)
}

// An acknowledgement that the server cannot have is said to be one.
func TestUnconfirmedAckIsReported(t *testing.T) {
	t.Parallel()
	var events eventLog
	client := connect(t, natstest.RunServer(t), nil, nats.WithEventHandler(events.handle))
	newStream(t, client, 1)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", AckWait: 300 * time.Millisecond})
	consumption := consume(t, client, func(*nats.Message) error {
		return client.DeleteConsumer(context.Background(), "ORDERS", "worker")
	}, nats.WithConfirmedAcks())
	eventually(t, "the report", func() bool { return len(events.of(nats.EventUnconfirmedAck)) == 1 })
	assert.EqualValues(t, 1, consumption.Stats().Unconfirmed)
}

// With many workers the messages of one key stay in order, a failing one included.
func TestKeyOrderAcrossRetries(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 0)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	const keys, each = 5, 40
	for i := range each {
		for k := range keys {
			_, err := client.PublishToStream(context.Background(), fmt.Sprintf("orders.k%d", k), []byte(fmt.Sprint(i)))
			require.NoError(t, err)
		}
	}
	var mu sync.Mutex
	done := map[string][]string{}
	failures := map[string]int{}
	var parallel, most int
	consume(t, client, func(msg *nats.Message) error {
		mu.Lock()
		parallel++
		most = max(most, parallel)
		mu.Unlock()
		time.Sleep(time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		parallel--
		id := msg.Subject + string(msg.Data)
		meta, err := msg.Metadata()
		require.NoError(t, err)
		assert.EqualValues(t, failures[id]+1, meta.NumDelivered)
		if n := len(done[msg.Subject]); n%10 == 3 && failures[id] < 2 { // twice each
			failures[id]++
			return errors.New("not yet")
		}
		done[msg.Subject] = append(done[msg.Subject], string(msg.Data))
		return nil
	}, nats.WithWorkers(8), nats.WithKey(func(msg *nats.Message) string { return msg.Subject }),
		nats.WithBackoff(30*time.Millisecond))
	idle(t, client)
	mu.Lock()
	defer mu.Unlock()
	assert.Len(t, done, keys)
	assert.Len(t, failures, keys*each/10)
	for subject, data := range done {
		for i := range each {
			require.Equal(t, fmt.Sprint(i), data[i], "%s: %v", subject, data)
		}
	}
	assert.Greater(t, most, 1, "different keys at once")
}

// A worker that is free gets a message, however long the others take with theirs.
func TestFreeWorkerIsFed(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 0)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	release := make(chan struct{})
	defer close(release)
	var running atomic.Int64
	consume(t, client, func(*nats.Message) error {
		running.Add(1)
		<-release
		return nil
	}, nats.WithWorkers(5))
	for i := range 5 {
		_, err := client.PublishToStream(context.Background(), "orders.created", nil)
		require.NoError(t, err)
		eventually(t, "it is in a handler", func() bool { return running.Load() == int64(i+1) })
	}
}
