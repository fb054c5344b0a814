package nats_test

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// patience bounds every wait for a state that is sure to come.
const patience = 10 * time.Second

// connect returns a client of s that is closed with the test. Change may adapt its Config.
func connect(t testing.TB, s *natstest.Server, change func(*nats.Config), opts ...nats.Option) *nats.Client {
	t.Helper()
	cfg := &nats.Config{
		URLs:             []string{s.URL()},
		JetStreamEnabled: true,
		ReconnectWait:    20 * time.Millisecond,
		ReconnectMaxWait: 100 * time.Millisecond,
	}
	if change != nil {
		change(cfg)
	}
	client, err := nats.NewClient(cfg, opts...)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = client.Shutdown(ctx)
	})
	return client
}

// raw returns a plain connection of nats.go, for what a test shows beside the client.
func raw(t testing.TB, s *natstest.Server, opts ...natsgo.Option) *natsgo.Conn {
	t.Helper()
	nc, err := natsgo.Connect(s.URL(), opts...)
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	return nc
}

// eventually polls until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// within returns a context that ends with the test or after d.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

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
