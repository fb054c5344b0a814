package conntest

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

// Serve accepts connections, one after the other, until the test ends, and hands each to serve. It returns where.
func Serve(tb testing.TB, serve func(net.Conn)) (address string) {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serve(conn)
		}
	}()
	tb.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return l.Addr().String()
}
