package natstest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// How long an attempt to connect to a host that answers at all can take on a busy machine.
const fillTimeout = 250 * time.Millisecond

// SilentServer returns the URL of a server that accepts connections, sends the greeting, which may be
// empty, and never says another word: a frozen server, or a balancer in front of a dead one. A NATS
// server's greeting is a line "INFO {...}\r\n". It stops when the test ends.
//
// SilentServer fails the test when it cannot listen.
func SilentServer(tb testing.TB, greeting string) string {
	tb.Helper()
	l := listen(tb)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			switch {
			case errors.Is(err, net.ErrClosed):
				return
			case err != nil: // out of file descriptors: the next may work
				time.Sleep(pollInterval)
				continue
			}
			wg.Go(func() {
				defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
				defer func() { _ = conn.Close() }()
				_, _ = io.WriteString(conn, greeting)
				_, _ = io.Copy(io.Discard, conn)
			})
		}
	})
	tb.Cleanup(func() {
		cancel()
		_ = l.Close()
		wg.Wait()
	})
	return "nats://" + l.Addr().String()
}

// DeadHost returns the URL of a host that answers no packet: an attempt to connect ends neither in a
// connection nor in a refusal, as with a machine that is switched off behind a router that stays
// silent. It works on Unix systems and takes a quarter of a second.
//
// DeadHost fails the test when the system does not do that.
func DeadHost(tb testing.TB) string {
	tb.Helper()
	l := listen(tb)
	tb.Cleanup(func() { _ = l.Close() })
	// Nobody accepts, and the system drops what comes when the backlog is full.
	if err := shrinkBacklog(l); err != nil {
		tb.Fatalf("natstest: the backlog of a dead host: %v", err)
	}
	const most = 64 // a system may round the backlog up
	for range most {
		conn, err := net.DialTimeout("tcp", l.Addr().String(), fillTimeout)
		if err != nil {
			if timeout := net.Error(nil); !errors.As(err, &timeout) || !timeout.Timeout() {
				tb.Fatalf("natstest: a dead host refuses connections: %v", err)
			}
			return "nats://" + l.Addr().String()
		}
		tb.Cleanup(func() { _ = conn.Close() })
	}
	tb.Fatalf("natstest: a dead host took %d connections", most)
	return ""
}

func listen(tb testing.TB) *net.TCPListener {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("natstest: cannot listen: %v", err)
	}
	return l.(*net.TCPListener)
}
