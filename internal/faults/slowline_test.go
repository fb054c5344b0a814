package faults_test

import (
	"context"
	"crypto/tls"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
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
	certified := httptest.NewTLSServer(nil) // its certificate is all that is wanted of it
	certified.Close()
	for _, encrypted := range []bool{false, true} {
		name := map[bool]string{false: "plain", true: "TLS"}[encrypted]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := &nats.Config{ReconnectWait: 20 * time.Millisecond, DrainTimeout: time.Second}
			var opts []nats.Option
			s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) {
				if encrypted {
					o.TLSConfig, o.TLSTimeout = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: certified.TLS.Certificates}, 5
				}
			}))
			if encrypted {
				opts = append(opts, nats.WithTLSConfig(&tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}))
			}
			proxy := natstest.NewProxy(t, s.URL())
			cfg.URLs = []string{proxy.URL()}
			client, err := nats.NewClient(cfg, opts...)
			require.NoError(t, err)
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
