package nats_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// The context of Consume ends at SIGTERM. The handlers that run are let end, with a context that lives,
// and their messages are acknowledged; what waits is handed back, and nothing new is fetched.
func TestEndOfContextIsGraceful(t *testing.T) {
	t.Parallel()
	var log logBuffer
	client := connect(t, natstest.RunServer(t), nil, nats.WithLogger(log.logger()))
	newStream(t, client, 20)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", AckWait: time.Minute})
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), contextKey{}, "kept"), time.Minute)
	defer cancel()
	started, release := make(chan struct{}, 20), make(chan struct{})
	consumption, err := client.Consume(ctx, "ORDERS", "worker", func(msg *nats.Message) error {
		started <- struct{}{}
		<-release
		_, bounded := msg.Context().Deadline()
		if bounded || msg.Context().Value(contextKey{}) != "kept" {
			return errors.New("the context should have the values of Consume's, and not its end")
		}
		return msg.Context().Err()
	}, nats.WithWorkers(2))
	require.NoError(t, err)
	<-started
	<-started
	cancel()
	eventually(t, "it ends", func() bool { return consumption.Err() != nil })
	require.ErrorIs(t, consumption.Err(), context.Canceled)
	eventually(t, "who gave it a short context finds out", func() bool { return strings.Contains(log.String(), "a consumption ends with its context") })
	close(release)
	<-consumption.Done()
	stats := consumption.Stats()
	assert.EqualValues(t, 2, stats.Handled)
	assert.Zero(t, stats.Failed)
	var rest calls
	consume(t, client, func(msg *nats.Message) error { rest.note(msg); return nil })
	idle(t, client)
	assert.Equal(t, 18, rest.len(), "each is handled once")
}

// deploy consumes until the first message is in its handler, which waits for the end of its context, or
// of Consume's, and ends the consumption as end says.
func deploy(t *testing.T, s *natstest.Server, end func(client *nats.Client, consumption *nats.Consumption, cancel func()), opts ...nats.ConsumeOption) {
	t.Helper()
	client := connect(t, s, func(c *nats.Config) { c.DrainTimeout = 50 * time.Millisecond })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	started := make(chan struct{}, 10)
	consumption, err := client.Consume(ctx, "ORDERS", "worker", func(msg *nats.Message) error {
		started <- struct{}{}
		select {
		case <-msg.Context().Done():
			return fmt.Errorf("the order was not done: %w", msg.Context().Err())
		case <-ctx.Done():
			return fmt.Errorf("the order was not done: %w", ctx.Err())
		}
	}, opts...)
	require.NoError(t, err)
	<-started
	end(client, consumption, cancel)
	<-consumption.Done()
	_ = client.Flush(context.Background()) // the acknowledgement is out
}

// Three deploys cut the handler of a good order short. That is no failure of the order's: with
// WithMaxDeliver(3) it became a dead letter.
func TestDeploysBuryNoOrder(t *testing.T) {
	t.Parallel()
	ends := map[string]func(*nats.Client, *nats.Consumption, func()){
		"the context ends": func(_ *nats.Client, _ *nats.Consumption, cancel func()) { cancel() },
		"Stop": func(_ *nats.Client, consumption *nats.Consumption, _ func()) {
			_ = consumption.Stop(context.Background())
		},
	}
	options := map[string][]nats.ConsumeOption{
		"MaxDeliver 3":       {nats.WithMaxDeliver(3)},
		"MaxDeliver 1":       {nats.WithMaxDeliver(1)},
		"a retry stream":     {nats.WithMaxDeliver(3), nats.WithRetryStream()},
		"by key":             {nats.WithMaxDeliver(2), nats.WithKey(func(m *nats.Message) string { return m.Subject })},
		"short ack wait too": {nats.WithMaxDeliver(3)},
	}
	for ending, end := range ends {
		for option, opts := range options {
			t.Run(ending+", "+option, func(t *testing.T) {
				t.Parallel()
				s := natstest.RunServer(t)
				client := connect(t, s, nil)
				newStream(t, client, 1)
				ackWait := 30 * time.Second
				if option == "short ack wait too" {
					ackWait = time.Second
				}
				begin := time.Now()
				newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", AckWait: ackWait})
				for range 3 {
					deploy(t, s, end, opts...)
				}
				if option == "short ack wait too" {
					eventually(t, "the message may have killed three workers", func() bool { return time.Since(begin) > 4*ackWait })
				}
				var got calls
				consumption := consume(t, client, func(msg *nats.Message) error { got.note(msg); return nil }, opts...)
				eventually(t, "it is handled", func() bool { return got.len() == 1 })
				idle(t, client)
				assert.Zero(t, consumption.Stats().DeadLettered)
				assert.Empty(t, deadLettersOf(t, client, "ORDERS_DLQ"))
			})
		}
	}
}

