package faults_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// Twenty graceful ends under load, of the consumption or of its client, cost no delivery: in a cluster the
// leader may have decided on one that is not there yet. Raw nats.go with UNSUB: 14 of 3,000 never handled.
func TestGracefulEndsCostNoDelivery(t *testing.T) {
	const messages, ends = 3000, 20
	most := uint64(0)
	defer func() {
		t.Attr("figure", fmt.Sprintf("%d messages over %d ends, each at most %d times", messages, ends, most))
	}()
	for _, servers := range []int{1, 3} {
		urls := []string{}
		if servers == 1 {
			urls = append(urls, natstest.RunServer(t).URL())
		} else {
			urls = natstest.RunCluster(t, servers).URLs()
		}
		admin, ctx := connect(t, urls...), context.Background()
		_, err := admin.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: servers})
		require.NoError(t, err)
		batch := make([]*nats.Message, messages)
		for i := range batch {
			batch[i] = &nats.Message{Subject: "s"}
		}
		_, err = admin.PublishBatch(ctx, batch)
		require.NoError(t, err)
		for _, limit := range []int{1, 2, 3} {
			name := fmt.Sprintf("servers%d-deliveries%d", servers, limit)
			t.Run(name, func(t *testing.T) {
				_, err := admin.CreateConsumer(ctx, "S", &jetstream.ConsumerConfig{Name: name, MaxDeliver: limit})
				require.NoError(t, err)
				var mu sync.Mutex
				times, highest := make(map[uint64]int), uint64(0)
				handled := func() int {
					mu.Lock()
					defer mu.Unlock()
					return len(times)
				}
				start := func(client *nats.Client) *nats.Consumption {
					consumption, err := client.Consume(ctx, "S", name, func(msg *nats.Message) error {
						time.Sleep(3 * time.Millisecond)
						meta, err := msg.Metadata()
						assert.NoError(t, err)
						mu.Lock()
						defer mu.Unlock()
						times[meta.Sequence.Stream]++
						highest = max(highest, meta.NumDelivered)
						return nil
					}, nats.WithWorkers(4))
					require.NoError(t, err)
					return consumption
				}
				for i := range ends {
					client := connect(t, urls...)
					consumption, before := start(client), handled()
					publishEventually(t, "progress", func() bool { return handled() > before+messages/ends/2 })
					if i%2 == 0 {
						require.NoError(t, consumption.Stop(ctx))
					}
					require.NoError(t, client.Close())
					assert.Zero(t, consumption.Stats().DeadLettered)
				}
				consumption := start(admin)
				publishEventually(t, "all of them", func() bool { return handled() == messages })
				require.NoError(t, consumption.Stop(ctx))
				mu.Lock()
				defer mu.Unlock()
				for seq, n := range times {
					assert.Equal(t, 1, n, seq)
				}
				assert.EqualValues(t, 1, highest, "deliveries")
				most = max(most, highest)
			})
		}
	}
}
