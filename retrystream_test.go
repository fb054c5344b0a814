package nats_test

import (
	"bytes"
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// parkOne has a message wait in the retry stream, from where it comes back after some delay, and ends the
// Consumption.
func parkOne(t *testing.T, client *nats.Client, delay time.Duration) {
	t.Helper()
	consumption := consume(t, client, func(*nats.Message) error { return nats.RetryAfter(errPoison, delay) },
		nats.WithRetryStream())
	eventually(t, "it is parked", func() bool { return consumption.Stats().Parked > 0 })
	require.NoError(t, consumption.Stop(within(t, patience)))
}

// smallConsumer makes a consumer of which one waiting message is a quarter of MaxAckPending, and lets that one
// wait in its place, so that the next one does not.
func smallConsumer(t *testing.T, client *nats.Client, headersOnly bool) {
	t.Helper()
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", MaxAckPending: 4, HeadersOnly: headersOnly})
	ctx := context.Background()
	held, err := client.PullMessages(ctx, "ORDERS", "worker", 1)
	require.NoError(t, err)
	require.Len(t, held, 1)
	t.Cleanup(func() { _ = held[0].Ack() })
}

// The retry stream is there before anything fails, as durable as the other; so is that of the dead letters.
func TestRetryStreamIsMadeAtTheStart(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) { o.Tags = []string{"fast"} })), nil)
	ctx := context.Background()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{
		Name: "ORDERS", Subjects: []string{"orders.>"}, Storage: jetstream.MemoryStorage, Compression: jetstream.S2Compression,
		Placement: &jetstream.Placement{Tags: []string{"fast"}},
	})
	require.NoError(t, err)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", AckWait: 7 * time.Second})
	handler := func(*nats.Message) error { return nats.Permanent(errPoison) }
	consumption := consume(t, client, handler, nats.WithRetryStream())
	info, err := client.GetStreamInfo(ctx, "ORDERS_RETRY")
	require.NoError(t, err)
	assert.Equal(t, jetstream.WorkQueuePolicy, info.Config.Retention)
	assert.Equal(t, []string{"retry.ORDERS.*"}, info.Config.Subjects)
	_, err = client.PublishToStream(ctx, "orders.created", nil)
	require.NoError(t, err)
	eventually(t, "the dead letter", func() bool { return consumption.Stats().DeadLettered == 1 })
	for _, name := range []string{"ORDERS_RETRY", "ORDERS_DLQ"} {
		info, err := client.GetStreamInfo(ctx, name)
		require.NoError(t, err)
		assert.Equal(t, jetstream.MemoryStorage, info.Config.Storage)
		assert.Equal(t, jetstream.S2Compression, info.Config.Compression)
		assert.Equal(t, []string{"fast"}, info.Config.Placement.Tags)
	}
	require.NoError(t, consumption.Stop(within(t, patience)))
	_, err = client.EnsureConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{
		Name: "worker", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 11 * time.Second,
	})
	require.NoError(t, err)
	consume(t, client, handler, nats.WithRetryStream())
	consumer, err := client.GetConsumerInfo(ctx, "ORDERS_RETRY", "worker")
	require.NoError(t, err)
	assert.Equal(t, 11*time.Second, consumer.Config.AckWait, "as the consumer has it now")
}

// What the retry stream takes is looked at when Consume begins.
func TestRetryStreamIsCheckedAtTheStart(t *testing.T) {
	t.Parallel()
	for name, denied := range map[string]string{
		"to make the stream":   "$JS.API.STREAM.CREATE.>",
		"to make the consumer": "$JS.API.CONSUMER.CREATE.>",
		"to publish":           "retry.>",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := restricted(t, &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{denied}}})
			admin := connect(t, s, as("admin"))
			newStream(t, admin, 0)
			newConsumer(t, admin, jetstream.ConsumerConfig{Name: "worker"})
			begin := time.Now()
			_, err := connect(t, s, as("u")).Consume(context.Background(), "ORDERS", "worker",
				func(*nats.Message) error { return nil }, nats.WithRetryStream())
			require.ErrorIs(t, err, nats.ErrPermission)
			require.ErrorContains(t, err, denied[:len(denied)-1])
			assert.Less(t, since(begin), raceSlack)
		})
	}
	t.Run("another stream has the subject", func(t *testing.T) {
		t.Parallel()
		client := connect(t, natstest.RunServer(t), nil)
		ctx := context.Background()
		newStream(t, client, 0)
		newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
		for stream, subject := range map[string]string{"OTHER": "retry.>", "ORDERS_RETRY": "unrelated"} {
			_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: stream, Subjects: []string{subject}, Retention: jetstream.WorkQueuePolicy})
			require.NoError(t, err)
		}
		_, err := client.Consume(ctx, "ORDERS", "worker", func(*nats.Message) error { return nil }, nats.WithRetryStream())
		require.Error(t, err)
		require.NoError(t, client.DeleteStream(ctx, "OTHER"))
		consume(t, client, func(*nats.Message) error { return nil }, nats.WithRetryStream())
		info, err := client.GetStreamInfo(ctx, "ORDERS_RETRY")
		require.NoError(t, err)
		assert.Contains(t, info.Config.Subjects, "retry.ORDERS.worker")
	})
}

