package nats_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
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

// resumeWithin is how soon consumption must be back when what it needs is.
const resumeWithin = 2 * time.Second

// publishUntilSeen publishes payload until the handler has seen it, and fails when that takes longer
// than it may.
func publishUntilSeen(t testing.TB, client *nats.Client, got *calls, payload string) {
	t.Helper()
	_, err := client.PublishToStream(context.Background(), "orders.created", []byte(payload))
	require.NoError(t, err)
	begin := time.Now()
	eventually(t, payload+" is seen", func() bool { return strings.Contains(strings.Join(got.all(), " "), payload) })
	assert.Less(t, since(begin), resumeWithin+raceSlack, payload)
}

// Raw nats.go: the loop ends 1 ms after its consumer is deleted, and only an error handler hears of
// it.
func TestConsumeSurvivesDeletion(t *testing.T) {
	t.Parallel()
	for name, owned := range map[string]bool{"owned": true, "bound": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log logBuffer
			var events eventLog
			s := natstest.RunServer(t)
			client := connect(t, s, nil, nats.WithLogger(log.logger()), nats.WithEventHandler(events.handle))
			other := connect(t, s, nil)
			newStream(t, client, 10)
			ctx := context.Background()
			var got calls
			h := func(msg *nats.Message) error { got.note(msg); return nil }
			var consumption *nats.Consumption
			var looks atomic.Int32 // at the consumer
			if owned {
				consumption = consume(t, client, h, nats.WithConsumerConfig(&jetstream.ConsumerConfig{}))
			} else {
				newConsumer(t, other, jetstream.ConsumerConfig{Name: "worker"})
				consumption = consume(t, client, h)
			}
			eventually(t, "the first ten", func() bool { return got.len() == 10 })
			idle(t, other)
			if owned {
				_, err := other.Subscribe(ctx, "$JS.API.CONSUMER.INFO.ORDERS.worker", func(*nats.Message) error { looks.Add(1); return nil })
				require.NoError(t, err)
				eventually(t, "it looks at what is done", func() bool { return looks.Load() > 0 })
				_, err = client.GetConsumerInfo(ctx, "ORDERS", "worker") // which is answered later
				require.NoError(t, err)
			}

			require.NoError(t, other.DeleteConsumer(ctx, "ORDERS", "worker"))
			if !owned {
				eventually(t, "unhealthy", func() bool { return !consumption.Healthy() })
				time.Sleep(2 * time.Second)
				warnings := strings.Count(log.String(), "consumer is not available")
				assert.LessOrEqual(t, warnings, 7, "one for every step")
				eventually(t, "more than one", func() bool { return strings.Count(log.String(), "consumer is not available") > 2 })
				assert.False(t, consumption.Healthy())
				newConsumer(t, other, jetstream.ConsumerConfig{Name: "worker", DeliverPolicy: jetstream.DeliverNewPolicy})
			}
			publishUntilSeen(t, other, &got, "again")
			assert.Equal(t, 11, got.len(), "what was done is not done again")
			eventually(t, "healthy", consumption.Healthy)
			if owned {
				// Where the new one begins is no difference to the configuration.
				require.NoError(t, consumption.Stop(ctx))
				consumption = consume(t, client, h, nats.WithConsumerConfig(&jetstream.ConsumerConfig{}))
			}
			eventually(t, "the event", func() bool { return len(events.of(nats.EventConsumerAvailable)) == 1 })
			assert.Len(t, events.of(nats.EventConsumerUnavailable), 1)

			// The same with the whole stream. Its new messages have old numbers.
			require.NoError(t, other.DeleteStream(ctx, "ORDERS"))
			eventually(t, "unhealthy", func() bool { return !consumption.Healthy() })
			eventually(t, "the stream is there again", func() bool {
				_, err := other.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}})
				if err != nil {
					t.Log(err) // the server is still removing the old one's files
				}
				return err == nil
			})
			if !owned {
				newConsumer(t, other, jetstream.ConsumerConfig{Name: "worker"})
			}
			publishUntilSeen(t, other, &got, "afresh")
			assert.Equal(t, 12, got.len())
			require.NoError(t, consumption.Err())
		})
	}
}

