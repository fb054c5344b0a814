package nats_test

import (
	"bytes"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// patience bounds every wait for a state that is sure to come.
const patience = time.Minute

// since returns how long ago begin is, but for what the machine held the tests up since: a busy one makes nobody late.
func since(begin time.Time) time.Duration { return stalls.Since(begin) }

// connect returns a client of s that is closed with the test. Change may adapt its Config. Its calls have the time that
// a busy machine takes.
func connect(t testing.TB, s *natstest.Server, change func(*nats.Config), opts ...nats.Option) *nats.Client {
	t.Helper()
	return natstest.Connect(t, s, func(c *nats.Config) {
		c.RequestTimeout = patience
		if change != nil {
			change(c)
		}
	}, opts...)
}

// through returns a client of s, and the proxy on its way: it keeps its port, where that of a stopped server may become
// another one's.
func through(t testing.TB, s *natstest.Server, opts ...nats.Option) (*nats.Client, *natstest.Proxy) {
	t.Helper()
	proxy := natstest.NewProxy(t, s.URL())
	return connect(t, s, func(c *nats.Config) { c.URLs = []string{proxy.URL()} }, opts...), proxy
}

// raw returns a plain connection of nats.go, for what a test shows beside the client.
func raw(t testing.TB, s *natstest.Server, opts ...natsgo.Option) *natsgo.Conn {
	t.Helper()
	return conntest.Raw(t, s.URL(), opts...)
}

// leafPair runs a hub and a leaf node of one account, each with a JetStream domain of its name. Opts are the
// leaf's.
func leafPair(t *testing.T, flags map[string]bool, opts ...natstest.Option) map[string]*natstest.Server {
	t.Helper()
	named := func(name string) natstest.Option {
		return natstest.WithConfig(func(o *server.Options) { o.ServerName, o.JetStreamDomain, o.FeatureFlags = name, name, flags })
	}
	hub := natstest.RunServer(t, named("hub"))
	return map[string]*natstest.Server{"hub": hub, "leaf": natstest.RunLeaf(t, hub, "leaf", append(opts, named("leaf"))...)}
}

// second returns the error of a call that returns something else as well.
func second(_ any, err error) error { return err }

// eventually polls until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

var within = conntest.Within

// eventLog collects events.
type eventLog struct {
	mu     sync.Mutex
	events []nats.Event
}

func (l *eventLog) handle(e nats.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
}

// of returns the events of one type.
func (l *eventLog) of(kind nats.EventType) []nats.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []nats.Event
	for _, e := range l.events {
		if e.Type == kind {
			found = append(found, e)
		}
	}
	return found
}

// logBuffer is a log that a test can read while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }
