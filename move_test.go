package nats_test

import (
	"context"
	"net/url"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
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

// A connection that is healthy is not given up for one that does not stand, but as soon as it does.
func TestHealthyConnectionIsNotLeftForLess(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	good := natstest.NewProxy(t, s.URL())
	for name, worse := range map[string]string{
		"refuses": "nats://" + refused, "silent": natstest.SilentServer(t, ""), "users": restricted(t, nil).URL(),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resolver := &shifting{first: s.URL(), changes: make(chan string)}
			events := &eventLog{}
			client := connect(t, s, func(c *nats.Config) { c.Consul.Evict = true }, nats.WithResolver(resolver), nats.WithEventHandler(events.handle))
			var handled atomic.Int64
			ctx := context.Background()
			_, err := client.QueueSubscribe(ctx, name, "g", func(*nats.Message) error { handled.Add(1); return nil })
			require.NoError(t, err)
			resolver.changes <- worse
			eventually(t, "it is told", func() bool { return len(events.of(nats.EventAsyncError)) > 0 })
			require.True(t, client.IsConnected())
			require.NoError(t, client.Publish(ctx, name, nil))
			eventually(t, "it receives", func() bool { return handled.Load() == 1 })
			resolver.changes <- good.URL()
			eventually(t, "moved", func() bool { return client.Conn().Stats().Reconnects == 1 && client.IsConnected() })
			require.NoError(t, client.Publish(ctx, name, nil))
			eventually(t, "it receives there", func() bool { return handled.Load() == 2 })
			assert.Empty(t, events.of(nats.EventReconnectFailed))
			resolver.changes <- worse
			eventually(t, "it is told again", func() bool { return len(events.of(nats.EventAsyncError)) > 1 })
			begin := time.Now()
			require.NoError(t, client.Close(), "nothing is left to wait for")
			assert.Less(t, since(begin), 5*time.Second)
		})
	}
}

// A certificate that the server does not take is not used by giving up the connection.
func TestTLSReloadKeepsTheConnection(t *testing.T) {
	t.Parallel()
	ca, stranger := newAuthority(t), newAuthority(t)
	ca.Issue(t, "server", nil)
	ca.Issue(t, "client", nil)
	s := natstest.RunServer(t, ca.demand(t))
	events := &eventLog{}
	client := connect(t, s, func(c *nats.Config) {
		c.TLSCA, c.TLSCert, c.TLSKey = ca.Path("ca.pem"), ca.Path("client.pem"), ca.Path("client-key.pem")
		c.TLSReload = 10 * time.Millisecond
	}, nats.WithEventHandler(events.handle))
	stranger.Issue(t, "client", nil)
	for _, file := range []string{"client-key.pem", "client.pem"} {
		content, err := os.ReadFile(stranger.Path(file))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(ca.Path(file), content, 0o600))
	}
	eventually(t, "it is told", func() bool { return len(events.of(nats.EventAsyncError)) > 0 })
	require.NoError(t, client.Ping(within(t, patience)))
	assert.Zero(t, client.Conn().Stats().Reconnects)
	ca.Issue(t, "client", nil)
	eventually(t, "a good one is used", func() bool { return client.Conn().Stats().Reconnects == 1 && client.IsConnected() })
}

// A server that shuts down is left as soon as another one stands, even where both have one address.
func TestLameDuckIsLeftWhenAnotherComes(t *testing.T) {
	t.Parallel()
	slowly := natstest.WithConfig(func(o *server.Options) { o.LameDuckGracePeriod, o.LameDuckDuration = 10*time.Second, 31*time.Second })
	for name, same := range map[string]bool{"at another address": false, "at the same address": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			old, next := natstest.RunServer(t, slowly), natstest.RunServer(t)
			events := &eventLog{}
			client := connect(t, old, func(c *nats.Config) {
				if !same {
					c.URLs = append(c.URLs, next.URL())
				}
			}, nats.WithEventHandler(events.handle), nats.WithNATSOptions(natsgo.DontRandomize()))
			require.Equal(t, old.URL(), client.Health(context.Background()).Server)
			next.Stop()
			var handled atomic.Int64
			_, err := client.QueueSubscribe(context.Background(), "a", "g", func(*nats.Message) error { handled.Add(1); return nil })
			require.NoError(t, err)
			old.LameDuck()
			eventually(t, "it is told", func() bool { return len(events.of(nats.EventLameDuck)) == 1 })
			require.NoError(t, client.Ping(within(t, patience)), "nobody else is there")
			address := next.URL()
			if same { // a load balancer has one address for all servers; here the old one has closed its listener
				address = old.URL()
			}
			u, err := url.Parse(address)
			require.NoError(t, err)
			port, err := strconv.Atoi(u.Port())
			require.NoError(t, err)
			next.Restart(natstest.WithConfig(func(o *server.Options) { o.Port = port }))
			eventually(t, "moved", func() bool { return client.Conn().Stats().Reconnects == 1 && client.IsConnected() })
			require.NoError(t, client.Publish(context.Background(), "a", nil))
			eventually(t, "it receives there", func() bool { return handled.Load() == 1 })
		})
	}
}
