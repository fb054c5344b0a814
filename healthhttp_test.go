package nats_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// probe asks a handler, and fails the test when the answer takes long: 500 ms, and what a busy machine takes.
func probe(t testing.TB, h http.Handler, path string) (status int, body map[string]any) {
	t.Helper()
	w := httptest.NewRecorder()
	begin := time.Now()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	assert.Less(t, since(begin), 2*time.Second, path)
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &body), w.Body.String())
	return w.Code, body
}

func isStatus(t testing.TB, h http.Handler, path string, want int) func() bool {
	return func() bool {
		got, _ := probe(t, h, path)
		return got == want
	}
}

func TestHealthHandlerBeforeTheFirstConnection(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	proxy := natstest.NewProxy(t, s.URL()) // it keeps its port, that of a stopped server may become another one's
	proxy.Cut()
	client := connect(t, s, func(c *nats.Config) { c.URLs = []string{proxy.URL()} }, nats.WithBackgroundConnect())
	h, without := client.HealthHandler(nats.WithGrace(time.Hour)), client.HealthHandler(nats.WithoutConnection())
	status, body := probe(t, h, "/readyz")
	assert.Equal(t, http.StatusServiceUnavailable, status, "there is no grace")
	assert.Equal(t, map[string]any{"status": "unavailable", "reason": "not connected yet"}, body)
	assert.True(t, isStatus(t, h, "/livez", http.StatusOK)())
	assert.True(t, isStatus(t, without, "/readyz", http.StatusOK)())
	proxy.Restore()
	eventually(t, "it is ready", isStatus(t, h, "/readyz", http.StatusOK))
}

// An outage is one when it lasts, whether the connection broke or its server is silent.
func TestHealthHandlerInAnOutage(t *testing.T) {
	t.Parallel()
	for name, disturb := range map[string]func(*natstest.Server, *natstest.Proxy){
		"gone":   func(_ *natstest.Server, p *natstest.Proxy) { p.Cut() }, // the port of a stopped server may become another one's
		"silent": func(_ *natstest.Server, p *natstest.Proxy) { p.BlackHole() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := natstest.RunServer(t)
			proxy := natstest.NewProxy(t, s.URL())
			client := connect(t, s, func(c *nats.Config) { c.URLs, c.PingInterval, c.MaxPingsOut = []string{proxy.URL()}, time.Second, 2 })
			h := map[string]http.Handler{
				"patient": client.HealthHandler(nats.WithGrace(time.Hour)), "soon": client.HealthHandler(nats.WithGrace(time.Second)),
				"at once": client.HealthHandler(nats.WithGrace(0)), "without": client.HealthHandler(nats.WithoutConnection(), nats.WithDetails()),
			}
			for who := range h {
				assert.True(t, isStatus(t, h[who], "/readyz", http.StatusOK)(), who)
			}
			disturb(s, proxy)
			eventually(t, "not ready", isStatus(t, h["at once"], "/readyz", http.StatusServiceUnavailable))
			eventually(t, "not ready after its grace", isStatus(t, h["soon"], "/readyz", http.StatusServiceUnavailable))
			for until := time.Now().Add(4 * time.Second); time.Now().Before(until); { // the silent connection is given up meanwhile
				if !isStatus(t, h["soon"], "/readyz", http.StatusServiceUnavailable)() {
					t.Fatal("it is ready although nothing has come back")
				}
			}
			for _, who := range []string{"patient", "without"} {
				assert.True(t, isStatus(t, h[who], "/readyz", http.StatusOK)(), who)
				assert.True(t, isStatus(t, h[who], "/livez", http.StatusOK)(), who)
			}
			_, body := probe(t, h["without"], "/readyz")
			assert.Greater(t, body["outage_seconds"], 1.0)
			proxy.Restore()
			for who := range h {
				eventually(t, "ready again", isStatus(t, h[who], "/readyz", http.StatusOK))
			}
		})
	}
}

func TestHealthHandlerAtTheEnd(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, lost := connect(t, s, nil), connect(t, s, nil)
	h := client.HealthHandler(nats.WithoutConnection())
	begun, end := make(chan struct{}), make(chan struct{})
	_, err := client.Subscribe(context.Background(), "a", func(*nats.Message) error {
		close(begun)
		<-end
		return nil
	})
	require.NoError(t, err)
	require.NoError(t, client.Publish(context.Background(), "a", nil))
	<-begun
	assert.True(t, isStatus(t, h, "/readyz", http.StatusOK)())
	var closing sync.WaitGroup
	closing.Go(func() { assert.NoError(t, client.Close()) })
	eventually(t, "Close has begun", func() bool {
		return client.Publish(context.Background(), "b", nil) != nil || !isStatus(t, h, "/readyz", http.StatusOK)()
	})
	closed := func() {
		status, body := probe(t, h, "/readyz")
		assert.Equal(t, http.StatusServiceUnavailable, status)
		assert.Equal(t, "the client is closing", body["reason"])
		assert.True(t, isStatus(t, h, "/livez", http.StatusOK)(), "nothing is wrong with it")
	}
	closed()
	close(end)
	closing.Wait()
	closed()

	h = lost.HealthHandler()
	lost.Conn().Close()
	eventually(t, "the process is of no use", isStatus(t, h, "/livez", http.StatusServiceUnavailable))
	assert.True(t, isStatus(t, h, "/readyz", http.StatusServiceUnavailable)())
	require.NoError(t, lost.Close())
	assert.True(t, isStatus(t, h, "/livez", http.StatusServiceUnavailable)(), "Close came too late")
}

