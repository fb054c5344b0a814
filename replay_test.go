package nats_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// fillDeadLetters makes n dead letters of messages 0 to n-1.
func fillDeadLetters(t testing.TB, client *nats.Client, n int) {
	t.Helper()
	newStream(t, client, n)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	consumption := consume(t, client, func(*nats.Message) error { return nats.Permanent(errPoison) })
	eventually(t, "all dead", func() bool { return consumption.Stats().DeadLettered == uint64(n) })
	require.NoError(t, consumption.Stop(within(t, patience)))
	require.Len(t, deadLettersOf(t, client, "ORDERS_DLQ"), n)
}

func TestReplayStoppedAndResumed(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	const n = 60
	fillDeadLetters(t, client, n)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	seen := 0
	half, err := client.ReplayDeadLetters(ctx, "ORDERS", nats.WithReplayFilter(func(*nats.DeadLetter) bool {
		if seen++; seen == n/2 {
			cancel()
		}
		return true
	}))
	require.ErrorIs(t, err, context.Canceled)
	assert.InDelta(t, n/2, half, 1)
	assert.Len(t, deadLettersOf(t, client, "ORDERS_DLQ"), n-half)

	// The rest by two calls at the same time.
	rest := make(chan int, 2)
	for range 2 {
		go func() {
			count, err := client.ReplayDeadLetters(context.Background(), "ORDERS")
			assert.NoError(t, err)
			rest <- count
		}()
	}
	assert.Equal(t, n-half, <-rest+<-rest)
	assert.Empty(t, deadLettersOf(t, client, "ORDERS_DLQ"))
	var again calls
	consume(t, client, func(msg *nats.Message) error { again.note(msg); return nil })
	eventually(t, "all are back", func() bool { return again.len() == n })
	idle(t, client)
	assert.Equal(t, n, again.len())
	assert.Equal(t, n, again.distinct())
}

func TestReplayOptions(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	_, err := client.ReplayDeadLetters(ctx, "ORDERS")
	require.ErrorIs(t, err, nats.ErrStreamNotFound)
	_, err = client.ReplayDeadLetters(ctx, "OR.DERS")
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	fillDeadLetters(t, client, 20)
	even := nats.WithReplayFilter(func(l *nats.DeadLetter) bool { return slices.Contains([]byte("02468"), l.Data[len(l.Data)-1]) })
	count, err := client.ReplayDeadLetters(ctx, "ORDERS", nats.WithReplayDryRun(), even)
	require.NoError(t, err)
	assert.Equal(t, 10, count)
	assert.Len(t, deadLettersOf(t, client, "ORDERS_DLQ"), 20)
	begin := time.Now()
	count, err = client.ReplayDeadLetters(ctx, "ORDERS", even, nats.WithReplayRate(20))
	require.NoError(t, err)
	assert.Equal(t, 10, count)
	assert.GreaterOrEqual(t, time.Since(begin), 450*time.Millisecond)
	assert.Len(t, deadLettersOf(t, client, "ORDERS_DLQ"), 10)
	count, err = client.ReplayDeadLetters(ctx, "ORDERS", nats.WithReplayFrom("ORDERS_DLQ"))
	require.NoError(t, err)
	assert.Equal(t, 10, count)
	info, err := client.GetStreamInfo(ctx, "ORDERS")
	require.NoError(t, err)
	assert.EqualValues(t, 40, info.State.Msgs)
}
