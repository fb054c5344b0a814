package nats_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// When all of MaxAckPending waits for its next try, no others come. That is told while there is room.
func TestRetriesThatCrowdAreTold(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]nats.ConsumeOption{
		"in the stream": nats.WithBackoff(time.Minute),
		"here":          nats.WithKey(func(msg *nats.Message) string { return string(msg.Data) }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log logBuffer
			var events eventLog
			client := connect(t, natstest.RunServer(t), nil, nats.WithLogger(log.logger()), nats.WithEventHandler(events.handle))
			newStream(t, client, 70)
			newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", MaxAckPending: 100})
			consume(t, client, func(*nats.Message) error { return errPoison }, nats.WithBackoff(time.Minute), opt)
			eventually(t, "the event", func() bool { return len(events.of(nats.EventRetriesCrowd)) == 1 })
			event := events.of(nats.EventRetriesCrowd)[0]
			assert.Equal(t, "ORDERS/worker", event.Stream+"/"+event.Consumer)
			require.ErrorContains(t, event.Err, "WithRetryStream")
			assert.Contains(t, log.String(), "MaxAckPending")
			health := client.Health(context.Background())
			assert.False(t, health.OK)
			assert.Contains(t, strings.Join(health.Problems, "\n"), "70 messages wait for their next try")
			assert.Len(t, events.of(nats.EventRetriesCrowd), 1, "once")
		})
	}
}

// What others have in their handlers is no crowd, and few retries are none either.
func TestBusyConsumersAreNoCrowd(t *testing.T) {
	t.Parallel()
	var events eventLog
	s := natstest.RunServer(t)
	client, other := connect(t, s, nil, nats.WithEventHandler(events.handle)), connect(t, s, nil)
	newStream(t, client, 80)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", MaxAckPending: 100})
	held, err := other.PullMessages(context.Background(), "ORDERS", "worker", 70)
	require.NoError(t, err)
	require.Len(t, held, 70)
	var got calls
	consume(t, client, func(msg *nats.Message) error {
		got.note(msg)
		if got.len() <= 2 {
			return errPoison
		}
		return nil
	}, nats.WithBackoff(time.Minute))
	eventually(t, "all are handled", func() bool { return got.len() == 10 })
	assert.True(t, client.Health(context.Background()).OK)
	assert.Empty(t, events.of(nats.EventRetriesCrowd))
}

// A consumer that Consume makes has room for many retries, as far as the server allows it; one that is
// there stays as it is.
func TestOwnConsumerHasRoomForRetries(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		limit, stream, set, existing, want int
	}{
		"unset":             {want: 20_000},
		"set":               {set: 7, want: 7},
		"unlimited":         {set: -1, want: -1},
		"server's limit":    {limit: 5000, want: 5000},
		"stream's limit":    {stream: 300, want: 300},
		"there is one":      {existing: 1000, want: 1000},
		"one of the limits": {limit: 5000, stream: 300, want: 300},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := connect(t, natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) {
				o.JetStreamLimits.MaxAckPending = c.limit
			})), nil)
			ctx := context.Background()
			_, err := client.CreateStream(ctx, &jetstream.StreamConfig{
				Name: "ORDERS", Subjects: []string{"orders.>"}, ConsumerLimits: jetstream.StreamConsumerLimits{MaxAckPending: c.stream},
			})
			require.NoError(t, err)
			if c.existing > 0 {
				newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", MaxAckPending: c.existing})
			}
			consume(t, client, func(*nats.Message) error { return nil },
				nats.WithConsumerConfig(&jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: c.set}))
			info, err := client.GetConsumerInfo(ctx, "ORDERS", "worker")
			require.NoError(t, err)
			assert.Equal(t, c.want, info.Config.MaxAckPending)
		})
	}
}

// Where few retries would be enough to stop everything else, that is said at the start.
func TestSmallMaxAckPendingIsTold(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		most, workers int
		told          bool
	}{{1, 1, false}, {1, 2, true}, {9, 1, true}, {10, 1, false}, {30, 4, true}, {-1, 4, false}} {
		var log logBuffer
		client := connect(t, natstest.RunServer(t), nil, nats.WithLogger(log.logger()))
		newStream(t, client, 0)
		newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", MaxAckPending: c.most})
		consume(t, client, func(*nats.Message) error { return nil }, nats.WithWorkers(c.workers))
		assert.Equal(t, c.told, strings.Contains(log.String(), "max_ack_pending"), "%+v", c)
	}
}
