package conntest

import (
	"context"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
)

// Open connects to the server at url, for ever again, until the test ends. Requests hear of denials, and
// nobody of the rest. Change, when it is not nil, sets other options.
func Open(tb testing.TB, url string, change func(*conn.Options)) *conn.Conn {
	tb.Helper()
	upstream := natsgo.GetDefaultOptions()
	upstream.MaxReconnect, upstream.ReconnectWait = -1, 10*time.Millisecond
	var c *conn.Conn
	o := conn.Options{NATS: &upstream, RequestTimeout: 10 * time.Second, MaxControlLine: 4096, Denied: func(err error) bool { return c.Deny(err) }}
	if change != nil {
		change(&o)
	}
	c = conn.New(o, silent{})
	tb.Cleanup(c.Close)
	require.NoError(tb, c.Open(context.Background(), func(context.Context) ([]string, error) { return []string{url}, nil }))
	return c
}

// silent hears nothing of the connection.
type silent struct{}

func (silent) Up(bool, time.Duration)        {}
func (silent) Down(error)                    {}
func (silent) Failed(*conn.ServerError)      {}
func (silent) Dropped(string, int, int64)    {}
func (silent) Unsubscribed(string, int, int) {}
func (silent) Refused(error)                 {}
func (silent) Stays(conn.Departure, error)   {}
func (silent) Closed(error)                  {}

// Raw returns a plain connection of nats.go, for what a test shows beside the engine.
func Raw(tb testing.TB, url string, opts ...natsgo.Option) *natsgo.Conn {
	tb.Helper()
	nc, err := natsgo.Connect(url, opts...)
	require.NoError(tb, err)
	tb.Cleanup(nc.Close)
	return nc
}

// Within returns a context that ends with the test or after d.
func Within(tb testing.TB, d time.Duration) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	tb.Cleanup(cancel)
	return ctx
}
