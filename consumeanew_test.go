package nats_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// What comes between the end of a consumer and its next beginning is handled, wherever the consumer was to begin, also
// when it has handled nothing before.
func TestConsumerIsMadeAgainBeforeItsFirstMessage(t *testing.T) {
	t.Parallel()
	for name, policy := range map[string]jetstream.DeliverPolicy{
		"all": jetstream.DeliverAllPolicy, "new": jetstream.DeliverNewPolicy, "last": jetstream.DeliverLastPolicy,
	} {
		for _, before := range []int{0, 3} {
			t.Run(fmt.Sprint(name, " after ", before), func(t *testing.T) {
				t.Parallel()
				s := natstest.RunServer(t)
				proxy := natstest.NewProxy(t, s.URL())
				client := connect(t, s, func(c *nats.Config) { c.URLs = []string{proxy.URL()} })
				other := connect(t, s, nil)
				newStream(t, other, before)
				var got calls
				consume(t, client, func(msg *nats.Message) error { got.note(msg); return nil },
					nats.WithConsumerConfig(&jetstream.ConsumerConfig{DeliverPolicy: policy}))
				proxy.Cut()
				require.NoError(t, other.DeleteConsumer(within(t, patience), "ORDERS", "worker"))
				for i := range 3 {
					_, err := other.PublishToStream(within(t, patience), "orders.created", fmt.Append(nil, "away ", i))
					require.NoError(t, err)
				}
				proxy.Restore()
				publishUntilSeen(t, other, &got, "again")
				for i := range 3 {
					eventually(t, "what came meanwhile", func() bool { return slices.Contains(got.all(), fmt.Sprint("away ", i)) })
				}
			})
		}
	}
}

// A message that its stream has let go of since it was delivered is acknowledged as any other.
func TestConfirmedAcksOfMessagesThatAreGone(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := within(t, 2*patience)
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, MaxMsgsPerSubject: 2})
	require.NoError(t, err)
	const subjects = 20
	publish := func() {
		for i := range subjects {
			_, err := client.PublishToStream(ctx, fmt.Sprint("orders.", i), nil)
			assert.NoError(t, err)
		}
	}
	publish()
	publish()
	var once atomic.Int64
	consumption := consume(t, client, func(*nats.Message) error {
		if once.Add(1)%subjects == 1 && once.Load() < 3*subjects { // two of each subject replace what is held
			publish()
			publish()
		}
		return nil
	}, nats.WithConfirmedAcks(), nats.WithWorkers(4), nats.WithConsumerConfig(&jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy, FilterSubject: "orders.>",
	}))
	idle(t, client)
	assert.Zero(t, consumption.Stats().Unconfirmed)
	assert.Zero(t, consumption.Stats().Failed)
}