// Close cuts handlers short as well. Those that return when they hear of it have, but on a machine that is
// too busy, their message sent to others at once, and not after the ack wait.
func TestCloseGivesCutMessagesToOthers(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	newStream(t, client, 1)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", AckWait: 2 * time.Second})
	closing := connect(t, s, nil)
	started := make(chan struct{}, 10)
	consume(t, closing, func(msg *nats.Message) error {
		started <- struct{}{}
		<-msg.Context().Done()
		return msg.Context().Err()
	}, nats.WithMaxDeliver(3))
	<-started
	err := closing.Shutdown(within(t, 50*time.Millisecond))
	require.ErrorIs(t, err, nats.ErrDrainTimeout)
	var got calls
	consume(t, client, func(msg *nats.Message) error { got.note(msg); return nil }, nats.WithMaxDeliver(3))
	eventually(t, "it is handled", func() bool { return got.len() == 1 })
	idle(t, client)
	assert.Empty(t, deadLettersOf(t, client, "ORDERS_DLQ"))
}

// Where the consumer itself allows no other delivery, the message would be lost without a dead letter.
func TestCutOnTheServersLastDelivery(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	newStream(t, client, 1)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", MaxDeliver: 1})
	deploy(t, s, func(_ *nats.Client, _ *nats.Consumption, cancel func()) { cancel() })
	letters := deadLettersOf(t, client, "ORDERS_DLQ")
	require.Len(t, letters, 1)
	assert.Contains(t, letters[0].Reason, "the consumer's MaxDeliver")
	assert.Contains(t, letters[0].Reason, "the order was not done")
}

// Permanent is a verdict on the message, also at the end, unless it is about the end.
func TestPermanentAtTheEnd(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), func(c *nats.Config) { c.DrainTimeout = 50 * time.Millisecond })
	newStream(t, client, 2)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	ctx, cancel := context.WithCancel(context.Background())
	var started atomic.Int64
	consumption, err := client.Consume(ctx, "ORDERS", "worker", func(msg *nats.Message) error {
		started.Add(1)
		<-msg.Context().Done()
		if string(msg.Data) == "0" {
			return nats.Permanent(errPoison)
		}
		return nats.Permanent(msg.Context().Err())
	}, nats.WithWorkers(2))
	require.NoError(t, err)
	eventually(t, "both run", func() bool { return started.Load() == 2 })
	cancel()
	<-consumption.Done()
	var got calls
	consume(t, client, func(msg *nats.Message) error { got.note(msg); return nil })
	idle(t, client)
	assert.Equal(t, []string{"1"}, got.all())
	assert.Len(t, deadLettersOf(t, client, "ORDERS_DLQ"), 1)
}

// Those that iterate want no more when their context ends.
func TestIteratorsEndWithTheirContext(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 10)
	for name, iterate := range map[string]func(context.Context, func()) (n int, err error){
		"Messages": func(ctx context.Context, cancel func()) (n int, err error) {
			for _, err := range client.Messages(ctx, "core") {
				if err != nil {
					return n, err
				}
				n++
				cancel()
			}
			return n, nil
		},
		"ReadStream": func(ctx context.Context, cancel func()) (n int, err error) {
			for _, err := range client.ReadStream(ctx, "ORDERS") {
				if err != nil {
					return n, err
				}
				n++
				cancel()
			}
			return n, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			go func() {
				for ctx.Err() == nil {
					for range 10 {
						_ = client.Publish(ctx, "core", nil)
					}
					_ = client.Flush(ctx)
				}
			}()
			n, err := iterate(ctx, cancel)
			if err != nil {
				require.ErrorIs(t, err, context.Canceled)
			}
			assert.Equal(t, 1, n)
		})
	}
}

// What was handed back, or cut short, again and again, is no dead letter that nobody has seen, however old
// it is.
func TestStopsBuryNothing(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{1, 3, 8} {
		for name, opt := range map[string]nats.ConsumeOption{"in place": nil, "with a retry stream": nats.WithRetryStream()} {
			t.Run(fmt.Sprint(limit, ", ", name), func(t *testing.T) {
				t.Parallel()
				s := natstest.RunServer(t)
				proxy := natstest.NewProxy(t, s.URL())
				proxy.Delay(10 * time.Millisecond) // far enough to fetch ahead
				client := connect(t, s, func(c *nats.Config) { c.URLs = []string{proxy.URL()} })
				const total = 200
				newStream(t, connect(t, s, nil), total)
				const ackWait = time.Second
				newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", AckWait: ackWait})
				time.Sleep(time.Duration(limit+1) * ackWait) // old enough to have killed so many workers
				var got calls
				var dead uint64
				handler := func(msg *nats.Message) error {
					got.note(msg)
					time.Sleep(time.Millisecond)
					return nil
				}
				for range limit + 3 {
					before := got.len()
					consumption := consume(t, client, handler, nats.WithMaxDeliver(limit), opt)
					eventually(t, "it handles some", func() bool { return got.len() > before+5 || got.distinct() == total })
					require.NoError(t, consumption.Stop(within(t, patience)))
					dead += consumption.Stats().DeadLettered
				}
				consumption := consume(t, client, handler, nats.WithMaxDeliver(limit), opt)
				eventually(t, "all are handled", func() bool { return got.distinct() == total })
				idle(t, client)
				assert.Zero(t, dead+consumption.Stats().DeadLettered)
			})
		}
	}
}