func TestHealthHandlerRequires(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	newStream(t, client, 1000)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	var all []http.Handler
	for _, name := range []string{"worker", "ORDERS/worker"} {
		all = append(all, client.HealthHandler(nats.WithRequired(name), nats.WithGrace(time.Hour)))
	}
	other := client.HealthHandler(nats.WithRequired("worker", "OTHERS/worker"), nats.WithDetails())
	for _, h := range all {
		status, body := probe(t, h, "/readyz")
		assert.Equal(t, http.StatusServiceUnavailable, status, "it does not run")
		assert.Equal(t, "a required consumption does not run", body["reason"])
	}
	end := make(chan struct{})
	consume(t, client, func(*nats.Message) error { <-end; return nil })
	for _, h := range all {
		eventually(t, "it is healthy, whatever its lag", isStatus(t, h, "/readyz", http.StatusOK))
	}
	status, body := probe(t, other, "/readyz")
	assert.Equal(t, http.StatusServiceUnavailable, status, "one of another stream does not run")
	assert.Equal(t, []any{
		map[string]any{"name": "ORDERS/worker", "healthy": true, "required": true},
		map[string]any{"name": "OTHERS/worker", "healthy": false, "required": true},
	}, body["consumptions"])

	s.Stop()
	eventually(t, "the outage is known", func() bool { return !client.IsConnected() })
	for range 100 {
		assert.True(t, isStatus(t, all[0], "/readyz", http.StatusOK)(), "an outage has its grace")
	}
	s.Restart()
	eventually(t, "it goes on", func() bool { return client.IsConnected() && isStatus(t, all[0], "/readyz", http.StatusOK)() })
	close(end)
	require.NoError(t, client.DeleteConsumer(context.Background(), "ORDERS", "worker"))
	eventually(t, "it is gone", isStatus(t, all[0], "/readyz", http.StatusServiceUnavailable))
	_, body = probe(t, all[0], "/readyz")
	assert.Equal(t, "a required consumption is not healthy", body["reason"])
}

// What is no failure yet makes nothing not ready.
func TestHealthWarnings(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	soon := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(6 * 24 * time.Hour) }
	ca.Issue(t, "server", soon)
	ca.Issue(t, "client", soon)
	s := natstest.RunServer(t, ca.demand(t))
	account, err := s.Embedded().LookupAccount(server.DEFAULT_GLOBAL_ACCOUNT)
	require.NoError(t, err)
	require.NoError(t, account.UpdateJetStreamLimits(map[string]server.JetStreamAccountLimits{
		"": {MaxMemory: 1 << 20, MaxStore: 1 << 20, MaxStreams: 1, MaxConsumers: 100},
	}))
	var log logBuffer
	client := connect(t, s, func(c *nats.Config) {
		c.TLSCA, c.TLSCert, c.TLSKey = ca.Path("ca.pem"), ca.Path("client.pem"), ca.Path("client-key.pem")
	}, nats.WithLogger(log.logger()))
	newStream(t, client, 0)
	wanted := []string{`the server's TLS certificate "CN=server" ends at`, `the client's TLS certificate "CN=client" ends at`, "the account uses 100 % of its streams: 1 of 1"}
	health := client.Health(within(t, patience))
	assert.True(t, health.OK, health.Problems)
	require.Len(t, health.Warnings, len(wanted), health.Warnings)

	h := client.HealthHandler(nats.WithDetails())
	var body map[string]any
	eventually(t, "the account has been asked", func() bool {
		_, body = probe(t, h, "/readyz")
		return body["warnings"] != nil
	})
	assert.Equal(t, "ok", body["status"])
	for i, want := range wanted {
		assert.Contains(t, health.Warnings[i], want)
		assert.Contains(t, body["warnings"].([]any)[i], want)
		assert.Contains(t, log.String(), strings.ReplaceAll(want, `"`, `\"`))
	}
	_, body = probe(t, client.HealthHandler(), "/readyz")
	assert.Equal(t, map[string]any{"status": "ok"}, body, "details are for those who ask for them")
}

// pings counts those that the client writes.
type pings struct{ n *atomic.Int64 }

type countedConn struct {
	net.Conn
	pings
}

func (d pings) Dial(network, address string) (net.Conn, error) {
	c, err := net.Dial(network, address)
	return countedConn{c, d}, err
}

func (c countedConn) Write(p []byte) (int, error) {
	c.n.Add(int64(bytes.Count(p, []byte("PING\r\n"))))
	return c.Conn.Write(p)
}

