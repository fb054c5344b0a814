package nats_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// What a consumer's configuration does not allow is told at once, and as such.
func TestPullIsRefused(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 3)
	for name, cfg := range map[string]jetstream.ConsumerConfig{
		"batch":   {MaxRequestBatch: 5},
		"expires": {MaxRequestExpires: time.Second},
		"push":    {DeliverSubject: "somewhere"},
		"groups":  {PriorityPolicy: jetstream.PriorityPolicyPinned, PinnedTTL: time.Minute, PriorityGroups: []string{"g"}},
	} {
		t.Run(name, func(t *testing.T) {
			cfg.Name = name
			if name == "push" {
				_, err := client.JetStream().CreateOrUpdatePushConsumer(t.Context(), "ORDERS", cfg)
				require.NoError(t, err)
			} else {
				newConsumer(t, client, cfg)
			}
			begun := time.Now()
			_, err := client.PullMessages(within(t, patience), "ORDERS", name, 10)
			require.ErrorIs(t, err, nats.ErrPullRefused)
			require.ErrorIs(t, err, nats.ErrInvalidArgument)
			assert.Less(t, since(begun), patience/2)
		})
	}
}

// As many pulls as a consumer takes are waiting: this one waits for room.
func TestPullWaitsForRoom(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 0)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "c", MaxWaiting: 1})
	results := make(chan int, 2)
	pull := func() {
		messages, err := client.PullMessages(within(t, patience), "ORDERS", "c", 1)
		assert.NoError(t, err)
		results <- len(messages)
	}
	go pull()
	go pull()
	for range 2 {
		_, err := client.PublishToStream(within(t, patience), "orders.created", nil)
		require.NoError(t, err)
		assert.Equal(t, 1, <-results)
	}
}

// A large limit is no large buffer.
func TestPullTakesNoRoomInAdvance(t *testing.T) {
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 5)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "c"})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	messages, err := client.PullMessages(within(t, patience), "ORDERS", "c", 10_000_000)
	runtime.ReadMemStats(&after)
	require.NoError(t, err)
	assert.Len(t, messages, 5)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(2<<20))
}

// A pull that its caller gives up costs no message its only delivery.
func TestPullsThatAreGivenUpLoseNothing(t *testing.T) {
	t.Parallel()
	for _, trip := range []time.Duration{0, 100 * time.Millisecond} {
		for _, deadline := range []bool{true, false} {
			t.Run(fmt.Sprint(trip, deadline), func(t *testing.T) {
				t.Parallel()
				s := natstest.RunServer(t)
				near := connect(t, s, nil)
				proxy := natstest.NewProxy(t, s.URL())
				proxy.Delay(trip / 2)
				client := connect(t, s, func(c *nats.Config) { c.URLs = []string{proxy.URL()} })
				newStream(t, near, 0)
				newConsumer(t, near, jetstream.ConsumerConfig{Name: "c", MaxDeliver: 1})
				const n = 200
				var publishing sync.WaitGroup
				defer publishing.Wait()
				publishing.Go(func() {
					for i := range n {
						_, err := near.PublishToStream(context.Background(), "orders.created", fmt.Append(nil, i))
						assert.NoError(t, err)
					}
				})
				seen := map[string]int{}
				late := false // a call, on a busy machine: what was left for it may have been handed back
				for last, news := time.Now(), time.Now(); len(seen) < n && (time.Since(news) < 5*time.Second || !late && time.Since(news) < patience); {
					ctx, cancel := context.WithCancel(t.Context())
					if deadline {
						ctx, cancel = context.WithTimeout(ctx, 10*time.Millisecond+trip/2)
					} else {
						time.AfterFunc(trip/2+time.Duration(len(seen)%7)*time.Millisecond, cancel)
					}
					before := last
					last = time.Now()
					messages, _ := client.PullMessages(ctx, "ORDERS", "c", 5)
					cancel()
					if time.Since(before) > 200*time.Millisecond+trip {
						late = true
					}
					for _, msg := range messages {
						news = time.Now()
						seen[string(msg.Data)]++
						meta, err := msg.Metadata()
						require.NoError(t, err)
						require.EqualValues(t, 1, meta.NumDelivered)
						require.NoError(t, msg.Ack())
					}
				}
				assert.True(t, late || len(seen) == n, "%d of %d", len(seen), n)
			})
		}
	}
}

// Close does not wait for what a given-up pull may still bring when its consumer is gone.
func TestPullGivenUpDoesNotHoldClose(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 0)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "c"})
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err := client.PullMessages(ctx, "ORDERS", "c", 2)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, client.DeleteStream(t.Context(), "ORDERS"))
	begun := time.Now()
	require.NoError(t, client.Close())
	assert.Less(t, since(begun), 1500*time.Millisecond, "it took 2 s")
}

// Over a long way, a pull takes one round trip, and so does a confirmed acknowledgement.
func TestPullOverALongWay(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	near := connect(t, s, nil)
	newStream(t, near, 500)
	newConsumer(t, near, jetstream.ConsumerConfig{Name: "c"})
	const trip = 2400 * time.Millisecond
	proxy := natstest.NewProxy(t, s.URL())
	proxy.Delay(trip / 2)
	client := connect(t, s, func(c *nats.Config) {
		c.URLs, c.Timeout, c.DialTimeout = []string{proxy.URL()}, 30*time.Second, 30*time.Second
	})
	ctx := within(t, time.Minute)
	for _, n := range []int{1, 200} {
		begun := time.Now()
		messages, err := client.PullMessages(ctx, "ORDERS", "c", n)
		require.NoError(t, err)
		require.Len(t, messages, n)
		assert.Less(t, since(begun), trip*7/4, "a second one makes it twice as long")
		begun = time.Now()
		require.NoError(t, client.AckMessage(ctx, messages[0]))
		assert.Less(t, since(begun), trip*7/4, "a second one makes it twice as long")
	}
	// So long as the way is no longer than the time of a call, the answer is waited for by the next one.
	var got int
	for begun := time.Now(); got < 10 && time.Since(begun) < patience; {
		messages, err := client.PullMessages(within(t, time.Second), "ORDERS", "c", 10)
		require.NoError(t, err)
		got += len(messages) // all at once, but for a busy machine
	}
	assert.GreaterOrEqual(t, got, 10)
}
