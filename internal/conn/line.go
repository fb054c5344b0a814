package conn

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// lingerFor bounds how long a closed line goes on sending what it holds.
const lingerFor = 500 * time.Millisecond

// readOnFor bounds how long a line to which nothing can be written is read.
const readOnFor = 250 * time.Millisecond

// errClosed is why a line ends that was closed on this side.
var errClosed = errors.New("closed by the client")

// line is a connection to a server that has let the client in, as nats.go gets it: what is written is
// queued, and what is read is followed for errors. Nats.go's part of the handshake is answered here.
type line struct {
	net.Conn // plain or TLS
	tcp      *patient
	server   server
	shown    string // the server's URL, without credentials
	info     natsgo.ServerInfo
	trip     time.Duration // to the server and back
	queue    *queue
	reader   reader

	maxPayload atomic.Int64 // what info said of it, or the server since: it knows a user's limits when he is let in
	welcome    [][]byte     // the server's lines of the handshake; the reader's alone

	websocket *natsgo.Options // with which nats.go shakes hands itself; nil elsewhere
	upped     sync.Once       // the end of that

	greeting atomic.Bool // nats.go is at its own part of the handshake
	settling atomic.Bool // it sends what has waited for the connection
	hooks    lineHooks

	lineLimit int // of subscriptions, longer ones of which are left out; 0 is none

	anewMu sync.Mutex
	anew   []operation // the subscriptions that are made anew, until the server has answered to all

	reads  atomic.Uint64
	failed sync.Once
	downed sync.Once
	reason atomic.Pointer[error]
	ended  chan struct{} // closed when nothing more is sent
	last   []byte        // what was sent last; once ended is closed
}

// lineHooks are called on goroutines of nats.go, some with its lock held: they neither wait nor call it.
type lineHooks struct {
	up      func(*line)
	down    func(*line, error)
	dropped func(o operation)
}

func (l *line) start(hooks lineHooks) {
	l.hooks = hooks
	l.ended = make(chan struct{})
	l.greeting.Store(l.websocket == nil)
	l.settling.Store(l.websocket == nil)
	go l.send()
}

// send is the line's goroutine. It ends when the line has.
func (l *line) send() {
	last, err := l.queue.send(l.Conn)
	if err == nil { // closed, with everything sent
		if secure, ok := l.Conn.(*tls.Conn); ok {
			_ = secure.CloseWrite()
		}
		l.fail(errClosed)
	} else {
		l.failWriting(err)
	}
	l.last = last
	close(l.ended)
}

// failWriting ends the line when what has arrived is read: a server that goes may have answered before.
func (l *line) failWriting(err error) {
	l.reason.CompareAndSwap(nil, &err)
	l.queue.fail(err)
	_ = l.tcp.SetReadDeadline(time.Now().Add(readOnFor)) // the reader comes to its end at once where the peer is gone
	time.AfterFunc(readOnFor, func() { l.fail(err) })
}

// fail ends the line at once.
func (l *line) fail(err error) {
	l.failed.Do(func() {
		l.reason.CompareAndSwap(nil, &err)
		l.queue.fail(err)
		_ = l.tcp.Close()
	})
}

// because returns why the line ended.
func (l *line) because(otherwise error) error {
	if err := l.reason.Load(); err != nil {
		return *err
	}
	return otherwise
}

// Read implements net.Conn. First come the server's lines of the handshake.
func (l *line) Read(p []byte) (int, error) {
	if len(l.welcome) > 0 {
		if len(l.welcome) == 1 && l.greeting.Load() {
			return 0, io.ErrNoProgress // it waits for the PONG and has sent no PING
		}
		n := copy(p, l.welcome[0])
		if l.welcome = l.welcome[1:]; len(l.welcome) == 0 {
			l.hooks.up(l)
		}
		return n, nil
	}
	read := l.reader.Read
	if l.websocket != nil {
		read = l.tcp.Read // in frames
	}
	n, err := read(p)
	if n > 0 {
		l.reads.Add(1)
		return n, nil // nats.go would drop it for the error beside it, which comes again
	}
	if err != nil {
		err = l.end(err)
	}
	return 0, err
}

