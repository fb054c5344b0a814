package nats_test

import (
	"context"
	"net"
	"sync/atomic"
	"syscall"
	"testing"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// lateReader dials connections whose bytes have arrived some time before they are read, as on a busy machine, and to
// which nothing can be written any more once they are broken.
type lateReader struct {
	late, broken atomic.Bool
	arrived      chan struct{}
	read         chan struct{}
}

func (d *lateReader) Dial(network, address string) (net.Conn, error) {
	c, err := net.Dial(network, address)
	return &lateConn{Conn: c, dialer: d}, err
}

type lateConn struct {
	net.Conn
	dialer *lateReader
	closed atomic.Bool
}

func (c *lateConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == nil && c.dialer.late.CompareAndSwap(true, false) {
		close(c.dialer.arrived)
		<-c.dialer.read
	}
	if c.closed.Load() {
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *lateConn) Write(p []byte) (int, error) {
	if c.dialer.broken.CompareAndSwap(true, false) {
		return 0, syscall.EPIPE
	}
	return c.Conn.Write(p)
}

func (c *lateConn) Close() error {
	c.closed.Store(true)
	return c.Conn.Close()
}

// An answer that has reached the socket is delivered, although the connection is found broken before it is read.
func TestRequestAnsweredBeforeTheBreak(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	d := &lateReader{arrived: make(chan struct{}), read: make(chan struct{})}
	client, service := connect(t, s, nil, nats.WithNATSOptions(natsgo.SetCustomDialer(d))), connect(t, s, nil)
	ctx := context.Background()
	_, err := client.Request(ctx, "nobody", nil, patience)
	require.ErrorIs(t, err, nats.ErrNoResponders)
	_, err = service.HandleRequests(ctx, "service", "", func(*nats.Message) ([]byte, error) {
		d.late.Store(true)
		return []byte("answer"), nil
	})
	require.NoError(t, err)
	disconnects := client.Stats().Reconnects
	answered := make(chan error, 1)
	go func() {
		answer, err := client.Request(ctx, "service", nil, patience)
		if err == nil {
			assert.Equal(t, "answer", string(answer.Data))
		}
		answered <- err
	}()
	<-d.arrived
	d.broken.Store(true)
	require.NoError(t, client.Publish(ctx, "x", nil))
	eventually(t, "the write fails", func() bool { return !d.broken.Load() })
	close(d.read)
	require.NoError(t, <-answered)
	eventually(t, "it reconnects", func() bool { return client.Stats().Reconnects > disconnects && client.IsConnected() })
}