// A work queue allows no consumer that begins anywhere but at its beginning.
func TestConsumeSurvivesDeletionInAWorkQueue(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, other := connect(t, s, nil), connect(t, s, nil)
	ctx := within(t, time.Minute)
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, Retention: jetstream.WorkQueuePolicy})
	require.NoError(t, err)
	var looks atomic.Int32 // at the consumer
	_, err = other.Subscribe(ctx, "$JS.API.CONSUMER.INFO.ORDERS.worker", func(*nats.Message) error { looks.Add(1); return nil })
	require.NoError(t, err)
	var got calls
	consume(t, client, func(msg *nats.Message) error { got.note(msg); return nil }, nats.WithConsumerConfig(&jetstream.ConsumerConfig{}))
	publishUntilSeen(t, client, &got, "first")
	eventually(t, "it looks at what is done", func() bool { return looks.Load() > 0 })
	_, err = client.GetConsumerInfo(ctx, "ORDERS", "worker") // which is answered later
	require.NoError(t, err)
	require.NoError(t, other.DeleteConsumer(ctx, "ORDERS", "worker"))
	publishUntilSeen(t, client, &got, "again")
	assert.Equal(t, 2, got.len())
}

// Raw nats.go: a consumer in memory that a restart has lost is awaited for ever, in silence.
func TestConsumeSurvivesRestart(t *testing.T) {
	t.Parallel()
	for name, memory := range map[string]bool{"consumer on disk": false, "consumer in memory": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := natstest.RunServer(t)
			client, other := connect(t, s, nil), connect(t, s, nil)
			newStream(t, client, 10)
			var got calls
			consumption := consume(t, client, func(msg *nats.Message) error { got.note(msg); return nil },
				nats.WithConsumerConfig(&jetstream.ConsumerConfig{MemoryStorage: memory}), nats.WithWorkers(2))
			eventually(t, "the first ten", func() bool { return got.len() == 10 })
			idle(t, client)
			for i := range 3 {
				s.Stop()
				eventually(t, "unhealthy", func() bool { return !consumption.Healthy() })
				s.Restart()
				require.NoError(t, other.Ping(within(t, patience)))
				publishUntilSeen(t, other, &got, fmt.Sprint("restart", i))
				eventually(t, "healthy", consumption.Healthy)
				idle(t, other) // what a stopping server has not heard of comes again
			}
			if !memory {
				assert.Equal(t, 13, got.len())
			}
		})
	}
}

// A consumer that is paused is silent, and no worse.
func TestConsumePausedConsumer(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 5)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	ctx := context.Background()
	var got calls
	consumption := consume(t, client, func(msg *nats.Message) error { got.note(msg); return nil })
	eventually(t, "all handled", func() bool { return got.len() == 5 })
	require.NoError(t, client.PauseConsumer(ctx, "ORDERS", "worker", time.Now().Add(time.Hour)))
	_, err := client.PublishToStream(ctx, "orders.created", []byte("later"))
	require.NoError(t, err)
	time.Sleep(2 * time.Second) // nothing is to come
	assert.Equal(t, 5, got.len())
	assert.True(t, consumption.Healthy())
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"}) // a service that starts meanwhile
	require.NoError(t, client.ResumeConsumer(ctx, "ORDERS", "worker"))
	eventually(t, "it comes", func() bool { return got.len() == 6 })
}

// A connection that is cut again and again, with handlers at work, loses nothing.
func TestConsumeOverBrokenConnections(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	publisher := connect(t, s, nil)
	client, proxy := through(t, s)
	const n = 600
	newStream(t, publisher, n)
	newConsumer(t, publisher, jetstream.ConsumerConfig{Name: "worker", AckWait: time.Second})
	var got calls
	consume(t, client, func(msg *nats.Message) error {
		got.note(msg)
		time.Sleep(2 * time.Millisecond)
		return nil
	}, nats.WithWorkers(2))
	for range 5 {
		before := got.len()
		eventually(t, "progress", func() bool { return got.len() > before+20 || got.distinct() == n })
		proxy.Cut()
		proxy.Restore()
	}
	eventually(t, "all handled", func() bool { return got.distinct() == n })
	idle(t, publisher)
}