// Who takes the option away leaves nothing behind: the next Consume handles what waits, by key as well, and
// though the consumer in the retry stream is gone.
func TestRetryStreamIsEmptiedByTheNext(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]nats.ConsumeOption{
		"without":             nil,
		"by key":              {nats.WithKey(func(msg *nats.Message) string { return msg.Subject })},
		"consumer is deleted": {nats.WithRetryStream()},
		"both are deleted":    nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var events eventLog
			var log logBuffer
			client := connect(t, natstest.RunServer(t), nil, nats.WithEventHandler(events.handle), nats.WithLogger(log.logger()))
			newStream(t, client, 2)
			ctx := context.Background()
			smallConsumer(t, client, false)
			parkOne(t, client, 500*time.Millisecond)
			if name == "consumer is deleted" || name == "both are deleted" {
				require.NoError(t, client.DeleteConsumer(ctx, "ORDERS_RETRY", "worker"))
			}
			var got calls
			consumption := consume(t, client, func(msg *nats.Message) error {
				got.note(msg)
				assert.Equal(t, "orders.created", msg.Subject)
				return nil
			}, opts...)
			eventually(t, "it is handled", func() bool { return got.len() == 1 })
			assert.Equal(t, []string{"1"}, got.all())
			eventually(t, "the retry stream is empty", func() bool {
				info, err := client.GetStreamInfo(ctx, "ORDERS_RETRY")
				return err == nil && info.State.Msgs == 0
			})
			lag, err := consumption.Lag(ctx)
			require.NoError(t, err)
			assert.EqualValues(t, 1, lag, "the one that is held elsewhere")
			if name == "consumer is deleted" {
				assert.Empty(t, events.of(nats.EventRetriesLeft))
				return
			}
			eventually(t, "it is told", func() bool { return len(events.of(nats.EventRetriesLeft)) == 1 })
			assert.EqualValues(t, 1, events.of(nats.EventRetriesLeft)[0].Messages)
			assert.Contains(t, log.String(), "ORDERS_RETRY")
		})
	}
}

// The retry stream keeps nothing from the rules of the stream and of the consumer that a message is of.
func TestRetryStreamKeepsTheRulesOfTheOther(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	restart := func(t *testing.T, change func(*nats.Client)) (*nats.Client, *atomic.Int32) {
		t.Helper()
		client := connect(t, natstest.RunServer(t), nil)
		newStream(t, client, 2)
		smallConsumer(t, client, false)
		parkOne(t, client, 100*time.Millisecond)
		change(client)
		var handled atomic.Int32
		consume(t, client, func(*nats.Message) error { handled.Add(1); return nil }, nats.WithRetryStream())
		return client, &handled
	}
	t.Run("paused", func(t *testing.T) {
		t.Parallel()
		client, handled := restart(t, func(client *nats.Client) {
			require.NoError(t, client.PauseConsumer(ctx, "ORDERS", "worker", time.Now().Add(time.Hour)))
		})
		eventually(t, "it is fetched", func() bool {
			info, err := client.GetConsumerInfo(ctx, "ORDERS_RETRY", "worker")
			return err == nil && info.NumAckPending == 1
		})
		time.Sleep(time.Second)
		assert.Zero(t, handled.Load())
		require.NoError(t, client.ResumeConsumer(ctx, "ORDERS", "worker"))
		eventually(t, "it is handled", func() bool { return handled.Load() == 1 })
	})
	t.Run("MaxAge", func(t *testing.T) {
		t.Parallel()
		client, handled := restart(t, func(client *nats.Client) {
			info, err := client.GetStreamInfo(ctx, "ORDERS")
			require.NoError(t, err)
			info.Config.MaxAge = time.Second
			info.Config.Duplicates = time.Second
			_, err = client.UpdateStream(ctx, &info.Config)
			require.NoError(t, err)
			eventually(t, "the stream deletes it", func() bool {
				info, err := client.GetStreamInfo(ctx, "ORDERS")
				return err == nil && info.State.Msgs == 0
			})
		})
		eventually(t, "the retry stream deletes it", func() bool {
			info, err := client.GetStreamInfo(ctx, "ORDERS_RETRY")
			return err == nil && info.State.Msgs == 0
		})
		assert.Zero(t, handled.Load())
	})
	t.Run("filter", func(t *testing.T) {
		t.Parallel()
		client, handled := restart(t, func(client *nats.Client) {
			_, err := client.EnsureConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{
				Name: "worker", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 4, FilterSubject: "orders.paid",
			}, nats.AllowShrink())
			require.NoError(t, err)
		})
		eventually(t, "it is put back", func() bool {
			info, err := client.GetStreamInfo(ctx, "ORDERS_RETRY")
			return err == nil && info.State.LastSeq == 2 && info.State.Msgs == 1
		})
		assert.Zero(t, handled.Load())
	})
}

