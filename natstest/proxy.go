package natstest

import (
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Proxy is a TCP proxy between clients and a server, which can break the connections in several ways.
// Faults add up: a delayed proxy may be throttled as well. They hold for the connections that are
// open and for those to come, from the call on until [Proxy.Restore]. All methods may be called from
// several goroutines, and none fails the test.
//
// A server of a cluster tells its clients the addresses of all servers, and a client that reconnects
// goes past the proxy to one of them. To keep it on the proxy, use nats.go's IgnoreDiscoveredServers,
// or set Cluster.NoAdvertise of the servers with [WithConfig].
type Proxy struct {
	listener net.Listener
	target   string // host:port
	url      string
	wg       sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	faults  faults
	changed chan struct{} // closed and replaced when faults change
	links   map[*link]struct{}
}

// faults are what a proxy does to its connections; the zero value is none.
type faults struct {
	cut       bool
	blackHole bool
	delay     time.Duration
	rate      int // bytes per second, 0 for unlimited
}

// NewProxy starts a proxy on a free port of 127.0.0.1 that connects its clients to target, a URL as
// [Server.URL] returns it, or host:port. It need not be up yet. The proxy stops when the test ends.
//
// NewProxy fails the test when target is not an address.
func NewProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	// The proxy's URL is the target's with another host, so that scheme and credentials stay.
	raw := target
	if !strings.Contains(raw, "://") {
		raw = "nats://" + raw
	}
	u, err := url.Parse(raw)
	if err != nil || u.Hostname() == "" || u.Port() == "" {
		// Not the target itself, nor the parser's error: both can hold a password.
		tb.Fatalf("natstest: the target of a proxy must be a URL with host and port, or host:port")
	}
	l := listen(tb)
	p := &Proxy{
		listener: l,
		target:   u.Host,
		changed:  make(chan struct{}),
		links:    make(map[*link]struct{}),
	}
	u.Host = l.Addr().String()
	p.url = u.String()
	p.wg.Go(p.accept)
	tb.Cleanup(p.close)
	return p
}

// URL returns the address for clients: the target's URL with the proxy's host and port in it.
func (p *Proxy) URL() string { return p.url }

// Cut resets every connection, and resets new ones as soon as they are made. What was on its way is
// lost, in both directions. The sockets of the proxy are closed when Cut returns.
func (p *Proxy) Cut() {
	p.set(func(f *faults) { f.cut = true })
	for _, l := range p.open() {
		l.reset()
	}
}

// BlackHole keeps connections open and accepts new ones, but forwards nothing, not even that the other
// end has closed: what a client sees when the network drops all packets. After [Proxy.Restore]
// what was held goes on its way, as after a network's recovery. At a few megabytes for each direction
// of a connection the sender's writes block.
func (p *Proxy) BlackHole() { p.set(func(f *faults) { f.blackHole = true }) }

// Delay holds everything back for d in each direction, so a round trip takes 2d longer. It does not
// limit the throughput. Zero or less ends the delay.
func (p *Proxy) Delay(d time.Duration) { p.set(func(f *faults) { f.delay = max(d, 0) }) }

// Throttle limits each connection to this many bytes per second in each direction.
// Zero or less ends the limit.
func (p *Proxy) Throttle(bytesPerSecond int) {
	p.set(func(f *faults) { f.rate = max(bytesPerSecond, 0) })
}

// Restore ends all faults. Connections that were cut stay so; the client has to make new ones.
func (p *Proxy) Restore() { p.set(func(f *faults) { *f = faults{} }) }

func (p *Proxy) set(change func(*faults)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(&p.faults)
	close(p.changed)
	p.changed = make(chan struct{})
}

// current returns the faults and a channel that is closed when they change.
func (p *Proxy) current() (faults, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults, p.changed
}

func (p *Proxy) open() []*link {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Collect(maps.Keys(p.links))
}

func (p *Proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			p.mu.Lock()
			closed := p.closed
			p.mu.Unlock()
			if closed {
				return
			}
			// Out of file descriptors, or a client that was gone again: the next may work.
			time.Sleep(pollInterval)
			continue
		}
		l := newLink(p, conn.(*net.TCPConn))
		if !p.add(l) {
			l.reset()
			continue
		}
		p.wg.Go(func() {
			defer p.remove(l)
			l.run()
		})
	}
}

// add registers the link, under the same lock as Cut sets the fault, so that Cut misses none.
func (p *Proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.faults.cut {
		return false
	}
	p.links[l] = struct{}{}
	return true
}

func (p *Proxy) remove(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.listener.Close()
	for _, l := range p.open() {
		l.reset()
	}
	p.wg.Wait()
}
