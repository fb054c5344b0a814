package discovery_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consul"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/discovery"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type resolverFunc func(ctx context.Context) ([]string, error)

func (f resolverFunc) Resolve(ctx context.Context) ([]string, error) { return f(ctx) }

// watcherFunc is a resolver whose Watch is f, told how often it has been called before.
type watcherFunc struct {
	resolverFunc
	calls atomic.Int64
	f     func(ctx context.Context, call int64, update func([]string)) error
}

func (w *watcherFunc) Watch(ctx context.Context, update func([]string)) error {
	return w.f(ctx, w.calls.Add(1)-1, update)
}

func TestAsk(t *testing.T) {
	errDown := errors.New("registry is down")
	release := make(chan struct{})
	defer close(release)
	for name, tc := range map[string]struct {
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
			"asked well", fault.ErrTimeout,
		},
		"deaf":   {func(context.Context) ([]string, error) { <-release; return nil, nil }, "no answer", fault.ErrTimeout},
		"panic":  {func(context.Context) ([]string, error) { panic("oops") }, "the resolver panicked: oops", nil},
		"goexit": {func(context.Context) ([]string, error) { runtime.Goexit(); return nil, nil }, "without an answer", nil},
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			limit := time.Minute
			if errors.Is(tc.is, fault.ErrTimeout) {
				limit = 100 * time.Millisecond
			}
			urls, err := discovery.Ask(t.Context(), tc.resolver, limit)
			assert.Less(t, time.Since(begin), 20*time.Second)
			if tc.want == "" {
				require.NoError(t, err)
				assert.Equal(t, []string{"nats://found:4222"}, urls)
				return
			}
			require.ErrorContains(t, err, tc.want)
			assert.Empty(t, urls)
			if tc.is != nil {
				assert.ErrorIs(t, err, tc.is)
			}
		})
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := discovery.Ask(ctx, resolverFunc(func(ctx context.Context) ([]string, error) { return nil, ctx.Err() }), time.Minute)
	require.ErrorIs(t, err, context.Canceled)
}

// The resolver's goroutine ends with the call, also when Consul says nothing.
func TestAskLeavesNothing(t *testing.T) {
	current := goleak.IgnoreCurrent()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	const secret = "c0ffee00-secret"
	cfg := consul.Config{Address: listener.Addr().String(), Token: secret, Timeout: time.Minute}
	r, err := consul.New(cfg, "nats", 0, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	_, err = discovery.Ask(t.Context(), r, time.Second)
	require.ErrorIs(t, err, fault.ErrTimeout)
	require.ErrorContains(t, err, "service/nats")
	require.ErrorContains(t, err, listener.Addr().String())
	require.NotContains(t, err.Error(), secret)
	goleak.VerifyNone(t, current)
}

// However a watch ends, it is begun again, and what it named is told.
func TestFollowGoesOn(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		end    func() error
		reason string
	}{
		"error":   {func() error { return errors.New("try again") }, "try again"},
		"nil":     {func() error { return nil }, "ended early"},
		"panic":   {func() error { panic("lost my mind") }, "lost my mind"},
		"goexit":  {func() error { runtime.Goexit(); return nil }, "without an answer"},
		"own end": {func() error { return context.Canceled }, "canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var named, reasons []string // update and failed come on Follow's goroutines, one after the other
			w := &watcherFunc{f: func(ctx context.Context, call int64, update func([]string)) error {
				update(nil)
				update([]string{"nats://a"})
				if call < 2 {
					return tc.end()
				}
				cancel()
				<-ctx.Done()
				update([]string{"nats://late"})
				return ctx.Err()
			}}
			discovery.Follow(ctx, w, time.Second, func(urls []string) { named = append(named, urls...) },
				func(err error) { reasons = append(reasons, err.Error()) })
			assert.Equal(t, []string{"nats://a", "nats://a", "nats://a"}, named)
			require.Len(t, reasons, 2)
			assert.Contains(t, reasons[0], tc.reason)
		})
	}
}

// A watch that disregards its context does not keep Follow, and updates never overlap.
func TestFollowEndsWithItsContext(t *testing.T) {
	t.Parallel()
	release, deaf := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	var running, overlaps atomic.Int64
	w := &watcherFunc{f: func(_ context.Context, _ int64, update func([]string)) error {
		defer close(deaf)
		for range 10 {
			go update([]string{"nats://a"})
		}
		update([]string{"nats://a"})
		cancel()
		<-release
		return nil
	}}
	discovery.Follow(ctx, w, time.Second, func([]string) {
		if running.Add(1) > 1 {
			overlaps.Add(1)
		}
		runtime.Gosched()
		running.Add(-1)
	}, func(err error) { t.Errorf("failed: %v", err) })
	assert.Zero(t, overlaps.Load())
	close(release)
	<-deaf
}