// What could not be a dead letter afterwards, byte for byte, does not leave its place.
func TestParkingLosesNoPayload(t *testing.T) {
	t.Parallel()
	const limit = 64 << 10
	for name, c := range map[string]struct {
		data        int
		headersOnly bool
		parked      uint64
	}{
		"ROOM":    {data: limit - 2000, parked: 1},
		"LITTLE":  {data: limit - 450},
		"NONE":    {data: limit - 100},
		"HEADERS": {data: 100, headersOnly: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := connect(t, natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) { o.MaxPayload = limit })), nil)
			ctx := context.Background()
			_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, Retention: jetstream.WorkQueuePolicy})
			require.NoError(t, err)
			original := &nats.Message{Subject: "orders.created", Header: natsgo.Header{"X": {"y"}}, Data: bytes.Repeat([]byte("x"), c.data)}
			for _, msg := range []*nats.Message{{Subject: "orders.held"}, original} {
				_, err = client.PublishMsgToStream(ctx, msg)
				require.NoError(t, err)
			}
			smallConsumer(t, client, c.headersOnly)
			var tries, revived atomic.Int32
			consumption := consume(t, client, func(msg *nats.Message) error {
				switch {
				case revived.Load() > 0:
					if !c.headersOnly {
						assert.Equal(t, original.Data, msg.Data)
					}
					revived.Add(1)
					return nil
				case tries.Add(1) == 1:
					return errPoison
				}
				return nats.Permanent(errPoison)
			}, nats.WithBackoff(50*time.Millisecond), nats.WithRetryStream())
			eventually(t, "the dead letter", func() bool { return consumption.Stats().DeadLettered == 1 })
			assert.Equal(t, c.parked, consumption.Stats().Parked)
			revived.Store(1)
			count, err := client.ReplayDeadLetters(ctx, "ORDERS")
			require.NoError(t, err)
			assert.Equal(t, 1, count)
			eventually(t, "it comes back", func() bool { return revived.Load() == 2 })
		})
	}
}

// A MaxAckPending of 1 is strict order, with a retry stream as without.
func TestStrictOrder(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]nats.ConsumeOption{"without": nil, "with a retry stream": nats.WithRetryStream()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := connect(t, natstest.RunServer(t), nil)
			newStream(t, client, 5)
			newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", MaxAckPending: 1})
			var got calls
			consumption := consume(t, client, func(msg *nats.Message) error {
				got.note(msg)
				if got.len()%2 == 1 {
					return errPoison
				}
				return nil
			}, nats.WithBackoff(20*time.Millisecond), nats.WithWorkers(2), opt)
			eventually(t, "all are handled", func() bool { return got.len() == 10 })
			assert.Equal(t, []string{"0", "0", "1", "1", "2", "2", "3", "3", "4", "4"}, got.all())
			assert.Zero(t, consumption.Stats().Parked)
		})
	}
}

// Far from the server, what is done about a copy has the time that the way takes.
func TestCopiesOverAWideLink(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	proxy := natstest.NewProxy(t, s.URL())
	proxy.Delay(600 * time.Millisecond)
	near, far := connect(t, s, nil), connect(t, s, func(c *nats.Config) {
		c.URLs, c.RequestTimeout, c.Timeout = []string{proxy.URL()}, 30*time.Second, 30*time.Second
	})
	newStream(t, near, 1)
	newConsumer(t, near, jetstream.ConsumerConfig{Name: "worker"})
	consumption := consume(t, far, func(*nats.Message) error { return nats.Permanent(errPoison) }, nats.WithRetryStream())
	eventually(t, "it is handled", func() bool { return consumption.Stats().Handled == 1 })
	eventually(t, "the dead letter", func() bool { return consumption.Stats().DeadLettered == 1 })
	eventually(t, "the original ends", func() bool {
		info, err := near.GetConsumerInfo(context.Background(), "ORDERS", "worker")
		return err == nil && info.NumAckPending == 0
	})
	assert.Len(t, deadLettersOf(t, near, "ORDERS_DLQ"), 1)
}

// A copy may be back before the server's word that it is stored: it is no second delivery of the original.
func TestParkedIsBackAtOnce(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	near := connect(t, s, nil)
	client, proxy := through(t, s)
	const messages = 20
	newStream(t, near, messages+1)
	smallConsumer(t, near, false)
	proxy.Delay(20 * time.Millisecond) // longer than the pause before the next try
	var handled atomic.Int32
	consumption := consume(t, client, func(msg *nats.Message) error {
		if meta, err := msg.Metadata(); err == nil && meta.NumDelivered == 1 {
			return nats.RetryAfter(errPoison, time.Millisecond)
		}
		handled.Add(1)
		return nil
	}, nats.WithRetryStream())
	eventually(t, "all are handled", func() bool { return handled.Load() == messages })
	assert.NotZero(t, consumption.Stats().Parked)
}
