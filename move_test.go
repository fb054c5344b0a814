package nats_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// shifting is a discovery that names other servers when it is told to.
type shifting struct {
	first   string
	changes chan string
}

func (s *shifting) Resolve(context.Context) ([]string, error) { return []string{s.first}, nil }

func (s *shifting) Watch(ctx context.Context, update func([]string)) error {
	for {
		select {
		case url := <-s.changes:
			update([]string{url})
		case <-ctx.Done():
			return nil
		}
	}
}

// What is on its way to a server when the connection is given up is lost: so nothing is.
func TestMoveLosesNoPublish(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	one, other := natstest.NewProxy(t, s.URL()), natstest.NewProxy(t, s.URL())
	for _, p := range []*natstest.Proxy{one, other} {
		p.Delay(10 * time.Millisecond)
	}
	resolver := &shifting{first: one.URL(), changes: make(chan string)}
	client := connect(t, s, func(c *nats.Config) { c.Consul.Evict = true }, nats.WithResolver(resolver))
	still := connect(t, s, nil)
	ctx := context.Background()
	var published, received atomic.Int64
	_, err := still.Subscribe(ctx, "s", func(*nats.Message) error { received.Add(1); return nil })
	require.NoError(t, err)
	_, err = client.Subscribe(ctx, "s", func(*nats.Message) error { return nil }) // the other way is busy too
	require.NoError(t, err)

	running, stop := context.WithCancel(ctx)
	var load sync.WaitGroup
	load.Go(func() {
		tick := time.NewTicker(100 * time.Microsecond)
		defer tick.Stop()
		for running.Err() == nil {
			<-tick.C
			if assert.NoError(t, client.Publish(ctx, "s", []byte("x"))) {
				published.Add(1)
			}
		}
	})
	for i, next := range []*natstest.Proxy{other, one, other} {
		resolver.changes <- next.URL()
		eventually(t, "moved", func() bool { return client.Conn().Stats().Reconnects > uint64(i) && client.IsConnected() })
	}
	stop()
	load.Wait()
	require.NoError(t, client.Flush(ctx))
	eventually(t, "all received", func() bool { return received.Load() >= published.Load() })
	assert.Equal(t, published.Load(), received.Load())
}
