package nats_test

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// Every total counts what it says, once.
func TestStatsTotals(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	ctx := within(t, time.Minute)
	newStream(t, client, 3) // sent: 3
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	consumption := consume(t, client, func(msg *nats.Message) error {
		if string(msg.Data) == "0" {
			return errPoison
		}
		return nil
	}, nats.WithMaxDeliver(2), nats.WithBackoff(time.Millisecond))
	assert.Equal(t, []string{"ORDERS", "worker"}, []string{consumption.Stream(), consumption.Consumer()})
	assert.Equal(t, []*nats.Consumption{consumption}, slices.Collect(client.Consumptions()))
	eventually(t, "a dead letter", func() bool { return client.Stats().DeadLettered == 1 })
	idle(t, client)
	require.NoError(t, consumption.Stop(ctx)) // received: 4, processed: 4
	assert.Empty(t, slices.Collect(client.Consumptions()))

	sub, err := client.Subscribe(ctx, "ask", func(msg *nats.Message) error {
		_ = msg.Respond(nil)
		return errPoison
	})
	require.NoError(t, err)
	for range 2 { // sent: 2 requests and 2 answers; received: as many; processed: 2
		_, err = client.Request(ctx, "ask", nil, 0)
		require.NoError(t, err)
	}
	require.NoError(t, sub.Drain(ctx))
	_, err = client.Request(ctx, "ask", nil, 0) // sent: 1
	require.ErrorIs(t, err, nats.ErrNoResponders)
	require.Error(t, client.Publish(ctx, "a b", nil))
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "puller"})
	_, err = client.PullMessages(ctx, "ORDERS", "puller", 3) // received: 3
	require.NoError(t, err)
	_, err = client.PublishBatch(ctx, []*nats.Message{{Subject: "orders.1"}, {Subject: "orders.2"}}) // sent: 2
	require.NoError(t, err)

	kv, err := client.CreateKeyValue(ctx, "locks", nats.WithKeyTTLs(time.Minute))
	require.NoError(t, err)
	cache, err := kv.Cached(ctx)
	require.NoError(t, err)
	lock, err := kv.Lock(ctx, "a", time.Second)
	require.NoError(t, err)
	kept, err := kv.Lock(ctx, "b", time.Minute)
	require.NoError(t, err)
	require.NoError(t, kept.Unlock(ctx))
	require.NoError(t, kv.Delete(ctx, "a"))
	<-lock.Context().Done()
	_ = lock.Unlock(ctx)
	s.Restart()
	eventually(t, "a reconnect and a stale watcher", func() bool {
		stats := client.Stats()
		return stats.Reconnects == 1 && stats.StaleWatchers == 1
	})
	require.NoError(t, cache.Close())
	require.NoError(t, client.Close())
	stats := client.Stats()
	assert.Equal(t, nats.Stats{
		Statistics: stats.Statistics, Sent: 10, Received: 11, Processed: 6, Failed: 4, Retried: 1, DeadLettered: 1,
		LostLocks: 1, StaleWatchers: 1, Unconfirmed: stats.Unconfirmed, ConnectError: stats.ConnectError,
	}, stats)
}

