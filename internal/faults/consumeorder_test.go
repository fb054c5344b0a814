package faults_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// A server that shuts down tells so and goes on to deliver for a moment, to the inbox that it told and to the next one.
// Messages of one key stay in order all the same.
func TestKeysStayInOrderOverShutdowns(t *testing.T) {
	s := natstest.RunServer(t)
	publisher, client := connect(t, s.URL()), connect(t, s.URL())
	ctx := context.Background()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	require.NoError(t, err)
	_, err = client.CreateConsumer(ctx, "S", &jetstream.ConsumerConfig{Name: "c"})
	require.NoError(t, err)
	var mu sync.Mutex
	last, handled := uint64(0), 0
	_, err = client.Consume(ctx, "S", "c", func(msg *nats.Message) error {
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if handled++; meta.NumDelivered == 1 { // others may be acknowledgements that were lost
			assert.Greater(t, meta.Sequence.Stream, last)
			last = meta.Sequence.Stream
		}
		return nil
	}, nats.WithWorkers(8), nats.WithKey(func(*nats.Message) string { return "the same" }))
	require.NoError(t, err)
	stop := make(chan struct{})
	var publishing sync.WaitGroup
	for range 4 {
		publishing.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				batch := make([]*nats.Message, 20)
				for i := range batch {
					batch[i] = &nats.Message{Subject: "s"}
				}
				_, _ = publisher.PublishBatch(ctx, batch)
			}
		})
	}
	for range 6 {
		before := 0
		publishEventually(t, "messages are handled", func() bool {
			mu.Lock()
			defer mu.Unlock()
			if before == 0 {
				before = handled
			}
			return handled > before+100
		})
		s.Restart()
	}
	close(stop)
	publishing.Wait()
	mu.Lock()
	defer mu.Unlock()
	t.Attr("figure", fmt.Sprintf("%d messages over 6 shutdowns", handled))
}