// A server that is silent without closing the connection is found out, and those who hold messages
// meanwhile do not handle them twice.
func TestConsumeThroughABlackHole(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	publisher := connect(t, s, nil)
	client, proxy := through(t, s)
	newStream(t, publisher, 2)
	newConsumer(t, publisher, jetstream.ConsumerConfig{Name: "worker", AckWait: 2 * time.Second}) // in which a busy machine extends the deadline
	var got calls
	started, release := make(chan struct{}, 10), make(chan struct{})
	consumption := consume(t, client, func(msg *nats.Message) error {
		got.note(msg)
		started <- struct{}{}
		<-release
		return nil
	}, nats.WithWorkers(3))
	<-started
	<-started
	proxy.BlackHole()
	eventually(t, "unhealthy", func() bool { return !consumption.Healthy() })
	proxy.Restore() // the deadlines have passed
	eventually(t, "healthy", consumption.Healthy)
	time.Sleep(time.Second) // for deliveries once more
	close(release)
	idle(t, publisher)
	assert.Equal(t, 2, got.len())
	publishUntilSeen(t, publisher, &got, "after")
}

// A consumer that takes fewer pulls than there are instances is no worse for those that have to wait: the
// server is silent to them. They take over when another one ends.
func TestConsumeWithoutRoomForItsPull(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	var events eventLog
	client := connect(t, s, nil, nats.WithEventHandler(events.handle))
	newStream(t, client, 0)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", MaxWaiting: 1})
	var got calls
	handler := func(msg *nats.Message) error { got.note(msg); return nil }
	both := []*nats.Consumption{consume(t, client, handler, nats.WithWorkers(4)), consume(t, client, handler, nats.WithWorkers(4))}
	for range 4 {
		time.Sleep(time.Second) // in which the silence is noticed
		publishUntilSeen(t, client, &got, fmt.Sprint("message", got.len()))
		for _, consumption := range both {
			assert.True(t, consumption.Healthy())
		}
	}
	assert.Empty(t, events.of(nats.EventConsumerUnavailable))
	require.NoError(t, both[0].Stop(within(t, patience)))
	publishUntilSeen(t, client, &got, "after the first has ended")
	require.NoError(t, both[1].Stop(within(t, patience)))
}

// A message of a stream that is gone has the sequence of one in the stream that took its place: when its
// handler returns at last, that one is not acknowledged. So it is where the client was away meanwhile.
func TestStreamMadeAnewUnderARunningHandler(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]bool{"connected": false, "away": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := natstest.RunServer(t)
			proxy := natstest.NewProxy(t, s.URL())
			other, client := connect(t, s, nil), connect(t, s, func(c *nats.Config) { c.URLs = []string{proxy.URL()} })
			newStream(t, other, 1)
			newConsumer(t, other, jetstream.ConsumerConfig{Name: "worker"})
			var got calls
			release := map[string]chan struct{}{"0": make(chan struct{}), "new": make(chan struct{})}
			consumption := consume(t, client, func(msg *nats.Message) error {
				got.note(msg)
				<-release[string(msg.Data)]
				return nil
			}, nats.WithWorkers(2))
			eventually(t, "the handler runs", func() bool { return got.len() == 1 })
			if away {
				proxy.Cut()
			}
			ctx := context.Background()
			require.NoError(t, other.DeleteStream(ctx, "ORDERS"))
			if !away {
				eventually(t, "it knows", func() bool { return !consumption.Healthy() })
			}
			newStream(t, other, 0)
			newConsumer(t, other, jetstream.ConsumerConfig{Name: "worker"})
			_, err := other.PublishToStream(ctx, "orders.created", []byte("new"))
			require.NoError(t, err)
			proxy.Restore()
			eventually(t, "the new one runs", func() bool { return got.len() == 2 })
			close(release["0"])
			eventually(t, "the old one has returned", func() bool { return consumption.Stats().InFlight == 1 })
			require.NoError(t, client.Flush(ctx))
			info, err := other.GetConsumerInfo(ctx, "ORDERS", "worker")
			require.NoError(t, err)
			assert.Equal(t, 1, info.NumAckPending)
			close(release["new"])
			idle(t, other)
		})
	}
}

