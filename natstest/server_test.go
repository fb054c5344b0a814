package natstest_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestRestartKeepsPortAndStore(t *testing.T) {
	t.Parallel()
	srv := natstest.RunServer(t)
	before := srv.URL()
	nc := connect(t, before)
	js := stream(t, nc, 1)
	publish(t, js)

	srv.Stop()
	srv.Stop() // does nothing
	if _, err := natsgo.Connect(before); err == nil {
		t.Fatal("connected to a stopped server")
	}
	srv.Restart()
	if srv.URL() != before {
		t.Fatalf("URL changed from %s to %s", before, srv.URL())
	}
	eventually(t, "the client reconnects", nc.IsConnected)
	if n := messages(t, js); n != 1 {
		t.Fatalf("%d messages after the restart, want 1", n)
	}

	srv.Restart() // of a running server
	eventually(t, "the client reconnects again", func() bool { return nc.IsConnected() && nc.Stats().Reconnects >= 2 })
}

func TestManyServers(t *testing.T) {
	t.Parallel()
	const n = 100
	var (
		mu   sync.Mutex
		seen = map[string]bool{}
	)
	t.Run("group", func(t *testing.T) {
		for i := range n {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				srv := natstest.RunServer(t)
				connect(t, srv.URL())
				mu.Lock()
				defer mu.Unlock()
				seen[srv.Name()] = true
			})
		}
	})
	if len(seen) != n {
		t.Fatalf("%d servers, want %d", len(seen), n)
	}
}

// TestManyServersAtOnce holds all servers up together: parallel subtests run only a few at a time.
func TestManyServersAtOnce(t *testing.T) {
	t.Parallel()
	urls := map[string]bool{}
	for range 100 {
		srv := natstest.RunServer(t)
		if urls[srv.URL()] {
			t.Fatalf("two servers at %s", srv.URL())
		}
		urls[srv.URL()] = true
	}
	for u := range urls {
		connect(t, u)
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()

	t.Run("user", func(t *testing.T) {
		t.Parallel()
		srv := natstest.RunServer(t, natstest.WithUser("u", "secret"))
		if strings.Contains(srv.URL(), "secret") {
			t.Fatalf("password in %s", srv.URL())
		}
		if _, err := natsgo.Connect(srv.URL()); !errors.Is(err, natsgo.ErrAuthorization) {
			t.Fatalf("without a password: %v", err)
		}
		connect(t, srv.URL(), natsgo.UserInfo("u", "secret"))

		srv.Restart(natstest.WithUser("u", "rotated"))
		connect(t, srv.URL(), natsgo.UserInfo("u", "rotated"))
	})

	t.Run("token", func(t *testing.T) {
		t.Parallel()
		srv := natstest.RunServer(t, natstest.WithToken("secret"))
		if _, err := natsgo.Connect(srv.URL()); !errors.Is(err, natsgo.ErrAuthorization) {
			t.Fatalf("without a token: %v", err)
		}
		connect(t, srv.URL(), natsgo.Token("secret"))
	})

	t.Run("without JetStream", func(t *testing.T) {
		t.Parallel()
		srv := natstest.RunServer(t, natstest.WithoutJetStream())
		js, err := jetstream.New(connect(t, srv.URL()))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := js.AccountInfo(t.Context()); !errors.Is(err, jetstream.ErrJetStreamNotEnabled) {
			t.Fatalf("account info: %v", err)
		}
	})

	t.Run("config is read at each start", func(t *testing.T) {
		t.Parallel()
		limit := int32(1000)
		srv := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) { o.MaxPayload = limit }))
		if n := connect(t, srv.URL()).MaxPayload(); n != 1000 {
			t.Fatalf("max payload %d, want 1000", n)
		}
		limit = 2000
		srv.Restart()
		if n := connect(t, srv.URL()).MaxPayload(); n != 2000 {
			t.Fatalf("max payload after the restart %d, want 2000", n)
		}
	})

	t.Run("TLS", func(t *testing.T) {
		t.Parallel()
		// Borrowed for its certificate, which is for 127.0.0.1.
		web := httptest.NewTLSServer(nil)
		defer web.Close()
		srv := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) {
			o.TLSConfig = &tls.Config{Certificates: web.TLS.Certificates}
			o.TLSTimeout = 5
		}))
		if u, err := url.Parse(srv.URL()); err != nil || u.Scheme != "tls" {
			t.Fatalf("URL %s, want the scheme tls", srv.URL())
		}
		roots := x509.NewCertPool()
		roots.AddCert(web.Certificate())
		connect(t, srv.URL(), natsgo.Secure(&tls.Config{RootCAs: roots}))
	})

	t.Run("log", func(t *testing.T) {
		t.Parallel()
		rec := &recorder{TB: t}
		natstest.RunServer(rec, natstest.WithLog(), natstest.WithConfig(func(o *server.Options) { o.ServerName = "loud" }))
		if log := rec.String(); !strings.Contains(log, "[loud] INF Listening for client connections") {
			t.Fatalf("log without the listening notice:\n%s", log)
		}
	})
}

