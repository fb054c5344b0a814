package nats_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestSlowConsumerIsReported(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	var events eventLog
	var log logBuffer
	client := connect(t, s, nil, nats.WithEventHandler(events.handle), nats.WithLogger(log.logger()))
	ctx := context.Background()
	release := make(chan struct{})
	sub, err := client.QueueSubscribe(ctx, "x", "q", func(*nats.Message) error { <-release; return nil },
		nats.WithPendingLimits(10, -1))
	require.NoError(t, err)
	for range 100 {
		require.NoError(t, client.Publish(ctx, "x", nil))
	}
	require.NoError(t, client.Flush(ctx))
	eventually(t, "the event", func() bool { return len(events.of(nats.EventSlowConsumer)) == 1 })
	e := events.of(nats.EventSlowConsumer)[0]
	assert.Equal(t, "x", e.Subject)
	assert.Equal(t, "q", e.Queue)
	require.ErrorIs(t, e.Err, nats.ErrSlowConsumer)
	require.ErrorIs(t, e.Err, natsgo.ErrSlowConsumer)
	eventually(t, "the log line", func() bool { return strings.Contains(log.String(), "subject=x queue=q") })
	eventually(t, "all have come", func() bool { return sub.Stats().Dropped >= 89 })
	close(release)
	require.NoError(t, sub.Drain(ctx))
	dropped := sub.Stats().Dropped
	assert.InDelta(t, 90, dropped, 1, "the one that is handled may have left the queue")
	assert.Equal(t, 100-dropped, sub.Stats().Handled)
	assert.Equal(t, dropped, client.Stats().Dropped, "kept after the end")
}

// The events of several episodes, and of two subscriptions, add up to what was dropped.
func TestReportedDropsAddUp(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	var events eventLog
	var log logBuffer
	client := connect(t, s, nil, nats.WithEventHandler(events.handle), nats.WithLogger(log.logger()))
	ctx := context.Background()
	gate := make(chan struct{})
	var handled atomic.Int64
	handler := func(*nats.Message) error {
		<-gate
		handled.Add(1)
		return nil
	}
	one, err := client.Subscribe(ctx, "x", handler, nats.WithPendingLimits(5, -1))
	require.NoError(t, err)
	two, err := client.QueueSubscribe(ctx, "x", "q", handler, nats.WithPendingLimits(7, -1), nats.WithConcurrency(3))
	require.NoError(t, err)
	published := 0
	const episodes = 3
	for range episodes {
		for range 200 {
			require.NoError(t, client.Publish(ctx, "x", nil))
			published++
		}
		require.NoError(t, client.Flush(ctx))
		eventually(t, "all handled", func() bool {
			select {
			case gate <- struct{}{}:
			default:
			}
			return one.Stats().Pending == 0 && two.Stats().Pending == 0 && one.Stats().InFlight+two.Stats().InFlight == 0
		})
	}
	close(gate)
	require.NoError(t, one.Drain(ctx))
	require.NoError(t, two.Drain(ctx))
	reported := map[string]uint64{}
	sum := uint64(0)
	eventually(t, "everything is reported", func() bool {
		sum = 0
		clear(reported)
		for _, e := range events.of(nats.EventSlowConsumer) {
			reported[e.Queue] += e.Messages
			sum += e.Messages
		}
		return sum == uint64(2*published)-uint64(handled.Load())
	})
	t.Attr("figure", fmt.Sprintf("%d of %d dropped, %d reported", 2*published-int(handled.Load()), 2*published, sum))
	assert.Equal(t, one.Stats().Dropped, reported[""])
	assert.Equal(t, two.Stats().Dropped, reported["q"])
	assert.LessOrEqual(t, strings.Count(log.String(), "slow consumer"), 2*episodes, "one for each episode")
}
