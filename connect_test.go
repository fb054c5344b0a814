package nats_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consultest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// silent accepts connections and says nothing.
func silent(t testing.TB) string {
	return conntest.Serve(t, func(conn net.Conn) { t.Cleanup(func() { _ = conn.Close() }) })
}

// refused is an address at which nobody listens, and nobody will: no test is given such a port.
const refused = "127.0.0.1:1"

func TestConnectErrorsNameEveryServer(t *testing.T) {
	t.Parallel()
	a, b := refused, "127.0.0.1:2"
	client, err := nats.NewClient(&nats.Config{URLs: []string{
		"nats://user:canary@" + a, "nats://canary@" + b, "nats://no.such.host.invalid:4222",
	}})
	assert.Nil(t, client)
	require.ErrorIs(t, err, nats.ErrNotConnected)
	for _, want := range []string{a, b, "no.such.host.invalid:4222", "connection refused", "no such host"} {
		require.ErrorContains(t, err, want)
	}
	assert.NotContains(t, err.Error(), "canary")
	assert.Equal(t, 1, strings.Count(err.Error(), "no such host"), err)
	var dns *net.DNSError
	require.ErrorAs(t, err, &dns)
}

func TestConnectIsBounded(t *testing.T) {
	t.Parallel()
	address := silent(t)
	begin := time.Now()
	_, err := nats.NewClient(&nats.Config{URLs: []string{"nats://" + address}, Timeout: 200 * time.Millisecond})
	require.ErrorIs(t, err, nats.ErrNotConnected)
	require.ErrorContains(t, err, address)
	assert.Less(t, since(begin), 1900*time.Millisecond, "the default timeout is 2 s")

	begin = time.Now()
	reason := errors.New("the reason")
	ctx, cancel := context.WithCancelCause(context.Background())
	time.AfterFunc(50*time.Millisecond, func() { cancel(reason) })
	_, err = nats.NewClientContext(ctx, &nats.Config{URLs: []string{"nats://" + address, "nats://" + silent(t)}})
	require.ErrorIs(t, err, nats.ErrNotConnected)
	require.ErrorIs(t, err, reason)
	assert.Less(t, since(begin), 1900*time.Millisecond)

	// The servers that hang leave time for the one that answers.
	s := natstest.RunServer(t)
	for range 4 { // in random order
		client, err := nats.NewClient(&nats.Config{URLs: []string{"nats://" + address, s.URL()}, Timeout: 2 * time.Second})
		require.NoError(t, err)
		require.NoError(t, client.Close())
	}
	require.Error(t, func() error { _, err := nats.NewClient(nil); return err }())
}

// A server that is there and cannot be used is not one that cannot be reached.
func TestConnectErrorTellsWhoAnswered(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t, natstest.WithToken("right"))
	down := refused
	for range 10 { // in random order
		_, err := nats.NewClient(&nats.Config{URLs: []string{s.URL(), "nats://" + down}, Token: "canary"})
		require.ErrorIs(t, err, nats.ErrAuthorization)
		require.ErrorContains(t, err, s.URL())
		require.ErrorContains(t, err, down)
		assert.NotContains(t, err.Error(), "canary")
	}
}

// A server that welcomes the client and hangs up at once must not overtake the connecting.
func TestConnectionBreaksAtOnce(t *testing.T) {
	t.Parallel()
	address := conntest.Serve(t, func(conn net.Conn) {
		_, _ = fmt.Fprint(conn, `INFO {"server_id":"x","version":"2.10.0","max_payload":1048576,"headers":true}`+"\r\n")
		r := bufio.NewReader(conn)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				break
			}
			if strings.HasPrefix(line, "PING") {
				_, _ = fmt.Fprint(conn, "PONG\r\n")
				break
			}
		}
		_ = conn.Close()
	})
	for range 20 {
		var events eventLog
		client, err := nats.NewClient(&nats.Config{
			URLs: []string{"nats://" + address}, ReconnectWait: time.Millisecond, ReconnectMaxWait: time.Millisecond,
		}, nats.WithEventHandler(events.handle))
		require.NoError(t, err)
		eventually(t, "a reconnect", func() bool { return len(events.of(nats.EventReconnected)) > 0 })
		require.NoError(t, client.Close())
		assert.Equal(t, []nats.EventType{nats.EventConnected, nats.EventDisconnected, nats.EventReconnected}, events.kinds()[:3])
	}
}

