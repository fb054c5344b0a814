package nats_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// To upstream every late acknowledgement is one like any other.
func TestLateAcknowledgement(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := within(t, patience)
	newStream(t, client, 1)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "c", AckWait: 2 * time.Second})
	pull := func() *nats.Message {
		messages, err := client.PullMessages(ctx, "ORDERS", "c", 1)
		require.NoError(t, err)
		require.Len(t, messages, 1)
		return messages[0]
	}
	slow := pull()
	received := time.Now()
	quick := pull() // waits until the server delivers it again
	require.NoError(t, client.AckMessage(ctx, quick), "in time")
	require.ErrorIs(t, client.AckMessage(ctx, quick), nats.ErrAlreadyAcked, "twice")
	// The server's time began earlier than the client's.
	eventually(t, "the ack wait is over", func() bool { return time.Since(received) > 2*time.Second })
	err := client.AckMessage(ctx, slow)
	require.ErrorIs(t, err, nats.ErrLateAck)
	require.NotErrorIs(t, err, nats.ErrAlreadyAcked)
	require.ErrorContains(t, err, "the ack wait is 2s")
	require.ErrorIs(t, client.AckMessage(ctx, slow), nats.ErrAlreadyAcked, "it counts")

	_, err = client.PublishToStream(ctx, "orders.created", nil)
	require.NoError(t, err)
	long := pull()
	for range 4 { // together longer than the ack wait
		time.Sleep(600 * time.Millisecond) // the work
		require.NoError(t, long.InProgress())
	}
	require.NoError(t, client.AckMessage(ctx, long), "InProgress starts the time anew")

	newConsumer(t, client, jetstream.ConsumerConfig{Name: "backoff", BackOff: []time.Duration{100 * time.Millisecond, time.Minute}, MaxDeliver: 5})
	messages, err := client.PullMessages(ctx, "ORDERS", "backoff", 1)
	require.NoError(t, err)
	again, err := client.PullMessages(ctx, "ORDERS", "backoff", 1)
	require.NoError(t, err)
	if first, _ := again[0].Metadata(); first.Sequence.Stream != 1 {
		again, err = client.PullMessages(ctx, "ORDERS", "backoff", 1)
		require.NoError(t, err)
	}
	time.Sleep(150 * time.Millisecond) // the work
	require.NoError(t, client.AckMessage(ctx, again[0]), "the second delivery has a minute")
	require.ErrorIs(t, client.AckMessage(ctx, messages[0]), nats.ErrLateAck)
}

func TestAcknowledgementToNobody(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	newStream(t, client, 1)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "c"})
	messages, err := client.PullMessages(ctx, "ORDERS", "c", 1)
	require.NoError(t, err)
	require.NoError(t, client.DeleteConsumer(ctx, "ORDERS", "c"))
	begin := time.Now()
	require.ErrorIs(t, client.AckMessage(ctx, messages[0]), nats.ErrNoResponders)
	assert.Less(t, since(begin), 4*time.Second)
	require.ErrorIs(t, client.AckMessage(ctx, nil), nats.ErrInvalidArgument)
	require.ErrorIs(t, client.AckMessage(ctx, &nats.Message{Subject: "x"}), nats.ErrNotJetStream)
}
