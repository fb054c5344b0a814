package consul

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consultest"
)

// lockedLog is a log that may be read while it is written.
type lockedLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *lockedLog) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func waitUntil(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// serveHTTP runs a server whose address is returned.
func serveHTTP(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

// watch runs r.Watch until the test ends; urls holds what it told last.
func watch(t *testing.T, r *Resolver) (urls *atomic.Pointer[[]string]) {
	t.Helper()
	urls = new(atomic.Pointer[[]string])
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Watch(ctx, func(u []string) { urls.Store(&u) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Watch ended with %v", err)
		}
	})
	return urls
}

// A proxy ends what is idle for it: each blocking query without a change. That is no outage.
func TestWatchBehindAProxy(t *testing.T) {
	t.Parallel()
	const idle = 300 * time.Millisecond
	for name, end := range map[string]func(http.ResponseWriter){
		"502": func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) },
		"504": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusGatewayTimeout)
			_, _ = w.Write([]byte("<html>504 Gateway Time-out</html>"))
		},
		"EOF":             func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
		"an empty answer": func(w http.ResponseWriter) { w.WriteHeader(http.StatusOK) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			agent := consultest.Run(t)
			target, err := url.Parse("http://" + agent.Address())
			if err != nil {
				t.Fatal(err)
			}
			var cuts atomic.Int64
			proxy := httputil.NewSingleHostReverseProxy(target)
			proxy.ErrorHandler = func(w http.ResponseWriter, req *http.Request, _ error) {
				if req.URL.Query().Has("index") {
					cuts.Add(1)
				}
				end(w)
			}
			address := serveHTTP(t, func(w http.ResponseWriter, req *http.Request) {
				ctx, cancel := context.WithTimeout(req.Context(), idle)
				if !req.URL.Query().Has("index") { // answered at once, however slow the machine
					ctx, cancel = context.WithCancel(req.Context())
				}
				defer cancel()
				proxy.ServeHTTP(w, req.WithContext(ctx))
			})

			first := consultest.Instance{Service: "nats", ID: "one", Address: "192.0.2.1", Port: 4222}
			agent.Register(first)
			var log lockedLog
			r, err := New(Config{Address: address}, "nats", 0, log.logger())
			if err != nil {
				t.Fatal(err)
			}
			urls := watch(t, r)
			waitUntil(t, "three queries are ended", func() bool { return cuts.Load() >= 3 })
			agent.Register(consultest.Instance{Service: "nats", ID: "two", Address: "192.0.2.2", Port: 4222})
			waitUntil(t, "a change gets through", func() bool { return len(*urls.Load()) == 2 })
			if text := log.String(); text != "" {
				t.Errorf("logged %s", text)
			}

			agent.Stop()
			waitUntil(t, "the outage is told", func() bool { return strings.Contains(log.String(), "the last known ones are kept") })
			agent.Restart()
			agent.Register(first)
			waitUntil(t, "after the outage", func() bool { return len(*urls.Load()) == 1 })
			if n := strings.Count(log.String(), "\n"); n != 1 {
				t.Errorf("%d lines: %s", n, log.String())
			}
		})
	}
}

// A proxy that ends blocking queries at once is not asked without a pause.
func TestWatchDoesNotSpin(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]http.HandlerFunc{
		"no blocking query": func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Query().Has("index") {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			w.Header().Set("X-Consul-Index", "7")
			_, _ = w.Write(entries(1))
		},
		"nothing new": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Consul-Index", "7")
			_, _ = w.Write(entries(1))
		},
		"nothing at all": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Consul-Index", "7")
			_, _ = w.Write(entries(0))
		},
		"no index": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(entries(1)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var queries atomic.Int64
			address := serveHTTP(t, func(w http.ResponseWriter, req *http.Request) {
				queries.Add(1)
				handler(w, req)
			})
			var log lockedLog
			r, err := New(Config{Address: address}, "nats", 0, log.logger())
			if err != nil {
				t.Fatal(err)
			}
			watch(t, r)
			waitUntil(t, "the first query", func() bool { return queries.Load() > 0 })
			<-time.After(3 * time.Second) // how often it asks meanwhile is the question
			if n := queries.Load(); n < 2 && name != "no index" || n > 10 {
				t.Errorf("%d queries in 3 s", n)
			}
			if lines := strings.Count(log.String(), "\n"); lines > 1 || lines > 0 && name != "nothing at all" {
				t.Errorf("logged %s", log.String())
			}
		})
	}
}