// all returns the events in order.
func (l *eventLog) all() []nats.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}

// kinds returns the types of all events in order, without the failed attempts to reconnect, of which
// there may be none or some.
func (l *eventLog) kinds() []nats.EventType {
	var kinds []nats.EventType
	for _, e := range l.all() {
		if e.Type != nats.EventReconnectFailed {
			kinds = append(kinds, e.Type)
		}
	}
	return kinds
}

func TestConnectionEvents(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	var events eventLog
	var log logBuffer
	var lame, closed, disconnected, reconnected atomic.Int64
	client := connect(t, s, func(c *nats.Config) { c.ClusterID, c.ClientID, c.MaxReconnect = "bus", "svc", 60 },
		nats.WithEventHandler(events.handle), nats.WithLogger(log.logger()), nats.WithNATSOptions(
			natsgo.DisconnectErrHandler(func(*natsgo.Conn, error) { disconnected.Add(1) }),
			natsgo.ReconnectHandler(func(*natsgo.Conn) { reconnected.Add(1) }),
			natsgo.LameDuckModeHandler(func(*natsgo.Conn) { lame.Add(1) }),
			natsgo.ClosedHandler(func(*natsgo.Conn) { closed.Add(1) }),
			nil,
		))
	assert.Equal(t, "nats.Client(bus/svc)", client.String())
	s.Restart()
	eventually(t, "reconnected", func() bool { return len(events.of(nats.EventReconnected)) == 1 })
	assert.Equal(t, s.URL(), events.of(nats.EventReconnected)[0].Server)
	s.LameDuck()
	eventually(t, "closed", func() bool { return len(events.of(nats.EventClosed)) == 1 })
	assert.Equal(t, []nats.EventType{
		nats.EventConnected, nats.EventDisconnected, nats.EventReconnected,
		nats.EventLameDuck, nats.EventDisconnected, nats.EventClosed,
	}, events.kinds())
	eventually(t, "the user's callback", func() bool { return closed.Load() == 1 })
	assert.EqualValues(t, 2, disconnected.Load())
	assert.EqualValues(t, 1, reconnected.Load())
	assert.EqualValues(t, 1, lame.Load())

	// The attempts are used up.
	require.ErrorIs(t, events.of(nats.EventClosed)[0].Err, nats.ErrClosed)
	ctx := context.Background()
	_, err := client.Subscribe(ctx, "x", func(*nats.Message) error { return nil })
	require.ErrorIs(t, err, nats.ErrClosed)
	_, err = client.Request(ctx, "x", nil, 0)
	require.ErrorIs(t, err, nats.ErrClosed)
	_, err = client.GetObjectStore(ctx, "x")
	require.ErrorIs(t, err, nats.ErrClosed)
	_, err = client.GetKeyValue(ctx, "x")
	require.ErrorIs(t, err, nats.ErrClosed)
	_, err = client.PublishToStream(ctx, "x", nil)
	require.ErrorIs(t, err, nats.ErrClosed)
	require.ErrorIs(t, client.Publish(ctx, "x", nil), nats.ErrClosed)
	require.ErrorIs(t, client.Ping(ctx), nats.ErrClosed)
	require.NoError(t, client.Close())
	assert.Contains(t, log.String(), "closed for good")
	_, err = nats.NewClient(&nats.Config{URLs: []string{s.URL()}}, nats.WithNATSOptions(func(*natsgo.Options) error {
		return errors.New("broken option")
	}))
	require.ErrorIs(t, err, nats.ErrInvalidConfig)
	require.ErrorContains(t, err, "broken option")
}

