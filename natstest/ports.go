package natstest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// Servers get their ports from below the range that systems hand out to outgoing connections
// (from 32768 on Linux, from 49152 elsewhere). A port from that range could be taken by any
// connection of any process while its server is stopped, and the restart would fail.
const (
	firstPort = 10000
	lastPort  = 32767
)

// ports are the ports that servers of this process own, running or stopped.
var ports = struct {
	sync.Mutex
	taken map[int]bool
}{taken: map[int]bool{}}

// leasePort returns a port that nobody listens on and that no other server of this process gets
// until it is released. Another process can still be faster; then the server's start fails with an
// error that isPortTaken recognizes, and the caller tries another port.
func leasePort() (int, error) {
	// Other test binaries draw from the same range at the same time, so no fixed order.
	offset := rand.IntN(lastPort - firstPort + 1)
	for i := range lastPort - firstPort + 1 {
		port := firstPort + (offset+i)%(lastPort-firstPort+1)
		if !takePort(port) {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			_ = l.Close()
			return port, nil
		}
		releasePort(port)
	}
	return 0, fmt.Errorf("no free port from %d to %d on 127.0.0.1", firstPort, lastPort)
}

func takePort(port int) bool {
	ports.Lock()
	defer ports.Unlock()
	if ports.taken[port] {
		return false
	}
	ports.taken[port] = true
	return true
}

func releasePort(port int) {
	ports.Lock()
	defer ports.Unlock()
	delete(ports.taken, port)
}

// isPortTaken reports whether a start failed because the server could not listen.
func isPortTaken(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "listen"
}
