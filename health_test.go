package nats_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestHealth(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil, nats.WithResolver(&shifting{first: s.URL()}))
	newStream(t, client, 3)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	handling, done := make(chan struct{}, 3), make(chan struct{})
	consume(t, client, func(*nats.Message) error {
		handling <- struct{}{}
		<-done
		return nil
	})
	<-handling
	ctx := context.Background()
	h := client.Health(ctx)
	assert.True(t, h.OK, h.Problems)
	assert.Positive(t, h.RTT)
	assert.Equal(t, []nats.ConsumerHealth{{Stream: "ORDERS", Consumer: "worker", Healthy: true, Lag: 3}}, h.Consumers)
	require.NotNil(t, h.Discovery)
	assert.Equal(t, []string{s.URL()}, h.Discovery.Servers)
	assert.Positive(t, h.Discovery.Age)
	text, err := json.Marshal(h)
	require.NoError(t, err)
	assert.Contains(t, string(text), `"ok":true`)

	s.Stop()
	eventually(t, "the outage is known", func() bool { return !client.IsConnected() })
	h = client.Health(ctx)
	assert.False(t, h.OK)
	assert.Zero(t, h.RTT)
	require.Len(t, h.Problems, 1)
	assert.Contains(t, h.Problems[0], "connection: ")
	assert.False(t, h.Consumers[0].Healthy)

	s.Restart()
	close(done)
	eventually(t, "well again", func() bool { return client.Health(ctx).OK })

	require.NoError(t, client.Close())
	h = client.Health(ctx)
	assert.False(t, h.OK)
	assert.Contains(t, h.Problems, "connection: "+nats.ErrClosed.Error())
}

func TestHealthWithoutJetStreamOnTheServer(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t, natstest.WithoutJetStream()), nil)
	h := client.Health(within(t, patience))
	assert.False(t, h.OK)
	require.Len(t, h.Problems, 1)
	assert.Contains(t, h.Problems[0], "JetStream: ")
	assert.Nil(t, h.Discovery)
}

// A network that drops everything tells nobody. The server is known to take nothing, or to answer nothing.
func TestBlackHoleIsTold(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	proxy := natstest.NewProxy(t, s.URL())
	through := func(c *nats.Config) {
		c.URLs, c.PingInterval, c.MaxPingsOut = []string{proxy.URL()}, 500*time.Millisecond, 2
	}
	idle, busy := connect(t, s, through), connect(t, s, through)
	proxy.BlackHole()
	publishing, stop := context.WithCancel(context.Background())
	var load sync.WaitGroup
	load.Go(func() {
		for data := make([]byte, 512<<10); publishing.Err() == nil; {
			_ = busy.Publish(publishing, "x", data)
		}
	})
	eventually(t, "the idle connection is given up", func() bool { return !idle.IsConnected() })
	assert.False(t, idle.Health(within(t, time.Second)).OK)
	eventually(t, "the busy one knows that nothing is taken", func() bool {
		begin := time.Now()
		h := busy.Health(within(t, 100*time.Millisecond))
		return !h.OK && since(begin) < 50*time.Millisecond && strings.Contains(h.Problems[0], "which has taken nothing for")
	})
	eventually(t, "it is given up, too", func() bool { return !busy.IsConnected() })
	proxy.Restore()
	eventually(t, "both are back", func() bool { return idle.IsConnected() && busy.IsConnected() })
	stop()
	load.Wait()
}

// A user who may only publish and answer is well; what it may not see costs no time.
func TestHealthWithFewRights(t *testing.T) {
	t.Parallel()
	for name, permissions := range map[string]*server.Permissions{
		"no questions": {Publish: &server.SubjectPermission{Deny: []string{"$JS.>"}}},
		"no answers":   {Subscribe: &server.SubjectPermission{Deny: []string{">"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := connect(t, restricted(t, permissions), func(c *nats.Config) {
				c.Username, c.Password, c.RequestTimeout = "u", "p", time.Minute
			})
			begin := time.Now()
			h := client.Health(context.Background())
			assert.True(t, h.OK, h.Problems)
			assert.Positive(t, h.RTT)
			require.Len(t, h.Unknown, 1)
			assert.Contains(t, h.Unknown[0], "JetStream: permission denied: ")
			assert.Less(t, since(begin), 30*time.Second)
		})
	}
}

// Health ends with its context, whatever the server does, and whatever the client is about to do.
func TestHealthEndsWithItsContext(t *testing.T) {
	t.Parallel()
	for name, disturb := range map[string]func(*natstest.Server, *natstest.Proxy){
		"well":          func(*natstest.Server, *natstest.Proxy) {},
		"gone":          func(s *natstest.Server, _ *natstest.Proxy) { s.Stop() },
		"silent":        func(_ *natstest.Server, p *natstest.Proxy) { p.BlackHole() },
		"cut":           func(_ *natstest.Server, p *natstest.Proxy) { p.Cut() },
		"slow":          func(_ *natstest.Server, p *natstest.Proxy) { p.Delay(2 * time.Second) },
		"no JetStream":  func(s *natstest.Server, _ *natstest.Proxy) { _ = s.Embedded().DisableJetStream() },
		"shutting down": func(s *natstest.Server, _ *natstest.Proxy) { s.LameDuck() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := natstest.RunServer(t)
			client, proxy := through(t, s)
			newStream(t, client, 1)
			for i := range 5 {
				newConsumer(t, client, jetstream.ConsumerConfig{Name: fmt.Sprint("c", i)})
				_, err := client.Consume(context.Background(), "ORDERS", fmt.Sprint("c", i), func(*nats.Message) error { return nil })
				require.NoError(t, err)
			}
			disturb(s, proxy)
			for range 3 {
				begin := time.Now()
				h := client.Health(within(t, 200*time.Millisecond))
				assert.Less(t, since(begin), 3*time.Second)
				assert.Equal(t, len(h.Problems) == 0, h.OK)
				assert.Len(t, h.Consumers, 5)
			}
		})
	}
}
