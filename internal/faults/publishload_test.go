package faults_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// A server that syncs every message answers nobody for seconds. All are stored, and few are sent twice.
func TestPublishFromManyCallers(t *testing.T) {
	for _, callers := range []int{12_000, 16_000} {
		for _, queue := range []int{0, 1000} {
			t.Run(fmt.Sprint(callers, " callers, a queue of ", queue), func(t *testing.T) {
				s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) {
					o.SyncAlways, o.StreamMaxBufferedMsgs = true, queue
				}))
				client := connect(t, s.URL())
				ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
				defer cancel()
				_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}})
				require.NoError(t, err)
				before := client.Stats().OutMsgs
				var failed atomic.Int64
				var wg sync.WaitGroup
				begin := time.Now()
				for i := range callers {
					wg.Go(func() {
						if _, err := client.PublishToStream(ctx, fmt.Sprint("orders.", i), nil); err != nil && failed.Add(1) == 1 {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				each := float64(client.Stats().OutMsgs-before) / float64(callers)
				t.Logf("%d failed, %.2f messages into the server for each, in %v", failed.Load(), each, time.Since(begin).Round(time.Millisecond))
				assert.Zero(t, failed.Load())
				if queue == 0 {
					assert.LessOrEqual(t, each, 1.1)
				}
				info, err := client.GetStreamInfo(ctx, "ORDERS")
				require.NoError(t, err)
				assert.EqualValues(t, callers, info.State.Msgs)
			})
		}
	}
}
