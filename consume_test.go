package nats_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
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
	var begin time.Time // for a while: the server counts what is stored a moment after it has acknowledged it
	eventually(t, "everything acknowledged", func() bool {
		info, err := client.GetConsumerInfo(context.Background(), "ORDERS", "worker")
		if err != nil || info.NumPending > 0 || info.NumAckPending > 0 {
			begin = time.Time{}
			return false
		}
		if begin.IsZero() {
			begin = time.Now()
		}
		return since(begin) > 50*time.Millisecond
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

// The server takes a filter with a typing error, and nothing ever comes.
func TestConsumeTellsOfAFilterThatFitsNothing(t *testing.T) {
	t.Parallel()
	var log logBuffer
	client := connect(t, natstest.RunServer(t), nil, nats.WithLogger(log.logger()))
	newStream(t, client, 0)
	const text = "the consumer's filter fits no subject of its stream"
	nothing := func(*nats.Message) error { return nil }
	cfg := jetstream.ConsumerConfig{FilterSubjects: []string{"orders.created", "orders.*.new"}}
	require.NoError(t, consume(t, client, nothing, nats.WithConsumerConfig(&cfg)).Stop(within(t, patience)))
	assert.NotContains(t, log.String(), text)
	require.NoError(t, client.DeleteConsumer(within(t, patience), "ORDERS", "worker"))
	cfg = jetstream.ConsumerConfig{FilterSubject: "order.created"}
	require.NoError(t, consume(t, client, nothing, nats.WithConsumerConfig(&cfg)).Stop(within(t, patience)))
	assert.Equal(t, 1, strings.Count(log.String(), text))
	consume(t, client, nothing)
	assert.Equal(t, 2, strings.Count(log.String(), text), "also when somebody else has made it")
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

// A handler may end its goroutine, as testing's FailNow does: that is an error, and all workers go on.
func TestHandlersThatEndTheirWorkers(t *testing.T) {
	t.Parallel()
	events := &eventLog{}
	client := connect(t, natstest.RunServer(t), nil, nats.WithEventHandler(events.handle))
	newStream(t, client, 20)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	var calls atomic.Int64
	consumption := consume(t, client, func(*nats.Message) error {
		if calls.Add(1) <= 5 {
			runtime.Goexit()
		}
		return nil
	}, nats.WithWorkers(2), nats.WithBackoff(time.Millisecond))
	idle(t, client)
	require.NoError(t, consumption.Stop(within(t, patience)))
	stats := consumption.Stats()
	assert.EqualValues(t, 25, stats.Handled)
	assert.EqualValues(t, 5, stats.Failed)
	assert.Zero(t, stats.InFlight)
	eventually(t, "told", func() bool { return len(events.of(nats.EventHandlerError)) == 5 })
	assert.ErrorIs(t, events.of(nats.EventHandlerError)[0].Err, nats.ErrHandlerPanic)
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

// Should the process die on the first message, no other has been delivered in vain.
func TestNothingIsFetchedAheadOfTheFirstMessage(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 100)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	first, rest := make(chan struct{}), make(chan struct{})
	var handled atomic.Int64
	consume(t, client, func(*nats.Message) error {
		if handled.Add(1) == 1 {
			close(first)
			<-rest
		}
		return nil
	})
	<-first
	require.NoError(t, client.Flush(context.Background()))
	info, err := client.GetConsumerInfo(context.Background(), "ORDERS", "worker")
	require.NoError(t, err)
	assert.Equal(t, 1, info.NumAckPending)
	close(rest)
	eventually(t, "all handled", func() bool { return handled.Load() == 100 })
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
	consumption := consume(t, client, func(msg *nats.Message) error {
		if string(msg.Data) == "first" { // slow enough that nothing is fetched ahead
			time.Sleep(100 * time.Millisecond)
			return nil
		}
		running.Add(1)
		<-release
		return nil
	}, nats.WithWorkers(5))
	_, err := client.PublishToStream(context.Background(), "orders.created", []byte("first"))
	require.NoError(t, err)
	eventually(t, "it is handled", func() bool { return consumption.Stats().Handled == 1 })
	for i := range 5 {
		_, err := client.PublishToStream(context.Background(), "orders.created", nil)
		require.NoError(t, err)
		eventually(t, "it is in a handler", func() bool { return running.Load() == int64(i+1) })
	}
}
