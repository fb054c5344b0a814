package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
)

const (
	firstPort = 10000
	lastPort  = 32767
)

// ports are those that this process has leased.
var ports = struct {
	sync.Mutex
	taken map[int]bool
}{taken: map[int]bool{}}

// Lease returns a port that nobody listens on and that nobody else in this process gets until it is released. Another
// process can still be faster; then listening fails, and the caller tries another port.
func Lease() (int, error) {
	// Other test binaries draw from the same range at the same time, so no fixed order.
	offset := rand.IntN(lastPort - firstPort + 1)
	for i := range lastPort - firstPort + 1 {
		port := firstPort + (offset+i)%(lastPort-firstPort+1)
		if !take(port) {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			_ = l.Close()
			return port, nil
		}
		Release(port)
	}
	return 0, fmt.Errorf("no free port from %d to %d on 127.0.0.1", firstPort, lastPort)
}

func take(port int) bool {
	ports.Lock()
	defer ports.Unlock()
	if ports.taken[port] {
		return false
	}
	ports.taken[port] = true
	return true
}

// Release gives a port back.
func Release(port int) {
	ports.Lock()
	defer ports.Unlock()
	delete(ports.taken, port)
}

// For leases n ports until the test ends.
func For(tb testing.TB, n int) []int {
	tb.Helper()
	leased := make([]int, n)
	for i := range leased {
		port, err := Lease()
		if err != nil {
			tb.Fatal(err)
		}
		leased[i] = port
		tb.Cleanup(func() { Release(port) })
	}
	return leased
}
