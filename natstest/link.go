package natstest

import (
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	bufferSize = 32 << 10
	// What one direction of a link holds back: enough for a delay not to limit the throughput of a
	// test, and a bound for what a black hole swallows. Beyond it the sender's writes block.
	maxQueued = 4 << 20
	maxChunks = 1 << 12
	// A throttled link writes at least this often, so that a slow one is slow, not bursty.
	throttleStep = 20 * time.Millisecond
)

// link is one client's connection through a proxy.
type link struct {
	proxy  *Proxy
	client *net.TCPConn
	ctx    context.Context // done when the link is closed
	cancel context.CancelFunc

	mu     sync.Mutex
	server *net.TCPConn // nil until dialed
	closed bool
}

func newLink(p *Proxy, client *net.TCPConn) *link {
	l := &link{proxy: p, client: client}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// run connects to the server and forwards until one side ends or the link is closed.
func (l *link) run() {
	conn, err := (&net.Dialer{Timeout: startTimeout}).DialContext(l.ctx, "tcp", l.proxy.target)
	if err != nil {
		// To the client it is as if the server's port had refused it, once it may learn of it.
		l.await(time.Now(), time.Time{})
		l.reset()
		return
	}
	if !l.attach(conn.(*net.TCPConn)) {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { l.pipe(l.client, l.server) })
	wg.Go(func() { l.pipe(l.server, l.client) })
	wg.Wait()
}

// attach adds the connection to the server, unless the link was closed meanwhile.
func (l *link) attach(server *net.TCPConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = server.Close()
		return false
	}
	l.server = server
	return true
}

// reset closes both connections so that the peers see a reset, and nothing queued is delivered.
func (l *link) reset() { l.close(true) }

func (l *link) close(reset bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	l.cancel()
	for _, c := range []*net.TCPConn{l.client, l.server} {
		if c == nil {
			continue
		}
		if reset {
			_ = c.SetLinger(0)
		}
		_ = c.Close()
	}
}

// queue is what one direction of a link holds back.
type queue struct {
	chunks chan chunk
	bytes  atomic.Int64
	room   chan struct{} // a hint that bytes went down
}

// chunk is what one read returned; without data it is the end of the stream.
type chunk struct {
	data []byte
	read time.Time
}

// pipe forwards one direction and closes the link at its end. NATS never closes half a connection,
// so the end of one direction is that of both.
func (l *link) pipe(src, dst *net.TCPConn) {
	q := &queue{chunks: make(chan chunk, maxChunks), room: make(chan struct{}, 1)}
	var wg sync.WaitGroup
	wg.Go(func() { l.read(src, q) })
	l.write(dst, q)
	l.close(false)
	wg.Wait()
}

func (l *link) read(src *net.TCPConn, q *queue) {
	buf := make([]byte, bufferSize)
	for {
		n, err := src.Read(buf)
		if n > 0 && !l.push(q, chunk{data: bytes.Clone(buf[:n]), read: time.Now()}) {
			return
		}
		if err != nil {
			l.push(q, chunk{read: time.Now()})
			return
		}
	}
}

// push waits for room in the queue; it is false when the link is closed.
func (l *link) push(q *queue, c chunk) bool {
	for q.bytes.Load() > maxQueued {
		select {
		case <-q.room:
		case <-l.ctx.Done():
			return false
		}
	}
	q.bytes.Add(int64(len(c.data)))
	select {
	case q.chunks <- c:
		return true
	case <-l.ctx.Done():
		return false
	}
}

// write delivers the queue until the stream ends, a write fails, or the link is closed.
func (l *link) write(dst *net.TCPConn, q *queue) {
	var next time.Time // when the throttle allows the next byte
	for {
		var c chunk
		select {
		case c = <-q.chunks:
		case <-l.ctx.Done():
			return
		}
		for rest := c.data; ; {
			rate, ok := l.await(c.read, next)
			if !ok || len(c.data) == 0 {
				return
			}
			n := len(rest)
			if rate > 0 {
				n = min(n, max(1, int(int64(rate)*int64(throttleStep)/int64(time.Second))))
				next = time.Now().Add(time.Duration(n) * time.Second / time.Duration(rate))
			}
			if _, err := dst.Write(rest[:n]); err != nil {
				return
			}
			if rest = rest[n:]; len(rest) == 0 {
				break
			}
		}
		q.bytes.Add(-int64(len(c.data)))
		select {
		case q.room <- struct{}{}:
		default:
		}
	}
}

// await waits until the proxy's faults let data of that age through, and returns the rate to write at.
// It is false when the link is closed.
func (l *link) await(read, next time.Time) (rate int, ok bool) {
	for {
		f, changed := l.proxy.current()
		var timer <-chan time.Time // never, in a black hole
		if !f.blackHole {
			wait := time.Until(read.Add(f.delay))
			if f.rate > 0 {
				wait = max(wait, time.Until(next))
			}
			if wait <= 0 {
				return f.rate, true
			}
			timer = time.After(wait)
		}
		select {
		case <-timer:
		case <-changed:
		case <-l.ctx.Done():
			return 0, false
		}
	}
}