// A thousand probes are one question to the server a second.
func TestHealthHandlerUnderLoad(t *testing.T) {
	t.Parallel()
	count := pings{new(atomic.Int64)}
	client := connect(t, natstest.RunServer(t), nil, nats.WithNATSOptions(natsgo.SetCustomDialer(count)))
	before := count.n.Load()
	begin := time.Now()
	var probes sync.WaitGroup
	for range 10 {
		h := client.HealthHandler()
		probes.Go(func() {
			for range 200 {
				assert.True(t, isStatus(t, h, "/readyz", http.StatusOK)())
			}
		})
	}
	probes.Wait()
	asked := count.n.Load() - before
	assert.Positive(t, asked)
	assert.LessOrEqual(t, asked, 1+int64(time.Since(begin)/time.Second))
}

// It never waits, and never shows what a stranger must not see.
func TestHealthHandlerInEveryState(t *testing.T) {
	t.Parallel()
	for name, disturb := range map[string]func(*testing.T, *natstest.Server, *natstest.Proxy, *nats.Client){
		"well":   func(*testing.T, *natstest.Server, *natstest.Proxy, *nats.Client) {},
		"gone":   func(_ *testing.T, s *natstest.Server, _ *natstest.Proxy, _ *nats.Client) { s.Stop() },
		"silent": func(_ *testing.T, _ *natstest.Server, p *natstest.Proxy, _ *nats.Client) { p.BlackHole() },
		"cut":    func(_ *testing.T, _ *natstest.Server, p *natstest.Proxy, _ *nats.Client) { p.Cut() },
		"slow":   func(_ *testing.T, _ *natstest.Server, p *natstest.Proxy, _ *nats.Client) { p.Delay(2 * time.Second) },
		"full": func(t *testing.T, _ *natstest.Server, p *natstest.Proxy, c *nats.Client) {
			p.BlackHole()
			for range 40 {
				_ = c.Publish(within(t, 10*time.Millisecond), "x", make([]byte, 512<<10))
			}
		},
		"closed": func(_ *testing.T, _ *natstest.Server, _ *natstest.Proxy, c *nats.Client) { _ = c.Close() },
		"lost":   func(_ *testing.T, _ *natstest.Server, _ *natstest.Proxy, c *nats.Client) { c.Conn().Close() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := natstest.RunServer(t, natstest.WithUser("u", "secret"))
			proxy := natstest.NewProxy(t, s.URL())
			client := connect(t, s, func(c *nats.Config) {
				c.URLs, c.Username, c.Password = []string{proxy.URL()}, "u", "secret"
			})
			newStream(t, client, 0)
			newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
			consume(t, client, func(*nats.Message) error { return nil })
			disturb(t, s, proxy, client)
			bare, whole := client.HealthHandler(nats.WithRequired("worker")), client.HealthHandler(nats.WithDetails())
			var took []time.Duration
			for range 20 {
				for _, path := range []string{"/livez", "/readyz"} {
					begin := time.Now()
					_, body := probe(t, bare, path)
					took = append(took, since(begin))
					delete(body, "reason")
					assert.Len(t, body, 1, "the status is all")
					_, body = probe(t, whole, path)
					assert.NotContains(t, fmt.Sprint(body), "secret")
					assert.NotEmpty(t, body["server"])
				}
			}
			slices.Sort(took)
			assert.Less(t, took[len(took)/2], 500*time.Millisecond)
			t.Logf("%s: half of the probes took %v at most, all %v", name, took[len(took)/2], took[len(took)-1])
		})
	}
}

type nowhere http.Header

func (w nowhere) Header() http.Header       { return http.Header(w) }
func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) WriteHeader(int)             {}

func BenchmarkHealthHandler(b *testing.B) {
	client := connect(b, natstest.RunServer(b), nil)
	for name, h := range map[string]http.Handler{"bare": client.HealthHandler(), "details": client.HealthHandler(nats.WithDetails())} {
		for _, path := range []string{"/livez", "/readyz"} {
			b.Run(name+path, func(b *testing.B) {
				r := httptest.NewRequest(http.MethodGet, path, nil)
				b.ReportAllocs()
				for b.Loop() {
					h.ServeHTTP(nowhere{}, r)
				}
			})
		}
	}
}

func ExampleClient_HealthHandler() {
	client, err := nats.NewClient(&nats.Config{URLs: []string{"nats://127.0.0.1:1"}}, nats.WithBackgroundConnect())
	if err != nil {
		fmt.Println(err)
		return
	}
	mux := http.NewServeMux()
	mux.Handle("/nats/", http.StripPrefix("/nats", client.HealthHandler(nats.WithGrace(20*time.Second))))

	get := func(path string) {
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		fmt.Print(w.Code, " ", w.Body)
	}
	get("/nats/livez")
	get("/nats/readyz")
	_ = client.Close()
	get("/nats/livez")
	get("/nats/readyz")
	// Output:
	// 200 {"status":"ok"}
	// 503 {"status":"unavailable","reason":"not connected yet"}
	// 200 {"status":"ok"}
	// 503 {"status":"unavailable","reason":"the client is closing"}
}
