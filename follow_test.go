package nats_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consultest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// instance is the Consul registration of a server.
func instance(t testing.TB, id string, s *natstest.Server) consultest.Instance {
	t.Helper()
	u, err := url.Parse(s.URL())
	require.NoError(t, err)
	port, err := strconv.Atoi(u.Port())
	require.NoError(t, err)
	return consultest.Instance{Service: "nats-service", ID: id, Address: u.Hostname(), Port: port}
}

// fixedServers is a resolver that names always the same.
type fixedServers []string

func (s fixedServers) Resolve(context.Context) ([]string, error) { return s, nil }

// connectedTo asks the socket: after a change of the pool upstream names another server.
func connectedTo(client *nats.Client, s *natstest.Server) bool {
	return "nats://"+client.Conn().ConnectedAddr() == s.URL()
}

// updates collects what a watch tells.
type updates struct {
	mu   sync.Mutex
	sets [][]string
}

func (u *updates) add(urls []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.sets = append(u.sets, urls)
}

func (u *updates) last() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.sets) == 0 {
		return nil
	}
	return slices.Sorted(slices.Values(u.sets[len(u.sets)-1]))
}

// countingFront forwards connections to an address and counts them; the resolver makes one for each
// query.
func countingFront(t *testing.T, target string) (address string, connections *atomic.Int64) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	connections = new(atomic.Int64)
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { _ = listener.Close() })
	forward := func(from, to net.Conn) {
		_, _ = io.Copy(to, from)
		_, _ = from.Close(), to.Close()
	}
	wg.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			out, err := net.Dial("tcp", target)
			if err != nil {
				_ = in.Close()
				continue
			}
			wg.Go(func() { forward(in, out) })
			wg.Go(func() { forward(out, in) })
		}
	})
	return listener.Addr().String(), connections
}

func TestConsulWatchFollowsAndDoesNotSpin(t *testing.T) {
	t.Parallel()
	agent := consultest.Run(t)
	front, queries := countingFront(t, agent.Address())
	one := consultest.Instance{Service: "nats-service", ID: "one", Address: "192.0.2.1", Port: 4222}
	two := consultest.Instance{Service: "nats-service", ID: "two", Address: "192.0.2.2", Port: 4222}
	agent.Register(one)

	r := newResolver(t, nats.ConsulConfig{Address: front}, "nats-service")
	ctx, cancel := context.WithCancel(t.Context())
	var got updates
	ended := make(chan error, 1)
	go func() { ended <- r.Watch(ctx, got.add) }()
	first, both := []string{"nats://192.0.2.1:4222"}, []string{"nats://192.0.2.1:4222", "nats://192.0.2.2:4222"}
	eventually(t, "the first", func() bool { return slices.Equal(got.last(), first) })
	agent.Register(two)
	eventually(t, "both", func() bool { return slices.Equal(got.last(), both) })
	agent.SetStatus(two, api.HealthCritical)
	eventually(t, "the critical one is gone", func() bool { return slices.Equal(got.last(), first) })
	agent.Deregister(one)
	eventually(t, "a query waits", func() bool { return queries.Load() >= 5 })
	agent.Restart() // it forgets everything: an empty answer and a smaller index
	assert.Equal(t, first, got.last(), "never empty")
	agent.Register(two)
	eventually(t, "after the restart", func() bool { return slices.Equal(got.last(), both[1:]) })

	begin, before := time.Now(), queries.Load()
	eventually(t, "a second without a change", func() bool { return time.Since(begin) > time.Second })
	assert.LessOrEqual(t, queries.Load()-before, int64(2), "a query waits for a change")
	agent.Stop()
	begin, before = time.Now(), queries.Load()
	eventually(t, "a second without Consul", func() bool { return time.Since(begin) > time.Second })
	assert.LessOrEqual(t, queries.Load()-before, int64(6), "the pauses grow")
	assert.Equal(t, both[1:], got.last())

	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

func TestClientFollowsConsul(t *testing.T) {
	t.Parallel()
	agent := consultest.Run(t)
	first, second := natstest.RunServer(t), natstest.RunServer(t)
	agent.Register(instance(t, "first", first))
	var events eventLog
	client := connect(t, first, func(c *nats.Config) {
		c.UseConsul = true
		c.Consul.Address = agent.Address()
		c.URLs = []string{"nats://127.0.0.1:1"} // not used
	}, nats.WithEventHandler(events.handle))
	assert.False(t, client.Stats().ServersUpdated.IsZero())
	ctx := context.Background()
	got := make(chan string, 10)
	_, err := client.Subscribe(ctx, "x", func(msg *nats.Message) error { got <- string(msg.Data); return nil })
	require.NoError(t, err)

	agent.Register(instance(t, "second", second))
	eventually(t, "two servers", func() bool { return len(client.Conn().ServerPool()) == 2 })
	agent.Deregister(instance(t, "first", first))
	eventually(t, "the first is dropped", func() bool { return len(client.Conn().ServerPool()) == 1 })
	assert.True(t, connectedTo(client, first), "it is left at the next reconnect only")
	eventually(t, "the events", func() bool { return len(events.of(nats.EventServersChanged)) >= 2 })
	first.Stop()
	eventually(t, "on the second", func() bool { return client.IsConnected() && connectedTo(client, second) })
	require.NoError(t, client.Flush(ctx))
	require.NoError(t, client.Publish(ctx, "x", []byte("moved")))
	assert.Equal(t, "moved", <-got)
}

// Publishers at full speed while the client is made to leave its server again and again.
func TestEvictedServerIsLeftWithoutLoss(t *testing.T) {
	t.Parallel()
	agent := consultest.Run(t)
	cluster := natstest.RunCluster(t, 2, natstest.WithoutJetStream())
	servers := cluster.Servers()
	a, b := instance(t, "a", servers[0]), instance(t, "b", servers[1])
	agent.Register(a)
	agent.Register(b)
	receiver := connect(t, servers[0], func(c *nats.Config) { c.URLs = cluster.URLs() })
	var received atomic.Int64
	_, err := receiver.Subscribe(context.Background(), "x", func(*nats.Message) error { received.Add(1); return nil })
	require.NoError(t, err)
	client := connect(t, servers[0], func(c *nats.Config) {
		c.UseConsul = true
		c.Consul.Address = agent.Address()
		c.Consul.Evict = true
	})
	ctx := context.Background()
	require.NoError(t, client.Flush(ctx))
	stop := make(chan struct{})
	published := make(chan int64)
	go func() {
		n := int64(0)
		defer func() { published <- n }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			if !assert.NoError(t, client.Publish(ctx, "x", []byte("data"))) {
				return
			}
			n++
			if n%100 == 0 {
				time.Sleep(time.Millisecond) // at a rate that no buffer overflows
			}
		}
	}()
	for range 3 {
		here := a
		target := servers[1]
		if connectedTo(client, target) {
			here, target = b, servers[0]
		}
		agent.SetStatus(here, api.HealthCritical)
		eventually(t, "moved", func() bool { return client.IsConnected() && connectedTo(client, target) })
		agent.SetStatus(here, api.HealthPassing)
		eventually(t, "both again", func() bool { return len(client.Conn().ServerPool()) == 2 })
	}
	close(stop)
	n := <-published
	require.NoError(t, client.Flush(ctx))
	eventually(t, "all received", func() bool { return received.Load() == n })
}

