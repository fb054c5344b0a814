package faults_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// Pulls that are given up at any moment cost no message its only delivery, also in a cluster: between a leader's
// decision to deliver and the client are the other replicas and a route.
func TestPullsThatAreGivenUpInACluster(t *testing.T) {
	n := 3000
	if testing.Short() {
		n = 300
	}
	servers := natstest.RunCluster(t, 3).Servers()
	publisher := connect(t, servers[0].URL())
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	_, err := publisher.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: 3})
	require.NoError(t, err)
	_, err = publisher.CreateConsumer(ctx, "S", &jetstream.ConsumerConfig{
		Name: "c", AckPolicy: jetstream.AckExplicitPolicy, MaxDeliver: 1, Replicas: 3,
	})
	require.NoError(t, err)
	go func() {
		for i := range n {
			_, err := publisher.PublishToStream(ctx, "s", fmt.Append(nil, i))
			assert.NoError(t, err)
		}
	}()
	client := connect(t, servers[1].URL())
	seen, calls := map[string]int{}, 0
	for quiet := time.Now(); len(seen) < n && time.Since(quiet) < time.Minute; calls++ {
		pull, cancel := context.WithCancel(ctx)
		time.AfterFunc(time.Duration(rand.Int64N(int64(3*time.Millisecond))), cancel)
		messages, _ := client.PullMessages(pull, "S", "c", 5)
		cancel()
		for _, msg := range messages {
			quiet = time.Now()
			seen[string(msg.Data)]++
			meta, err := msg.Metadata()
			require.NoError(t, err)
			require.EqualValues(t, 1, meta.NumDelivered)
			require.NoError(t, msg.Ack())
		}
	}
	t.Logf("%d messages in %d calls", len(seen), calls)
	assert.Len(t, seen, n)
}
