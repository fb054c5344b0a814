package conn_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// What servers, machines in the middle, and the user's own functions do wrong.

// serve accepts connections until the test ends.
func serve(t testing.TB, f func(net.Conn)) (url string) {
	t.Helper()
	return "nats://" + conntest.Serve(t, func(conn net.Conn) {
		f(conn)
		_ = conn.Close()
	})
}

// What comes in the clear behind INFO must not count as said over TLS.
func TestNothingIsTakenFromBeforeTLS(t *testing.T) {
	t.Parallel()
	const greeting = `INFO {"server_id":"X","version":"2.15.0","proto":1,"headers":true,"max_payload":1048576,"tls_required":true}` + "\r\n"
	shook := make(chan struct{}, 10)
	pair, pool := certificates(t)
	url := serve(t, func(conn net.Conn) {
		_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
		_, _ = io.WriteString(conn, greeting+"PONG\r\nMSG x 1 6\r\nforged\r\n")
		secure := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})
		if secure.Handshake() == nil {
			shook <- struct{}{}
			_, _ = io.Copy(io.Discard, secure)
		}
	})
	c, _ := connection(t, func(o *conn.Options) {
		o.NATS.TLSConfig = &tls.Config{RootCAs: pool, ServerName: "nats.test", MinVersion: tls.VersionTLS12}
	})
	err := c.Open(within(t, 500*time.Millisecond), func(context.Context) ([]string, error) { return []string{url}, nil })
	require.Error(t, err)
	require.Empty(t, shook, "nobody shakes hands with it")
}

// A function of the user's that hangs, as when it asks a vault, holds nobody longer than they wait.
func TestCredentialsThatHang(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	end := make(chan struct{})
	defer close(end)
	c, _ := connection(t, func(o *conn.Options) {
		o.Credentials = func(*natsgo.Options) error { <-end; return errors.New("too late") }
	})
	begin := time.Now()
	require.Error(t, c.Open(within(t, 200*time.Millisecond), func(context.Context) ([]string, error) { return []string{s.URL()}, nil }))
	require.Less(t, time.Since(begin), 3*time.Second)
}

// Who gives up hears so, whatever kept the servers from answering until then.
func TestOpenThatIsCancelled(t *testing.T) {
	t.Parallel()
	end := make(chan struct{})
	defer close(end)
	reason := errors.New("the reason")
	for name, url := range map[string]string{"refused": "nats://127.0.0.1:1", "hangs": natstest.RunServer(t).URL()} {
		c, _ := connection(t, func(o *conn.Options) {
			if name == "hangs" {
				o.Credentials = func(*natsgo.Options) error { <-end; return errors.New("too late") }
			}
		})
		ctx, cancel := context.WithCancelCause(context.Background())
		time.AfterFunc(300*time.Millisecond, func() { cancel(reason) })
		err := c.Open(ctx, func(context.Context) ([]string, error) { return []string{url}, nil })
		require.ErrorIs(t, err, fault.ErrNotConnected, name)
		require.ErrorIs(t, err, reason, name)
		require.ErrorIs(t, err, context.Canceled, name)
	}
}

// Nats.go sends no pings with an interval of zero or less.
func TestWithoutPings(t *testing.T) {
	t.Parallel()
	for _, interval := range []time.Duration{0, -1} {
		c, _ := open(t, func(o *conn.Options) { o.NATS.PingInterval = interval }, natstest.RunServer(t).URL())
		require.NoError(t, c.RoundTrip(within(t, time.Minute), "ping", ""))
	}
}

func TestPatienceIsBounded(t *testing.T) {
	t.Parallel()
	c, _ := connection(t, func(o *conn.Options) { o.NATS.MaxPingsOut = math.MaxInt })
	require.Equal(t, conn.MaxPatience, c.Patience())
}

// timeless is a connection that knows no deadlines, as those through an SSH tunnel.
type timeless struct{ net.Conn }

var errTimeless = errors.New("deadlines are not supported")

func (timeless) SetDeadline(time.Time) error      { return errTimeless }
func (timeless) SetReadDeadline(time.Time) error  { return errTimeless }
func (timeless) SetWriteDeadline(time.Time) error { return errTimeless }

type tunnel struct{}

func (tunnel) Dial(network, address string) (net.Conn, error) {
	conn, err := net.DialTimeout(network, address, time.Second)
	return timeless{conn}, err
}

func TestDiallerWithoutDeadlines(t *testing.T) {
	t.Parallel()
	c, _ := open(t, func(o *conn.Options) { o.NATS.CustomDialer = tunnel{} }, natstest.RunServer(t).URL())
	require.NoError(t, c.RoundTrip(within(t, time.Minute), "ping", ""))
}

// What a discovery says while nothing can be sent holds when the connection is made anew.
func TestServersChangeInABlackHole(t *testing.T) {
	t.Parallel()
	one, other := natstest.RunServer(t), natstest.RunServer(t)
	proxy := natstest.NewProxy(t, one.URL())
	c, _ := open(t, func(o *conn.Options) {
		o.RequestTimeout = 200 * time.Millisecond
		o.NATS.PingInterval, o.NATS.MaxPingsOut = time.Second, 1 // the least patience
	}, proxy.URL())
	proxy.BlackHole()
	data := bytes.Repeat([]byte("x"), 512<<10)
	for c.Publish(within(t, time.Second), "x", "", nil, data) == nil {
		continue
	}
	require.NoError(t, c.SetServers([]string{other.URL()}))
	require.NoError(t, c.WaitPast(within(t, time.Minute), 1))
	require.Equal(t, other.URL(), c.Server())
}

// Counters are told at once, also at the moment in which a user of nats.go's connection fills the queue, and
// holds its lock from then on.
func TestStatsWhileTheQueueFills(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	stalls, watched := conntest.WatchStalls()
	defer watched()
	for range 3 {
		proxy := natstest.NewProxy(t, s.URL())
		c, _ := open(t, nil, proxy.URL())
		proxy.BlackHole()
		for range 4 {
			go func() {
				for data := make([]byte, 256<<10); c.NATS().Publish("x", data) == nil; {
					continue
				}
			}()
		}
		for until := time.Now().Add(2 * time.Second); time.Now().Before(until); {
			begin := time.Now()
			c.Stats()
			require.Less(t, stalls.Since(begin), time.Second)
		}
		c.Close()
	}
}