// A consumer that was made anew delivers what is handled here once more, for the first time: it is handled once, and where
// that fails it comes again when it is to.
func TestConsumerMadeAnewUnderARunningHandler(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, other := connect(t, s, nil), connect(t, s, nil)
	newStream(t, other, 10)
	newConsumer(t, other, jetstream.ConsumerConfig{Name: "worker", AckWait: patience})
	var got calls
	release := make(chan error)
	consume(t, client, func(msg *nats.Message) error {
		if got.note(msg); string(msg.Data) == "9" {
			return <-release
		}
		return nil
	}, nats.WithWorkers(3), nats.WithBackoff(20*time.Millisecond))
	eventually(t, "the last handler runs, alone", func() bool {
		info, err := other.GetConsumerInfo(t.Context(), "ORDERS", "worker")
		return err == nil && got.len() == 10 && info.NumAckPending == 1
	})
	require.NoError(t, other.DeleteConsumer(t.Context(), "ORDERS", "worker"))
	newConsumer(t, other, jetstream.ConsumerConfig{
		Name: "worker", AckWait: patience, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: 10,
	})
	publishUntilSeen(t, other, &got, "after")
	assert.Equal(t, 11, got.len())
	begin := time.Now()
	release <- errors.New("not yet")
	eventually(t, "it comes again", func() bool { return got.len() == 12 })
	assert.Less(t, since(begin), patience/2)
	release <- nil
	idle(t, other)
	assert.Equal(t, 12, got.len())
}

// Far from the server the first messages take as long as the way there and back, twice: raw nats.go has the
// consumer looked up as well. One message after the other, each a way, was what they took.
func TestConsumeFromAfar(t *testing.T) {
	t.Parallel()
	const trip = 600 * time.Millisecond
	for name, opts := range map[string][]nats.ConsumeOption{
		"one by one": nil, "confirmed": {nats.WithConfirmedAcks(), nats.WithWorkers(100)}, "few deliveries": {nats.WithMaxDeliver(2)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := natstest.RunServer(t)
			proxy := natstest.NewProxy(t, s.URL())
			proxy.Delay(trip / 2)
			near, client := connect(t, s, nil), connect(t, s, func(c *nats.Config) { c.URLs = []string{proxy.URL()} })
			newStream(t, near, 100)
			newConsumer(t, near, jetstream.ConsumerConfig{Name: "worker"})
			var got calls
			begin := time.Now()
			consumption := consume(t, client, func(msg *nats.Message) error { got.note(msg); return nil }, opts...)
			eventually(t, "all are handled", func() bool { return got.len() == 100 })
			assert.Less(t, since(begin), 3*trip+raceSlack)
			idle(t, near)
			assert.Zero(t, consumption.Stats().Unconfirmed)
		})
	}
}

// A consumer is made again also where the server takes its time for each question.
func TestConsumerIsMadeAgainSlowly(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	near := connect(t, s, nil)
	newStream(t, near, 0)
	nc := raw(t, s)
	_, err := nc.Subscribe("api.>", func(m *natsgo.Msg) {
		time.AfterFunc(400*time.Millisecond, func() {
			_ = nc.PublishRequest("$JS.API."+strings.TrimPrefix(m.Subject, "api."), m.Reply, m.Data)
		})
	})
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	client := connect(t, s, func(c *nats.Config) { c.JetStreamAPIPrefix = "api" })
	handled := make(chan struct{}, 10)
	begin := func() *nats.Consumption {
		consumption, err := client.Consume(t.Context(), "ORDERS", "c", func(*nats.Message) error {
			handled <- struct{}{}
			return nil
		}, nats.WithConsumerConfig(&jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy}))
		require.NoError(t, err)
		_, err = near.PublishToStream(within(t, patience), "orders.created", nil)
		require.NoError(t, err)
		return consumption
	}
	heard := func() {
		select {
		case <-handled:
		case <-time.After(patience):
			require.FailNow(t, "nobody consumes any more")
		}
	}
	first := begin()
	heard()
	require.NoError(t, first.Stop(within(t, patience)))
	begin()
	heard()
	require.NoError(t, near.DeleteConsumer(t.Context(), "ORDERS", "c"))
	_, err = near.PublishToStream(within(t, patience), "orders.created", nil)
	require.NoError(t, err)
	heard()
}