// entries is Consul's answer with that many instances.
func entries(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, `,{"Node":{"Node":"n","Address":"10.%d.%d.%d"},"Service":{"ID":"s","Port":4222}}`, i>>16, i>>8&255, i&255)
	}
	return append(append([]byte("["), bytes.TrimPrefix(b.Bytes(), []byte(","))...), ']')
}

func TestManyInstances(t *testing.T) {
	t.Parallel()
	const many = 50_000
	answer := entries(many)
	address := serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(answer) })
	var log lockedLog
	r, err := New(Config{Address: address, Timeout: time.Minute}, "nats", 0, log.logger())
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	urls, err := r.Resolve(t.Context())
	if err != nil || len(urls) != many {
		t.Fatalf("%d URLs, %v", len(urls), err)
	}
	t.Logf("%d in %v", many, time.Since(begin))

	// As many that cannot be used are one line.
	r.grpcPort = 4222
	if _, err := r.Resolve(t.Context()); err == nil || !strings.Contains(err.Error(), "50000 skipped") || len(err.Error()) > 2000 {
		t.Errorf("error %v", err)
	}
	if _, err := r.Resolve(t.Context()); err == nil {
		t.Error("resolved")
	}
	if text := log.String(); strings.Count(text, "level=WARN") != 1 || !strings.Contains(text, "50000 skipped") || len(text) > 2000 {
		t.Errorf("log %q, want one warning", text)
	}
}

// What is said again changes with the registrations.
func TestSkippedInstancesAreToldOnce(t *testing.T) {
	t.Parallel()
	var port atomic.Int64
	address := serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `[{"Node":{"Node":"n","Address":"10.0.0.1"},"Service":{"ID":"s","Port":%d}}]`, port.Load())
	})
	var log lockedLog
	r, err := New(Config{Address: address}, "nats", 0, log.logger())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []int64{-1, -1, 4222, 4222, -1, -2} {
		port.Store(p)
		_, _ = r.Resolve(t.Context())
	}
	if n := strings.Count(log.String(), "instances skipped"); n != 3 {
		t.Errorf("%d warnings: %s", n, log.String())
	}
}

// Whatever answers, at most 8 MiB of it are read.
func TestAnswerIsBounded(t *testing.T) {
	t.Parallel()
	for name, status := range map[string]int{"an answer": http.StatusOK, "an error": http.StatusInternalServerError} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var sent atomic.Int64
			address := serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(status)
				page := bytes.Repeat([]byte("["), 64<<10)
				if status == http.StatusOK {
					page = append([]byte(`"`), bytes.Repeat([]byte("x"), 64<<10)...)
				}
				for range 1024 {
					n, err := w.Write(page)
					if sent.Add(int64(n)); err != nil {
						return
					}
					page = bytes.Repeat([]byte("x"), 64<<10)
				}
			})
			r, err := New(Config{Address: address, Timeout: time.Minute}, "nats", 0, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			_, err = r.Resolve(t.Context())
			if err == nil || len(err.Error()) > 1000 {
				t.Fatalf("error %v", err)
			}
			if status == http.StatusOK && !strings.Contains(err.Error(), "longer than 8 MiB") {
				t.Errorf("error %v", err)
			}
			if sent.Load() > 32<<20 {
				t.Errorf("%d bytes were taken", sent.Load())
			}
		})
	}
	exact := entries(1)
	exact = append(exact, bytes.Repeat([]byte(" "), 8<<20-len(exact))...)
	address := serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(exact) })
	r, err := New(Config{Address: address, Timeout: time.Minute}, "nats", 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err = r.Resolve(t.Context()); err != nil {
		t.Errorf("8 MiB: %v", err)
	}
}

func TestLargestTimeout(t *testing.T) {
	t.Parallel()
	agent := consultest.Run(t)
	agent.Register(consultest.Instance{Service: "nats", ID: "one", Address: "192.0.2.1", Port: 4222})
	var log lockedLog
	r, err := New(Config{Address: agent.Address(), Timeout: math.MaxInt64}, "nats", 0, log.logger())
	if err != nil {
		t.Fatal(err)
	}
	urls := watch(t, r)
	waitUntil(t, "the first answer", func() bool { return urls.Load() != nil })
	agent.Register(consultest.Instance{Service: "nats", ID: "two", Address: "192.0.2.2", Port: 4222})
	waitUntil(t, "the change", func() bool { return len(*urls.Load()) == 2 })
	if log.String() != "" {
		t.Errorf("logged %s", log.String())
	}
}