// No total falls, although what it is made of comes and goes.
func TestStatsNeverFall(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := within(t, time.Minute)
	newStream(t, client, 20)
	handle := func(*nats.Message) error { return errPoison }
	var work sync.WaitGroup
	for worker := range 4 {
		work.Go(func() {
			for i := range 25 {
				subject := fmt.Sprintf("a.%d", worker)
				sub, err := client.Subscribe(ctx, subject, handle)
				if assert.NoError(t, err) {
					assert.NoError(t, client.Publish(ctx, subject, nil))
					assert.NoError(t, sub.Drain(ctx))
				}
				if i%5 > 0 {
					continue
				}
				name := fmt.Sprintf("%d-%d", worker, i)
				consumption, err := client.Consume(ctx, "ORDERS", name, func(*nats.Message) error { return nil },
					nats.WithConsumerConfig(&jetstream.ConsumerConfig{}))
				if assert.NoError(t, err) {
					for consumption.Stats().Handled < 20 && ctx.Err() == nil {
						time.Sleep(time.Millisecond)
					}
					assert.NoError(t, consumption.Stop(ctx))
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { work.Wait(); close(done) }()
	last := client.Stats()
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
		}
		now := client.Stats()
		assertNoneFalls(t, reflect.ValueOf(last), reflect.ValueOf(now))
		last = now
	}
	assert.EqualValues(t, 100+20, last.Sent)
	assert.EqualValues(t, 100+20*20, last.Received)
	assert.EqualValues(t, 100+20*20, last.Processed)
	assert.EqualValues(t, 100, last.Failed)
}

// assertNoneFalls compares the fields that are totals.
func assertNoneFalls(t *testing.T, before, after reflect.Value) {
	t.Helper()
	for i := range before.NumField() {
		switch field := before.Type().Field(i); {
		case field.Anonymous:
			assertNoneFalls(t, before.Field(i), after.Field(i))
		case field.Type.Kind() == reflect.Uint64 && field.Name != "Unconfirmed":
			assert.LessOrEqual(t, before.Field(i).Uint(), after.Field(i).Uint(), field.Name)
		}
	}
}

// Several handlers get all events, in their order, and one that panics or hangs keeps none from another.
func TestWithEventHandlers(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	defer close(release)
	var first, second eventLog
	client := connect(t, natstest.RunServer(t), nil, nats.WithOptions(nil, nats.WithEventHandler(first.handle)),
		nats.WithEventHandler(nil),
		nats.WithEventHandler(func(nats.Event) { panic("no") }), nats.WithEventHandler(func(nats.Event) { <-release }), nats.WithEventHandler(second.handle))
	require.NoError(t, client.Close())
	eventually(t, "both have heard of the end", func() bool {
		return len(first.of(nats.EventClosed)) == 1 && len(second.of(nats.EventClosed)) == 1
	})
	assert.Equal(t, first.of(nats.EventConnected), second.of(nats.EventConnected))
}

// What WithStart starts is stopped first, the last before the others, once, whatever one of them does.
func TestWithStart(t *testing.T) {
	t.Parallel()
	var log logBuffer
	var seen trail
	start := func(name string) nats.Option {
		return nats.WithStart(func(client *nats.Client) (stop func()) {
			assert.NoError(t, client.Ping(within(t, patience)))
			seen.note("start " + name)
			return func() {
				assert.NoError(t, client.Publish(context.Background(), "a", nil), "calls go on")
				seen.note("stop " + name)
				if name == "b" {
					panic("no")
				}
			}
		})
	}
	client := connect(t, natstest.RunServer(t), nil, nats.WithLogger(log.logger()), nats.WithOptions(start("a"), start("b")), start("c"),
		nats.WithStart(nil), nats.WithStart(func(*nats.Client) func() { return nil }), nats.WithStart(func(*nats.Client) func() { panic("no") }))
	_, err := client.Subscribe(context.Background(), "ask", func(*nats.Message) error { seen.note("handled"); return nil })
	require.NoError(t, err)
	require.NoError(t, client.Publish(context.Background(), "ask", nil))
	require.NoError(t, client.Flush(context.Background()))
	require.NoError(t, client.Close())
	require.NoError(t, client.Close())
	steps := seen.take(t, 7)
	steps = slices.DeleteFunc(steps, func(step string) bool { return step == "handled" })
	assert.Equal(t, []string{"start a", "start b", "start c", "stop c", "stop b", "stop a"}, steps)
	assert.Equal(t, 2, strings.Count(log.String(), "a callback panicked"))
}

// Upstream counts a first connection that took more than one attempt, and logins that are refused.
func TestStatsReconnects(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	s.Stop()
	client := connect(t, s, nil, nats.WithBackgroundConnect())
	eventually(t, "it fails", func() bool { return client.Stats().ConnectError != nil })
	for again := range uint64(2) {
		s.Restart()
		eventually(t, "it stands", func() bool { return client.IsConnected() && client.Stats().Reconnects == again })
		s.Stop()
		eventually(t, "it is lost", func() bool { return !client.IsConnected() })
		assert.Equal(t, again, client.Stats().Reconnects)
	}
	_ = client.Close()
	assert.EqualValues(t, 1, client.Stats().Reconnects)
}

// A stop that hangs takes no more than Close's own time, and Close says so.
func TestWithStartThatHangs(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	defer close(release)
	client := connect(t, natstest.RunServer(t), nil, nats.WithStart(func(*nats.Client) func() { return func() { <-release } }))
	require.ErrorIs(t, client.Shutdown(within(t, 50*time.Millisecond)), nats.ErrDrainTimeout)
}

// What closes the client while it starts is followed by the stop.
func TestWithStartCloses(t *testing.T) {
	t.Parallel()
	var seen trail
	s := natstest.RunServer(t)
	_, err := nats.NewClient(&nats.Config{URLs: []string{s.URL()}}, nats.WithStart(func(client *nats.Client) func() {
		assert.NoError(t, client.Close())
		return func() { seen.note("stopped") }
	}))
	require.NoError(t, err)
	seen.take(t, 1)
}