// end ends the line for an error of reading, and says what is known of its cause.
func (l *line) end(err error) error {
	l.fail(err)
	<-l.ended
	err = l.because(err)
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		// A server that ends a connection for what it was sent says so, but the reset may be faster.
		if o, ok := lastMessage(l.last); ok {
			err = fmt.Errorf("%w (sent last: %s)", err, o)
		}
	}
	l.hangUp(err)
	return err
}

// hangUp tells once that the line is down.
func (l *line) hangUp(err error) { l.downed.Do(func() { l.hooks.down(l, err) }) }

// Write implements net.Conn. It waits only where somebody fills the queue over its limit.
func (l *line) Write(p []byte) (int, error) {
	whole := len(p)
	switch {
	case l.greeting.Load(): // nats.go's CONNECT, and its PING
		l.greeting.Store(!bytes.HasSuffix(p, []byte("PING\r\n")))
		return whole, nil
	case l.settling.Load():
		var settled bool
		p, settled = l.withoutOversized(p)
		l.settling.Store(!settled)
	}
	if err := l.queue.write(p); err != nil {
		return 0, fault.Joined{fault.ErrConnectionLost, l.because(err)}
	}
	return whole, nil
}

// withoutOversized takes out of p what was published without knowing this server, and what the server
// would end the connection for. What waited for the connection ends with a PING.
func (l *line) withoutOversized(p []byte) (rest []byte, settled bool) {
	kept, most := 0, l.maxPayload.Load() // all before kept is in rest
	for i := 0; i < len(p); {
		o, ok := nextOperation(p[i:])
		if !ok {
			break
		}
		settled = settled || o.verb == "PING"
		tooLarge := most > 0 && int64(o.payload) > most
		if tooLarge || o.verb == "SUB" && l.lineLimit > 0 && o.line > l.lineLimit {
			rest = append(rest, p[kept:i]...)
			kept = i + o.size
			l.hooks.dropped(o)
		} else if o.verb == "SUB" {
			l.anewMu.Lock()
			l.anew = append(l.anew, o)
			l.anewMu.Unlock()
		}
		i += o.size
	}
	if kept == 0 {
		return p, settled
	}
	return append(rest, p[kept:]...), settled
}

// ponged is called when the server has answered a PING, and all before it.
func (l *line) ponged() {
	l.anewMu.Lock()
	defer l.anewMu.Unlock()
	l.anew = nil
}

// roomless names the subscription that the server had no room for, if it was made anew: from the first such one on
// it has none for any, and tells of each.
func (l *line) roomless(err error) error {
	l.anewMu.Lock()
	defer l.anewMu.Unlock()
	last := len(l.anew) - 1
	if last < 0 {
		return err
	}
	o := l.anew[last]
	l.anew = l.anew[:last]
	return fault.Roomless(err, o.subject, o.queue)
}

// Close implements net.Conn. It does not wait, since nats.go holds its lock: what is queued goes on being
// sent for a short while.
func (l *line) Close() error {
	reason := errClosed
	l.reason.CompareAndSwap(nil, &reason)
	l.hangUp(l.because(nil))
	l.tcp.hurry.Store(true)
	l.queue.end()
	_ = l.tcp.SetReadDeadline(time.Unix(1, 0)) // wakes the reader
	time.AfterFunc(lingerFor, func() { l.fail(errClosed) })
	return nil
}

// SetDeadline implements net.Conn. Nats.go's deadlines are for a handshake that is over.
func (l *line) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn, as SetDeadline does.
func (l *line) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn, as SetDeadline does.
func (l *line) SetWriteDeadline(time.Time) error { return nil }

// watch ends the line when more than most pings in a row are unanswered; nats.go sends one every interval.
// Those that have not left the queue do not count: a slow line is not dead.
func (l *line) watch(ctx context.Context, interval time.Duration, most int) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	missed, reads := 0, l.reads.Load()
	for {
		select {
		case <-tick.C:
		case <-l.ended:
			return
		case <-ctx.Done():
			return
		}
		switch now := l.reads.Load(); {
		case now != reads:
			missed, reads = 0, now
		case l.queue.n.Load() == 0:
			missed++
		}
		if missed > most || l.tcp.stalled() >= l.tcp.patience { // the writer knows it first, if there are deadlines
			l.fail(natsgo.ErrStaleConnection)
			return
		}
	}
}