// A resolver that tells of no changes is asked until it has answered.
func TestFollowWithoutAWatch(t *testing.T) {
	t.Parallel()
	var calls, failures int
	r := resolverFunc(func(ctx context.Context) ([]string, error) {
		switch calls++; calls {
		case 1:
			<-ctx.Done() // within the time, not for ever
			return nil, ctx.Err()
		case 2:
			return nil, nil
		}
		return []string{"nats://a"}, nil
	})
	var named [][]string
	discovery.Follow(t.Context(), r, time.Second, func(urls []string) { named = append(named, urls) }, func(error) { failures++ })
	assert.Equal(t, [][]string{{"nats://a"}}, named)
	assert.Equal(t, 2, failures)
}

func TestUsable(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		urls      []string
		websocket bool
		want      []string
		wrong     []string
	}{
		"all":                {urls: []string{"nats://b", "TLS://u:secret@a", "c:4222"}, want: []string{"nats://b", "tls://u:secret@a", "c:4222"}},
		"twice":              {urls: []string{"nats://a", "NATS://a", "nats://a"}, want: []string{"nats://a"}},
		"none":               {},
		"one bad":            {urls: []string{"nats://a", "nats://u:secret@b c"}, want: []string{"nats://a"}, wrong: []string{"1 of", "u:***@b c", "must be a URL"}},
		"one WebSocket":      {urls: []string{"WS://a", "nats://b", "tls://c"}, want: []string{"nats://b", "tls://c"}, wrong: []string{"1 of", "ws://a", "cannot be mixed"}},
		"one connection":     {urls: []string{"ws://a", "nats://b", "wss://c/x?y"}, websocket: true, want: []string{"ws://a", "wss://c/x?y"}, wrong: []string{"nats://b", "cannot be mixed"}},
		"WebSockets only":    {urls: []string{"ws://a", "wss://b"}, want: []string{"ws://a", "wss://b"}},
		"connections only":   {urls: []string{"nats://a"}, websocket: true, want: []string{"nats://a"}},
		"without a scheme":   {urls: []string{"a:80", "nats://b"}, websocket: true, want: []string{"a:80"}, wrong: []string{"nats://b"}},
		"nothing but faults": {urls: []string{"", "x://a", "nats://a:0", ",", "::1", "http://b", "nats://c/d"}, wrong: []string{"7 of", "and 2 more"}},
	} {
		urls, wrong := discovery.Usable(tc.urls, tc.websocket)
		assert.Equal(t, tc.want, urls, name)
		assert.Equal(t, len(tc.wrong) == 0, wrong == "", "%s: %s", name, wrong)
		for _, part := range tc.wrong {
			assert.Contains(t, wrong, part, name)
		}
		assert.NotContains(t, wrong, "secret", name)
	}
	a, b := []string{"x://a", "x://b"}, []string{"x://b", "x://a"}
	_, first := discovery.Usable(a, false)
	_, second := discovery.Usable(b, false)
	assert.Equal(t, first, second, "whatever their order")
}

func TestServers(t *testing.T) {
	t.Parallel()
	var s discovery.Servers
	urls, updated := s.Get()
	assert.Nil(t, urls)
	assert.Zero(t, updated)
	s.FallBack([]string{"a"})
	urls, updated = s.Get()
	assert.Equal(t, []string{"a"}, urls)
	assert.Zero(t, updated)

	given := []string{"b", "a"}
	s.Set(given)
	given[0] = "changed"
	urls, updated = s.Get()
	assert.Equal(t, []string{"b", "a"}, urls)
	assert.NotZero(t, updated)
	urls[0] = "changed"
	assert.True(t, s.Are([]string{"a", "b"}))
	assert.False(t, s.Are([]string{"a"}))
	assert.False(t, s.Are([]string{"a", "c"}))

	assert.False(t, s.Refuse(""))
	assert.True(t, s.Refuse("x"))
	assert.False(t, s.Refuse("x"))
	assert.False(t, s.Refuse(""))
	assert.True(t, s.Refuse("x"))
}

func TestFiftyThousand(t *testing.T) {
	t.Parallel()
	many := make([]string, 50_000)
	for i := range many {
		many[i] = "nats://" + strings.Repeat("x", 20) + "." + time.Duration(i).String() + ":4222"
	}
	begin := time.Now()
	urls, wrong := discovery.Usable(many, false)
	require.Empty(t, wrong)
	require.Len(t, urls, len(many))
	var s discovery.Servers
	s.Set(urls)
	slices.Reverse(urls)
	require.True(t, s.Are(urls))
	_, wrong = discovery.Usable(many, true)
	require.Empty(t, wrong)
	assert.Less(t, time.Since(begin), time.Minute, "not quadratic")
	t.Log(time.Since(begin))
}