func TestConsulOutageAndFlappingKeepTheServers(t *testing.T) {
	t.Parallel()
	agent := consultest.Run(t)
	s := natstest.RunServer(t)
	agent.Register(instance(t, "one", s))
	client := connect(t, s, func(c *nats.Config) { c.UseConsul = true; c.Consul.Address = agent.Address() })
	agent.SetStatus(instance(t, "one", s), api.HealthCritical)
	agent.Stop()
	require.NoError(t, client.Ping(context.Background()))
	assert.Len(t, client.Conn().ServerPool(), 1)
	s.Restart()
	eventually(t, "reconnected with the last known servers", client.IsConnected)
}

// silentThenGood is a resolver of a user's: it fails, panics, and finds the server later.
type silentThenGood struct {
	url     string
	calls   atomic.Int64
	client  chan *nats.Client
	servers atomic.Int64 // in the pool after an empty list
}

func (r *silentThenGood) Resolve(context.Context) ([]string, error) {
	return nil, errors.New("not yet")
}

func (r *silentThenGood) Watch(ctx context.Context, update func([]string)) error {
	switch r.calls.Add(1) {
	case 1:
		return errors.New("try again")
	case 2:
		panic("lost my mind")
	}
	client := <-r.client
	update(nil)
	r.servers.Store(int64(len(client.Conn().ServerPool())))
	update([]string{"nats://bad url:0"})
	update([]string{r.url})
	<-ctx.Done()
	return ctx.Err()
}

func TestResolverOfTheUser(t *testing.T) {
	t.Parallel()
	first, second := natstest.RunServer(t), natstest.RunServer(t)
	var events eventLog
	resolver := &silentThenGood{url: second.URL(), client: make(chan *nats.Client, 1)}
	client := connect(t, first, nil, nats.WithResolver(resolver), nats.WithEventHandler(events.handle))
	resolver.client <- client
	assert.True(t, connectedTo(client, first))
	assert.True(t, client.Stats().ServersUpdated.IsZero())
	eventually(t, "the fallback is told", func() bool { return len(events.of(nats.EventServersFallback)) == 1 })
	eventually(t, "the watch gets through", func() bool {
		pool := client.Conn().ServerPool()
		return len(pool) == 1 && pool[0].URL.String() == second.URL()
	})
	assert.EqualValues(t, 1, resolver.servers.Load(), "an empty list changes nothing")
	eventually(t, "the bad URL is told", func() bool { return len(events.of(nats.EventAsyncError)) == 1 })
	first.Stop()
	eventually(t, "on the second", func() bool { return client.IsConnected() && connectedTo(client, second) })
}

// A Watch that tells of changes alone is no reason to wait for the first.
func TestBackgroundConnectAsksTheWatchingResolver(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, func(c *nats.Config) { c.URLs = []string{"nats://127.0.0.1:1"} },
		nats.WithBackgroundConnect(), nats.WithResolver(&shifting{first: s.URL()}))
	require.NoError(t, client.Ping(within(t, patience)))
}
