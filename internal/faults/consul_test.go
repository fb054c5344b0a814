package faults_test

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consultest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/freeport"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// register tells Consul of a server.
func register(t *testing.T, agent *consultest.Agent, id string, s *natstest.Server) consultest.Instance {
	t.Helper()
	u, err := url.Parse(s.URL())
	require.NoError(t, err)
	port, err := strconv.Atoi(u.Port())
	require.NoError(t, err)
	instance := consultest.Instance{Service: "nats-service", ID: id, Address: u.Hostname(), Port: port}
	agent.Register(instance)
	return instance
}

// All servers are replaced by ones on other ports, and Consul is away for half a minute.
func TestServersAreReplacedUnderLoad(t *testing.T) {
	t.Parallel()
	agent := consultest.Run(t)
	cluster := natstest.RunCluster(t, 3)
	servers := cluster.Servers()
	instances := make([]consultest.Instance, len(servers))
	for i, s := range servers {
		instances[i] = register(t, agent, fmt.Sprint("old-", i), s)
	}
	var mu sync.Mutex
	var reconnected time.Time
	client, err := nats.NewClient(&nats.Config{
		URLs: []string{"nats://127.0.0.1:1"}, UseConsul: true, Consul: nats.ConsulConfig{Address: agent.Address()},
		JetStreamEnabled: true, ReconnectWait: 20 * time.Millisecond, ReconnectMaxWait: 100 * time.Millisecond,
	}, nats.WithEventHandler(func(e nats.Event) {
		if e.Type == nats.EventReconnected {
			mu.Lock()
			defer mu.Unlock()
			reconnected = e.Time
		}
	}))
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	ctx := context.Background()
	_, err = client.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: 3})
	require.NoError(t, err)
	running, stop := context.WithCancel(ctx)
	var load sync.WaitGroup
	var acknowledged atomic.Int64
	load.Go(func() {
		every(running, 5*time.Millisecond, func(i int) {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			if _, err := client.PublishToStream(ctx, "s", fmt.Append(nil, i)); assert.NoError(t, err) {
				acknowledged.Add(1)
			}
		})
	})

	// The client's own server goes last.
	present := func() string { return "nats://" + client.Conn().ConnectedAddr() }
	var death time.Time
	for left := []int{0, 1, 2}; len(left) > 0; {
		at := 0
		for len(left) > 1 && servers[left[at]].URL() == present() {
			at++
		}
		i := left[at]
		left = slices.Delete(left, at, at+1)
		agent.Deregister(instances[i])
		port := freeport.For(t, 1)[0]
		death = time.Now()
		servers[i].Restart(natstest.WithConfig(func(o *server.Options) { o.Port = port }))
		cluster.WaitReady()
		instances[i] = register(t, agent, fmt.Sprint("new-", i), servers[i])
		publishEventually(t, "the client knows", func() bool {
			for _, known := range client.Conn().ServerPool() {
				if known.URL.String() == servers[i].URL() {
					return true
				}
			}
			return false
		})
	}
	var gap time.Duration
	publishEventually(t, "its own server was the last, and it has told of the next", func() bool {
		mu.Lock()
		defer mu.Unlock()
		gap = reconnected.Sub(death)
		return client.IsConnected() && gap > 0
	})
	assert.Less(t, gap-stalls.Between(death, death.Add(gap)), 2*time.Second)

	reconnects, before := client.Stats().Reconnects, acknowledged.Load()
	agent.Stop()
	time.Sleep(30 * time.Second) // the outage
	assert.Equal(t, reconnects, client.Stats().Reconnects)
	assert.Greater(t, acknowledged.Load(), before+1000, "traffic goes on")
	assert.Len(t, client.Conn().ServerPool(), 3)
	agent.Restart()
	for i := range 2 {
		register(t, agent, fmt.Sprint("new-", i), servers[i])
	}
	publishEventually(t, "following resumes", func() bool { return len(client.Conn().ServerPool()) == 2 })

	stop()
	load.Wait()
	info, err := client.GetStreamInfo(ctx, "S")
	require.NoError(t, err)
	stored := publishStored(t, client, "S")
	t.Logf("reconnected %v after the death; %d acknowledged, %d stored", gap.Round(time.Millisecond), acknowledged.Load(), info.State.Msgs)
	assert.EqualValues(t, acknowledged.Load(), info.State.Msgs)
	assert.Len(t, stored, int(acknowledged.Load()))
	for id, n := range stored {
		assert.Equal(t, 1, n, id)
	}
}