func TestFailureSaysWhy(t *testing.T) {
	t.Parallel()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = busy.Close() })
	port := busy.Addr().(*net.TCPAddr).Port

	tests := []struct {
		name, want string
		run        func(testing.TB)
	}{
		{"port taken", "address already in use", func(tb testing.TB) {
			natstest.RunServer(tb, natstest.WithConfig(func(o *server.Options) { o.Port = port }))
		}},
		{"bad option", "grace period", func(tb testing.TB) {
			natstest.RunServer(tb, natstest.WithConfig(func(o *server.Options) { o.LameDuckGracePeriod = time.Hour }))
		}},
		{"bad store", "Can't start JetStream", func(tb testing.TB) {
			natstest.RunServer(tb, natstest.WithConfig(func(o *server.Options) { o.StoreDir = "/dev/null" }))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			msg := failure(t, tt.run)
			if !strings.Contains(msg, tt.want) {
				t.Fatalf("failed with %q, want %q in it", msg, tt.want)
			}
		})
	}
}

func TestLameDuck(t *testing.T) {
	t.Parallel()
	srv := natstest.RunServer(t)
	notified, disconnected := make(chan struct{}), make(chan struct{})
	notify := sync.OnceFunc(func() { close(notified) }) // it may be let in and turned away again, and follows to the end
	disconnect := sync.OnceFunc(func() { close(disconnected) })
	connect(t, srv.URL(),
		natsgo.LameDuckModeHandler(func(*natsgo.Conn) { notify() }),
		natsgo.DisconnectErrHandler(func(*natsgo.Conn, error) { disconnect() }),
	)
	srv.LameDuck()
	<-notified
	<-disconnected
	srv.Embedded().WaitForShutdown()
	srv.Restart()
	connect(t, srv.URL())

	// Stop does not wait for the grace period.
	srv.Restart(natstest.WithConfig(func(o *server.Options) {
		o.LameDuckDuration, o.LameDuckGracePeriod = 2*time.Minute, time.Minute
	}))
	connect(t, srv.URL())
	srv.LameDuck()
	start := time.Now()
	srv.Stop()
	if d := time.Since(start); d > time.Minute {
		t.Fatalf("Stop took %v", d)
	}
}

// recorder keeps what is logged to the test.
type recorder struct {
	testing.TB
	mu  sync.Mutex
	log strings.Builder
}

func (r *recorder) Logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(&r.log, format+"\n", args...)
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.log.String()
}

// failure returns the text with which run ends the test.
func failure(t *testing.T, run func(testing.TB)) string {
	t.Helper()
	type fatal string
	var msg string
	func() {
		defer func() {
			if f, ok := recover().(fatal); ok {
				msg = string(f)
			}
		}()
		run(&failing{TB: t, fail: func(s string) { panic(fatal(s)) }})
	}()
	if msg == "" {
		t.Fatal("did not fail")
	}
	return msg
}

// failing turns the end of the test into a call.
type failing struct {
	testing.TB
	fail func(string)
}

func (f *failing) Fatalf(format string, args ...any) { f.fail(fmt.Sprintf(format, args...)) }

// TestExamples runs the tests that the package's examples show.
func TestExamples(t *testing.T) {
	t.Parallel()
	t.Run("RunServer", testGreet)
	t.Run("RunLeaf", testLeaf)
	t.Run("WithTLS", testTLS)
}
