package nats_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// Raw nats.go: 16 handler calls for 6 messages of 2.5 s with an AckWait of 1 s, and an InProgress
// ticker inside the handler makes no difference: the prefetched messages expire.
func TestConsumeExtendsTheDeadline(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	const messages = 4
	newStream(t, client, messages)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", AckWait: 2 * time.Second})
	var got calls
	consumption := consume(t, client, func(msg *nats.Message) error {
		if got.note(msg); got.len() > 1 { // the first is quick, so that the next ones are fetched ahead
			time.Sleep(2500 * time.Millisecond)
		}
		return nil
	})
	eventually(t, "two are fetched ahead", func() bool { return consumption.Stats().Ready == 2 })
	eventually(t, "all handled", func() bool { return consumption.Stats().Handled == messages })
	idle(t, client)
	assert.Equal(t, messages, got.len())
	info, err := client.GetConsumerInfo(context.Background(), "ORDERS", "worker")
	require.NoError(t, err)
	assert.Zero(t, info.NumRedelivered)
	assert.EqualValues(t, messages, info.Delivered.Consumer, "deliveries")
}

// A handler that hangs does not keep its message from the others for ever.
func TestConsumeGivesUpAHungHandler(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 1)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", AckWait: 2 * time.Second})
	release := make(chan struct{})
	var got calls
	start := time.Now()
	consumption := consume(t, client, func(msg *nats.Message) error {
		if got.note(msg); got.len() == 1 {
			<-release
		}
		return nil
	}, nats.WithWorkers(2), nats.WithMaxHandling(3*time.Second))
	eventually(t, "the second delivery", func() bool { return got.len() == 2 })
	assert.Greater(t, time.Since(start), 2900*time.Millisecond)
	assert.EqualValues(t, 1, consumption.Stats().Expired)
	close(release)
	idle(t, client)
	time.Sleep(400 * time.Millisecond) // nothing is to come
	assert.Equal(t, 2, got.len())
}

// An ack wait that is lowered while nothing is there to be handled holds for the next message. The rules were
// those of the start: one message was handled five times.
func TestAckWaitIsLoweredUnderRunningInstances(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	newStream(t, client, 0)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	var got calls
	handler := func(msg *nats.Message) error {
		got.note(msg)
		time.Sleep(5 * time.Second)
		return nil
	}
	consume(t, client, handler)
	consume(t, connect(t, s, nil), handler)
	stream, err := client.GetStream(context.Background(), "ORDERS")
	require.NoError(t, err)
	_, err = stream.UpdateConsumer(context.Background(), jetstream.ConsumerConfig{
		Durable: "worker", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 2 * time.Second,
	})
	require.NoError(t, err)
	time.Sleep(rulesFresh) // the instances have no reason to look
	_, err = client.PublishToStream(context.Background(), "orders.created", nil)
	require.NoError(t, err)
	eventually(t, "it is handled", func() bool { return got.len() > 0 })
	idle(t, client)
	assert.Equal(t, 1, got.len())
}

// rulesFresh is how old what a consumption knows of its consumer may be.
const rulesFresh = 1100 * time.Millisecond

// A MaxDeliver that is set while instances run counts for the next failure: the server would drop the message.
func TestMaxDeliverIsLoweredUnderRunningInstances(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 0)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	consumption := consume(t, client, func(*nats.Message) error { return errPoison })
	stream, err := client.GetStream(context.Background(), "ORDERS")
	require.NoError(t, err)
	_, err = stream.UpdateConsumer(context.Background(), jetstream.ConsumerConfig{
		Durable: "worker", AckPolicy: jetstream.AckExplicitPolicy, MaxDeliver: 1,
	})
	require.NoError(t, err)
	time.Sleep(rulesFresh)
	_, err = client.PublishToStream(context.Background(), "orders.created", nil)
	require.NoError(t, err)
	eventually(t, "the dead letter", func() bool { return consumption.Stats().DeadLettered == 1 })
}

// A handler may settle its message itself.
func TestConsumeLeavesTheHandlersAckAlone(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 2)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	var got calls
	consume(t, client, func(msg *nats.Message) error {
		got.note(msg)
		switch got.len() {
		case 1:
			require.NoError(t, msg.Ack())
			return errors.New("done nevertheless")
		case 2:
			return msg.NakWithDelay(20 * time.Millisecond)
		}
		return nil
	})
	idle(t, client)
	assert.Equal(t, []string{"0", "1", "1"}, got.all())
}

func TestConfirmedAcks(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 20)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	var unconfirmed atomic.Int64
	var handled int // how many the server must know of when the next one comes
	consumption := consume(t, client, func(*nats.Message) error {
		info, err := client.GetConsumerInfo(context.Background(), "ORDERS", "worker")
		require.NoError(t, err)
		if int(info.AckFloor.Consumer) != handled {
			unconfirmed.Add(1)
		}
		handled++
		return nil
	}, nats.WithConfirmedAcks())
	eventually(t, "all handled", func() bool { return consumption.Stats().Handled == 20 })
	idle(t, client)
	assert.Zero(t, unconfirmed.Load())
	assert.Zero(t, consumption.Stats().Unconfirmed)
}

// An acknowledgement that the server cannot have is said to be one.
func TestUnconfirmedAckIsReported(t *testing.T) {
	t.Parallel()
	var events eventLog
	client := connect(t, natstest.RunServer(t), nil, nats.WithEventHandler(events.handle))
	newStream(t, client, 1)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", AckWait: 2 * time.Second})
	consumption := consume(t, client, func(*nats.Message) error {
		return client.DeleteConsumer(context.Background(), "ORDERS", "worker")
	}, nats.WithConfirmedAcks())
	eventually(t, "the report", func() bool { return len(events.of(nats.EventUnconfirmedAck)) == 1 })
	assert.EqualValues(t, 1, consumption.Stats().Unconfirmed)
}