func TestConnectThroughConsul(t *testing.T) {
	consultest.ClearEnvironment(t)
	s := natstest.RunServer(t)
	agent := consultest.Run(t)
	port := s.Embedded().Addr().(*net.TCPAddr).Port
	agent.Register(consultest.Instance{Service: "nats-service", Address: "127.0.0.1", Port: port})
	cfg := &nats.Config{
		URLs: []string{"nats://" + refused}, UseConsul: true,
		Timeout: 20 * time.Second, Consul: nats.ConsulConfig{Address: agent.Address(), Timeout: 5 * time.Second},
	}
	var events eventLog
	client, err := nats.NewClient(cfg, nats.WithEventHandler(events.handle))
	require.NoError(t, err)
	assert.Equal(t, s.URL(), client.Conn().ConnectedUrl())
	require.NoError(t, client.Close())
	assert.Empty(t, events.of(nats.EventServersFallback))

	// A resolver is asked instead of Consul.
	cfg.Consul.Address = refused
	client, err = nats.NewClient(cfg, nats.WithResolver(resolverFunc(func(context.Context) ([]string, error) {
		return []string{s.URL()}, nil
	})))
	require.NoError(t, err)
	require.NoError(t, client.Close())

	// Consul is absent, or hangs: the configured servers, and a word about it.
	cfg.Timeout, cfg.Consul.Timeout = 0, 300*time.Millisecond
	for _, address := range []string{refused, silent(t)} {
		cfg.Consul.Address, cfg.URLs = address, []string{s.URL()}
		var log logBuffer
		var events eventLog
		begin := time.Now()
		client, err = nats.NewClient(cfg, nats.WithEventHandler(events.handle), nats.WithLogger(log.logger()))
		require.NoError(t, err)
		assert.Less(t, since(begin), 2*time.Second)
		eventually(t, "the event", func() bool { return len(events.of(nats.EventServersFallback)) == 1 })
		require.Error(t, events.of(nats.EventServersFallback)[0].Err)
		assert.Contains(t, log.String(), "discovery failed")
		require.NoError(t, client.Close())
	}
}

type resolverFunc func(ctx context.Context) ([]string, error)

func (f resolverFunc) Resolve(ctx context.Context) ([]string, error) { return f(ctx) }

func TestClientPrintsNoSecret(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t, natstest.WithUser("user", "canary"))
	url := strings.Replace(s.URL(), "nats://", "nats://user:canary@", 1)
	var log logBuffer
	var events eventLog
	client := connect(t, s, func(c *nats.Config) {
		c.URLs, c.Username, c.Password, c.Consul.Token = []string{url}, "", "", "canary"
	},
		nats.WithLogger(log.logger()), nats.WithEventHandler(events.handle))
	cfg := client.Config()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		for _, printed := range []any{client, cfg, &cfg} {
			if printed == client && verb == "%d" {
				continue // vet refuses it
			}
			assert.NotContains(t, fmt.Sprintf(verb, printed), "canary", verb)
		}
	}
	log.logger().Info("printed", "client", client, "config", cfg)
	s.Restart()
	eventually(t, "reconnected", func() bool { return len(events.of(nats.EventReconnected)) == 1 })
	require.NoError(t, client.Close())
	assert.NotContains(t, log.String(), "canary")
	assert.NotContains(t, fmt.Sprintf("%+v", events.all()), "canary")
}

// inDir writes a file into a new directory and returns its path.
func inDir(t testing.TB, name, content string) string {
	t.Helper()
	path := t.TempDir() + "/" + name
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// A gateway in front of a WebSocket may be told where to go, and by whom, in path and query.
func TestWebsocketWithPathAndQuery(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t, natstest.WithoutJetStream(), natstest.WithConfig(func(o *server.Options) {
		o.Websocket = server.WebsocketOpts{Host: "127.0.0.1", Port: -1, NoTLS: true}
	}))
	asked := make(chan string, 10)
	target, err := url.Parse("http://" + s.Embedded().WebsocketURL()[len("ws://"):])
	require.NoError(t, err)
	proxy := httputil.NewSingleHostReverseProxy(target)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		asked <- req.URL.String()
		req.URL.Path, req.URL.RawQuery = "/", ""
		proxy.ServeHTTP(w, req)
	}))
	t.Cleanup(front.Close)
	var log logBuffer
	client, err := nats.NewClient(&nats.Config{URLs: []string{"WS" + front.URL[len("http"):] + "/nats/x?token=hunter2"}}, nats.WithLogger(log.logger()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	require.NoError(t, client.Ping(within(t, patience)))
	require.Equal(t, "/nats/x?token=hunter2", <-asked)
	require.NotContains(t, log.String()+client.Health(within(t, patience)).Server, "hunter2")
}
