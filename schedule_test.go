package nats_test

import (
	"context"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// Schedules are messages, too. A consumer that got them acknowledged them away: in a work queue, for ever.
func TestConsumeIsNotForSchedules(t *testing.T) {
	t.Parallel()
	client, ctx := connect(t, natstest.RunServer(t), nil), context.Background()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{
		Name: "ORDERS", Subjects: []string{"orders.>", "later.>"}, Retention: jetstream.WorkQueuePolicy, AllowMsgSchedules: true,
	})
	require.NoError(t, err)
	schedule := func(subject string, in time.Duration) {
		_, err := client.JetStream().PublishMsg(ctx, &natsgo.Msg{Subject: subject, Header: natsgo.Header{
			"Nats-Schedule":        {"@at " + time.Now().Add(in).UTC().Format(time.RFC3339)},
			"Nats-Schedule-Target": {"orders.due"},
		}, Data: []byte(subject)})
		require.NoError(t, err)
	}
	schedule("later.a", 10*time.Second)
	handle := func(*nats.Message) error { return nil }
	for name, filters := range map[string][]string{"all": nil, "everything": {"orders.>", "later.>"}, "schedules": {"later.*"}} {
		_, err := client.Consume(ctx, "ORDERS", "own", handle, nats.WithConsumerConfig(&jetstream.ConsumerConfig{FilterSubjects: filters}))
		require.ErrorIs(t, err, nats.ErrInvalidArgument, name)
		_, err = client.GetConsumerInfo(ctx, "ORDERS", "own")
		require.ErrorIs(t, err, nats.ErrConsumerNotFound, name)
		newConsumer(t, client, jetstream.ConsumerConfig{Name: "bound", FilterSubjects: filters})
		_, err = client.Consume(ctx, "ORDERS", "bound", handle)
		require.ErrorIs(t, err, nats.ErrInvalidArgument, name)
		require.NoError(t, client.DeleteConsumer(ctx, "ORDERS", "bound"))
	}

	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", FilterSubject: "orders.>"})
	var got calls
	consume(t, client, func(m *nats.Message) error { got.note(m); return nil })
	schedule("orders.later", 2*time.Second) // what could not be known
	eventually(t, "both are due and published", func() bool { return got.distinct() == 2 })
	assert.Equal(t, 2, got.len(), "the schedule itself is left alone")
}
