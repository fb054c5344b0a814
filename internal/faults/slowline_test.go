package faults_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// A line that is only slow is not dead, although for seconds nothing seems to be taken: Linux wakes a
// writer when a third of its buffer is free.
func TestSlowLineIsNotDead(t *testing.T) {
	t.Parallel()
	const messages, size, rate = 8, 512 << 10, 256 << 10
	for _, encrypted := range []bool{false, true} {
		name := map[bool]string{false: "plain", true: "TLS"}[encrypted]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var opts []natstest.Option
			if encrypted {
				opts = append(opts, natstest.WithTLS())
			}
			s := natstest.RunServer(t, opts...)
			proxy := natstest.NewProxy(t, s.URL())
			client := natstest.Connect(t, s, func(c *nats.Config) { c.URLs, c.DrainTimeout = []string{proxy.URL()}, time.Second })
			proxy.Throttle(rate)
			began := time.Now()
			for range messages {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				require.NoError(t, client.Publish(ctx, "x", make([]byte, size)))
				cancel()
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			require.NoError(t, client.Flush(ctx))
			assert.Greater(t, time.Since(began), messages*size/rate*time.Second/2, "it was slow")
			assert.Zero(t, client.Stats().Reconnects)
			proxy.Restore()
			require.NoError(t, client.Close())
		})
	}
}
