package nats

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consul"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consultest"
)

type resolverFunc func(ctx context.Context) ([]string, error)

func (f resolverFunc) Resolve(ctx context.Context) ([]string, error) { return f(ctx) }

func testLog() (*slog.Logger, *bytes.Buffer) {
	var buf bytes.Buffer
	return slog.New(slog.NewTextHandler(&buf, nil)), &buf
}

func TestDiscover(t *testing.T) {
	fallback := []string{"nats://user:hidden@fallback:4222"}
	errDown := errors.New("registry is down")
	current := goleak.IgnoreCurrent()
	defer func() { goleak.VerifyNone(t, current) }()
	release := make(chan struct{})
	defer close(release)
	cases := map[string]struct {
		resolver resolverFunc
		want     string // in the error; empty for success
		is       error
	}{
		"found": {resolver: func(context.Context) ([]string, error) { return []string{"nats://found:4222"}, nil }},
		"error": {func(context.Context) ([]string, error) { return nil, errDown }, "registry is down", errDown},
		"error and servers": {
			func(context.Context) ([]string, error) { return []string{"nats://half:4222"}, errDown }, "registry is down", errDown,
		},
		"empty": {func(context.Context) ([]string, error) { return nil, nil }, "found no server", nil},
		"slow": {
			func(ctx context.Context) ([]string, error) {
				<-ctx.Done()
				return nil, errors.Join(ctx.Err(), errors.New("asked well"))
			},
			"asked well", ErrTimeout,
		},
		"deaf":   {func(context.Context) ([]string, error) { <-release; return nil, nil }, "no answer", ErrTimeout},
		"panic":  {func(context.Context) ([]string, error) { panic("oops") }, "the resolver panicked: oops", nil},
		"goexit": {func(context.Context) ([]string, error) { runtime.Goexit(); return nil, nil }, "without an answer", nil},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			log, logged := testLog()
			start := time.Now()
			urls, err := discover(t.Context(), tc.resolver, 100*time.Millisecond, fallback, log)
			if d := time.Since(start); d > 2*time.Second {
				t.Errorf("took %s", d)
			}
			if tc.want == "" {
				if err != nil || !slices.Equal(urls, []string{"nats://found:4222"}) || logged.Len() > 0 {
					t.Errorf("got %q, %v, log %q", urls, err, logged)
				}
				return
			}
			if !slices.Equal(urls, fallback) {
				t.Errorf("got %q, want the fallback", urls)
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) || tc.is != nil && !errors.Is(err, tc.is) {
				t.Errorf("error %v, want %q and %v", err, tc.want, tc.is)
			}
			text := logged.String()
			if strings.Count(text, "level=WARN") != 1 || strings.Count(text, "\n") != 1 || !strings.Contains(text, "servers=1") {
				t.Errorf("log %q, want one warning", text)
			}
			if strings.Contains(text, "hidden") {
				t.Errorf("password in log %q", text)
			}
		})
	}
}

func TestDiscoverCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	log, _ := testLog()
	urls, err := discover(ctx, resolverFunc(func(ctx context.Context) ([]string, error) { return nil, ctx.Err() }),
		time.Minute, nil, log)
	if len(urls) != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("got %q, %v, want Canceled", urls, err)
	}
}

// The resolver's goroutine must end with the call, also when Consul says nothing.
func TestDiscoverLeavesNothing(t *testing.T) {
	current := goleak.IgnoreCurrent()
	defer func() { goleak.VerifyNone(t, current) }()
	consultest.ClearEnvironment(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	log, logged := testLog()
	const secret = "c0ffee00-secret"
	cfg := consul.Config{Address: listener.Addr().String(), Token: secret, Timeout: time.Minute}
	r, err := consul.New(cfg, "nats", defaultGRPCPort, log)
	if err != nil {
		t.Fatal(err)
	}
	_, err = discover(t.Context(), r, 100*time.Millisecond, []string{"nats://fallback:4222"}, log)
	if !errors.Is(err, ErrTimeout) {
		t.Errorf("error %v, want ErrTimeout", err)
	}
	for _, part := range []string{"service/nats", listener.Addr().String()} {
		if !strings.Contains(logged.String(), part) {
			t.Errorf("log %q does not mention %q", logged, part)
		}
	}
	if strings.Contains(logged.String()+err.Error(), secret) {
		t.Errorf("token in log or error: %q %v", logged, err)
	}
}
