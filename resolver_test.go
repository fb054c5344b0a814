package nats_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// told is a resolver that names what the test tells it to.
type told struct {
	first []string
	lists chan []string
	taken chan struct{} // the client has taken a list
}

func newTold(first ...string) *told {
	return &told{first, make(chan []string), make(chan struct{})}
}

func (r *told) Resolve(context.Context) ([]string, error) { return r.first, nil }

func (r *told) Watch(ctx context.Context, update func([]string)) error {
	for {
		select {
		case urls := <-r.lists:
			update(urls)
			select {
			case r.taken <- struct{}{}:
			case <-ctx.Done():
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *told) tell(t *testing.T, urls ...string) {
	t.Helper()
	r.lists <- urls
	select {
	case <-r.taken:
	case <-time.After(3 * patience):
		t.Fatal("an update was not taken")
	}
}

// fiftyThousand is as many servers with the port, and one.
func fiftyThousand(port int, one string) []string {
	urls := make([]string, 0, 50_000)
	for i := range 50_000 - 1 {
		urls = append(urls, fmt.Sprintf("nats://10.%d.%d.%d:%d", i>>16, i>>8&255, i&255, port))
	}
	return append(urls, one)
}

func TestDiscoveryNamesOtherServers(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		update   func(first, second string) []string
		events   int      // of a change
		pool     int      // servers afterwards
		warnings []string // that the log has
		moves    bool     // to the second server when the first ends
	}{
		"an empty answer":        {func(_, _ string) []string { return nil }, 0, 1, nil, false},
		"the same":               {func(first, _ string) []string { return []string{first} }, 0, 1, nil, false},
		"the same, twice":        {func(first, _ string) []string { return []string{first, strings.ToUpper(first)} }, 0, 1, nil, false},
		"another":                {func(_, second string) []string { return []string{second} }, 1, 1, nil, true},
		"one more":               {func(first, second string) []string { return []string{first, second} }, 1, 2, nil, true},
		"one with a WebSocket":   {func(_, second string) []string { return []string{"ws://127.0.0.1:1", second} }, 1, 1, []string{"ws://127.0.0.1:1", "cannot be mixed"}, true},
		"one with a fault":       {func(_, second string) []string { return []string{"nats://u:hunter2@b c", second} }, 1, 1, []string{"must be a URL"}, true},
		"nothing but a fault":    {func(_, _ string) []string { return []string{"nats://u:hunter2@b c"} }, 0, 1, []string{"must be a URL", "unusable"}, false},
		"fifty thousand of them": {func(_, second string) []string { return fiftyThousand(4222, second) }, 1, 50_000, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, second := natstest.RunServer(t, natstest.WithoutJetStream()), natstest.RunServer(t, natstest.WithoutJetStream())
			var log logBuffer
			var events eventLog
			resolver := newTold(first.URL())
			client := connect(t, first, nil, nats.WithResolver(resolver), nats.WithLogger(log.logger()), nats.WithEventHandler(events.handle))
			before := client.Stats().ServersUpdated
			urls := tc.update(first.URL(), second.URL())
			resolver.tell(t, urls...)

			assert.Len(t, client.Conn().ServerPool(), tc.pool)
			assert.True(t, connectedTo(client, first), "a connection that stands is kept")
			if tc.events > 0 || slices.Equal(urls, []string{first.URL()}) {
				assert.True(t, client.Stats().ServersUpdated.After(before))
			}
			for _, part := range tc.warnings {
				assert.Contains(t, log.String(), part)
			}
			assert.Equal(t, len(tc.warnings) > 0, strings.Contains(log.String(), "level=WARN") || strings.Contains(log.String(), "level=ERROR"))
			assert.NotContains(t, log.String(), "hunter2")
			assert.Less(t, len(log.String()), 20_000)

			// The other way round, which is a change unless nothing was one before, and told again.
			slices.Reverse(urls)
			resolver.tell(t, urls...)
			assert.Equal(t, 1, max(1, strings.Count(log.String(), "are skipped")), "said once")
			if tc.moves {
				first.Stop()
				eventually(t, "on the second", func() bool { return client.IsConnected() && connectedTo(client, second) })
			}
			resolver.tell(t, "nats://127.0.0.1:1") // what is told last comes last
			eventually(t, "the events", func() bool { return len(events.of(nats.EventServersChanged)) == tc.events+1 })
		})
	}
}

// Upstream compares all servers of a list with all of the next one: minutes, under its lock.
func TestFiftyThousandOtherServers(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t, natstest.WithoutJetStream())
	resolver := newTold(s.URL())
	client := connect(t, s, nil, nats.WithResolver(resolver))
	begin := time.Now()
	for port := range 2 {
		resolver.tell(t, fiftyThousand(port+1, s.URL())...)
		require.NoError(t, client.Ping(within(t, patience)))
	}
	t.Log(time.Since(begin))
	assert.Len(t, client.Conn().ServerPool(), 50_000)
}

