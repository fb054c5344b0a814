package nats_test

import (
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// An unexpected message ID, which ends a stream with replicas, does not reach it by any call.
func TestNoPublisherEndsAStreamWithReplicas(t *testing.T) {
	t.Parallel()
	cluster := natstest.RunCluster(t, 3)
	client := connect(t, cluster.Servers()[0], func(c *nats.Config) { c.URLs = cluster.URLs() })
	ctx := within(t, time.Minute)
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: 3, AllowAtomicPublish: true})
	require.NoError(t, err)
	_, err = client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ONE", Subjects: []string{"one"}, Replicas: 1})
	require.NoError(t, err)
	expect := jetstream.WithExpectLastMsgID("unexpected")
	_, err = client.PublishToStream(ctx, "s", nil, expect)
	require.ErrorIs(t, err, nats.ErrUnsupported)
	_, err = client.PublishToStream(ctx, "s", nil, nats.WithHeader(jetstream.ExpectedLastMsgIDHeader, "unexpected"))
	require.ErrorIs(t, err, nats.ErrUnsupported)
	_, err = client.PublishAsync(ctx, &nats.Message{Subject: "s"}, expect)
	require.ErrorIs(t, err, nats.ErrUnsupported)
	message := nats.Message{Subject: "s"}
	_, err = client.PublishAtomic(ctx, []*nats.Message{message.With(expect), {Subject: "s"}})
	require.ErrorIs(t, err, nats.ErrUnsupported)
	header := natsgo.Header{jetstream.ExpectedLastMsgIDHeader: {"unexpected"}}
	_, err = client.PublishMsgToStream(ctx, &nats.Message{Subject: "s", Header: header})
	require.ErrorIs(t, err, nats.ErrReservedHeader, "of a message that is forwarded")
	_, err = client.PublishToStream(ctx, "one", nil, expect)
	require.ErrorIs(t, err, nats.ErrConflict, "without replicas it does no harm")
	_, err = client.PublishToStream(ctx, "s", nil)
	require.NoError(t, err)
}
