package faults_test

import (
	"context"
	"errors"
	"fmt"
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

// What takes its time in peace: long handlers and long pauses.

var errPoison = errors.New("poison")

// One delivery, although the handler takes more than three times as long as the server waits.
func TestConsumeExtendsForALongHandler(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t).URL())
	ctx := context.Background()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}})
	require.NoError(t, err)
	_, err = client.CreateConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{Name: "worker", AckWait: 3 * time.Second})
	require.NoError(t, err)
	for i := range 2 {
		_, err = client.PublishToStream(ctx, "orders.created", fmt.Append(nil, i))
		require.NoError(t, err)
	}
	var calls atomic.Int64
	consumption, err := client.Consume(ctx, "ORDERS", "worker", func(*nats.Message) error {
		calls.Add(1)
		time.Sleep(10 * time.Second)
		return nil
	})
	require.NoError(t, err)
	publishEventually(t, "both are handled", func() bool { return consumption.Stats().Handled == 2 })
	require.NoError(t, consumption.Stop(ctx))
	assert.EqualValues(t, 2, calls.Load())
	info, err := client.GetConsumerInfo(ctx, "ORDERS", "worker")
	require.NoError(t, err)
	assert.EqualValues(t, 2, info.Delivered.Consumer, "deliveries")
	assert.Zero(t, info.NumAckPending)
}

// What waits in the retry stream comes back as it was, when it is due, also when the instance that
// put it there is gone.
func TestParkedMessagesComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, other := connect(t, s.URL()), connect(t, s.URL())
	ctx := context.Background()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}})
	require.NoError(t, err)
	original := &nats.Message{
		Subject: "orders.created", Data: []byte{0, 1, 2},
		Header: natsgo.Header{"Nats-Msg-Id": {"mine"}, "X-Two": {"b", "a"}, "Origin-Stream": {"not ours"}},
	}
	ack, err := client.PublishMsgToStream(ctx, original)
	require.NoError(t, err)
	_, err = client.CreateConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{
		Name: "worker", MaxAckPending: 2, BackOff: []time.Duration{time.Second, 20 * time.Second}, MaxDeliver: -1,
	})
	require.NoError(t, err)
	consumption, err := client.Consume(ctx, "ORDERS", "worker", func(*nats.Message) error {
		return nats.RetryAfter(errPoison, 10001*time.Millisecond)
	}, nats.WithRetryStream())
	require.NoError(t, err)
	publishEventually(t, "it is parked", func() bool { return consumption.Stats().Parked == 1 })
	require.NoError(t, consumption.Stop(ctx))
	parked := time.Now()

	type seen struct {
		msg  nats.Message
		meta *jetstream.MsgMetadata
		at   time.Time
	}
	var deliveries []seen
	var count atomic.Int64
	second, err := other.Consume(ctx, "ORDERS", "worker", func(msg *nats.Message) error {
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		deliveries = append(deliveries, seen{nats.Message{Subject: msg.Subject, Header: msg.Header, Data: msg.Data}, meta, time.Now()})
		if count.Add(1) < 3 {
			return errPoison
		}
		return nil
	}, nats.WithBackoff(50*time.Millisecond))
	require.NoError(t, err)
	publishEventually(t, "the third delivery", func() bool { return count.Load() == 3 })
	publishEventually(t, "it is done", func() bool {
		info, err := other.GetStreamInfo(ctx, "ORDERS_RETRY")
		return err == nil && info.State.Msgs == 0
	})
	require.NoError(t, second.Stop(ctx))
	assert.InDelta(t, 10*time.Second, deliveries[0].at.Sub(parked), float64(5*time.Second))
	for i, d := range deliveries {
		if i > 0 {
			assert.Greater(t, d.at.Sub(deliveries[i-1].at), 40*time.Millisecond, "the back-off is this one's")
		}
		assert.Equal(t, original.Subject, d.msg.Subject)
		assert.Equal(t, original.Header, d.msg.Header)
		assert.Equal(t, original.Data, d.msg.Data)
		assert.Equal(t, "ORDERS", d.meta.Stream)
		assert.Equal(t, "worker", d.meta.Consumer)
		assert.Equal(t, ack.Sequence, d.meta.Sequence.Stream)
		assert.EqualValues(t, i+2, d.meta.NumDelivered)
	}
}