// However many servers are away, connecting keeps to its time, and its error to what a person reads.
func TestFiftyThousandServersAway(t *testing.T) {
	t.Parallel()
	urls := fiftyThousand(1, "nats://127.0.0.1:1")
	for i, url := range urls {
		urls[i] = strings.Replace(url, "//10.", "//127.", 1)
	}
	begin := time.Now()
	_, err := nats.NewClient(&nats.Config{Timeout: 2 * time.Second}, nats.WithResolver(fixedServers(urls)))
	require.ErrorIs(t, err, nats.ErrNotConnected)
	assert.Less(t, since(begin), time.Minute) // 4 s with the race detector, where nothing else runs
	assert.Less(t, len(err.Error()), 20_000)
	assert.Contains(t, err.Error(), "more")
}

// What is known of the servers changes while the client waits for one of the old ones.
func TestDiscoveryChangesDuringADial(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(testing.TB) string{
		"silent": func(t testing.TB) string { return natstest.SilentServer(t, "") },
		"dead":   natstest.DeadHost,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, second := natstest.RunServer(t, natstest.WithoutJetStream()), natstest.RunServer(t, natstest.WithoutJetStream())
			resolver := newTold(first.URL())
			client := connect(t, first, func(c *nats.Config) { c.Timeout = 2 * time.Second }, nats.WithResolver(resolver))
			resolver.tell(t, away(t))
			first.Stop()
			eventually(t, "the break", func() bool { return !client.IsConnected() })
			resolver.tell(t, second.URL())
			eventually(t, "on the second", func() bool { return client.IsConnected() && connectedTo(client, second) })
		})
	}
}

// brokenResolver does all the time what f does.
type brokenResolver struct {
	f func(ctx context.Context) error
}

func (r brokenResolver) Resolve(ctx context.Context) ([]string, error) { return nil, r.f(ctx) }

func (r brokenResolver) Watch(ctx context.Context, _ func([]string)) error { return r.f(ctx) }

// A client does without a resolver that does not work, and ends without it.
func TestBrokenResolver(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	for name, f := range map[string]func(context.Context) error{
		"error":    func(context.Context) error { return errors.New("no") },
		"panic":    func(context.Context) error { panic("no") },
		"goexit":   func(context.Context) error { runtime.Goexit(); return nil },
		"hangs":    func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"deaf":     func(context.Context) error { <-release; return nil },
		"no error": func(context.Context) error { return nil },
	} {
		for _, background := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", in the background: ", background), func(t *testing.T) {
				t.Parallel()
				s := natstest.RunServer(t, natstest.WithoutJetStream())
				opts := []nats.Option{nats.WithResolver(brokenResolver{f})}
				if background {
					opts = append(opts, nats.WithBackgroundConnect())
				}
				var events eventLog
				opts = append(opts, nats.WithEventHandler(events.handle))
				client, err := nats.NewClient(&nats.Config{URLs: []string{s.URL()}, Timeout: 4 * time.Second}, opts...)
				require.NoError(t, err, "half of the time is the servers'")
				ctx := within(t, patience)
				require.NoError(t, client.Ping(ctx))
				if !background {
					eventually(t, "the event", func() bool { return len(events.of(nats.EventServersFallback)) == 1 })
				}
				begin := time.Now()
				require.NoError(t, client.Close())
				assert.Less(t, since(begin), 5*time.Second)
			})
		}
	}
}

// Consul is away, in whichever way, and may be asked for longer than connecting may take.
func TestConsulAwayIsHarmless(t *testing.T) {
	t.Parallel()
	for name, address := range map[string]string{
		"refused": "nats://" + refused, "silent": natstest.SilentServer(t, ""), "dead": natstest.DeadHost(t),
		"no HTTP":  natstest.SilentServer(t, "INFO {}\r\n"),
		"half one": natstest.SilentServer(t, "HTTP/1.1 200 OK\r\nX-Consul-Index: 3\r\nContent-Length: 100\r\n\r\n["),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := natstest.RunServer(t)
			begin := time.Now()
			client, err := nats.NewClient(&nats.Config{
				URLs: []string{s.URL()}, UseConsul: true, Timeout: 4 * time.Second, JetStreamEnabled: true,
				Consul: nats.ConsulConfig{Address: strings.TrimPrefix(address, "nats://"), Timeout: time.Hour},
			})
			require.NoError(t, err)
			assert.Less(t, since(begin), 4*time.Second)
			require.NoError(t, client.Ping(within(t, patience)))
			s.Restart()
			eventually(t, "reconnected", client.IsConnected)
			assert.True(t, client.Health(within(t, patience)).OK)
			assert.True(t, client.Stats().ServersUpdated.IsZero())
			begin = time.Now()
			require.NoError(t, client.Close())
			assert.Less(t, since(begin), 5*time.Second)
		})
	}
}
