package conn

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lifecycle"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
)

// Options say how to connect.
type Options struct {
	// NATS are nats.go's options, as the configuration and the user make them; see Check. Timeout bounds
	// connecting to one address, from TCP to the server's welcome. MaxReconnect is how often in a row each
	// server is tried; -1 is for ever.
	NATS *natsgo.Options
	// Credentials sets those of this moment. It is called before each connection, on a copy of NATS.
	Credentials func(*natsgo.Options) error
	// ReconnectMaxWait bounds the pauses between rounds over all servers.
	ReconnectMaxWait time.Duration
	// Discovered tells that the servers come from a discovery: the connection is then never given up.
	Discovered bool
	// MaxControlLine is how long a line the servers are known to take.
	MaxControlLine int
	// RequestTimeout is the time of a call that has none of its own.
	RequestTimeout time.Duration
	// Denied is called, from the goroutine that reads and before it goes on, with what the server has
	// denied, see IsDenial, and tells whether somebody hears of it by that: otherwise it is Refused.
	Denied func(error) bool
	// BeforeHandOver is called before nats.go gets a connection and tells its server of the subscriptions.
	BeforeHandOver func()
	// FailWhenDown lets requests fail at once while there is no connection.
	FailWhenDown bool
	// Contain calls a callback of the user's, of that name, and lets no panic out of it.
	Contain func(name string, callback func())
	// Groups are the live subscriptions of queue groups.
	Groups func() []*natsgo.Subscription
	// Life is the client's, which Depart keeps to.
	Life *lifecycle.Life
}

// queueLimit must be above what a reconnect flushes at once, which is done under nats.go's lock.
func (o *Options) queueLimit() int64 { return int64(max(o.NATS.ReconnectBufSize, 0)) + 8<<20 }

// Reports are what happens to a connection. They come in order, one at a time, on a goroutine of their own.
type Reports interface {
	// Up: a connection stands; first is true for the first one, and gap is how long there was none.
	Up(first bool, gap time.Duration)
	// Down: it broke or was left.
	Down(err error)
	// Failed: a server could not be connected to, for a reason that this outage did not have before.
	Failed(err *ServerError)
	// Dropped: a message that waited for the connection was larger than this server allows.
	Dropped(subject string, size int, limit int64)
	// Unsubscribed: a subscription was left out, since its line is longer than the server takes.
	Unsubscribed(subject string, line, limit int)
	// Refused: the server did not take an operation; the connection stands.
	Refused(err error)
	// Stays: the present server is to be left, but no other one stands; the connection goes on trying.
	Stays(d Departure, err error)
	// Closed: the connection is closed for good.
	Closed(err error)
}

// Conn is one connection of nats.go that reconnects for ever, and the one truth about whether it stands.
type Conn struct {
	link
	o        Options
	reports  Reports
	patience time.Duration
	ctx      context.Context // ends when the connection is closed
	cancel   context.CancelFunc
	nc       *natsgo.Conn
	born     chan struct{} // closed when nc is set: upstream asks for servers before

	present  atomic.Pointer[line] // the last one that nats.go got
	gate     gate
	stats    statsMemory
	sent     sentMark
	told     lifecycle.Queue[func()] // reports
	leaving  lifecycle.Queue[func()] // subscriptions that the server is to hear the end of
	users    lifecycle.Queue[func()] // callbacks of the user's
	requests requests

	departing atomic.Pointer[departing] // the last wish to leave a server

	mu      sync.Mutex
	ready   *line    // stands, and waits for nats.go to ask for it
	attempt *attempt // under way
	rounds  int      // that failed in a row

	flaps     int // connections in a row that broke soon
	longLines int // connections in a row that a long line has ended right after the subscriptions were made
	upSince   time.Time
	gap       time.Time // since when nothing is received; zero while connected
	wasUp     bool
	failure   error           // of the last round, while there is no connection
	reasons   map[string]bool // of failures in this outage
	attempts  map[string]int  // that failed in a row, by host
	named     map[string]bool // hosts that were named by the user or a discovery
	demanded  map[string]bool // hosts that never get a word without TLS
	lastName  string          // of the server connected last that had a name, for TLS
}

// New returns a connection that is not made yet.
func New(o Options, r Reports) *Conn {
	c := &Conn{
		o: o, reports: r, born: make(chan struct{}),
		reasons: map[string]bool{}, attempts: map[string]int{}, named: map[string]bool{}, demanded: map[string]bool{},
	}
	for _, q := range []*lifecycle.Queue[func()]{&c.told, &c.leaving, &c.users} {
		q.Whole, q.Handle = true, func(f func(), _ int) {
			if c.isBorn() {
				f()
			}
		}
	}
	c.patience = maxPatience
	if every, most := o.NATS.PingInterval, o.NATS.MaxPingsOut; every > 0 && most < int(maxPatience/every) {
		c.patience = max(minPatience, every*time.Duration(most+1))
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// The pauses between the rounds over all servers until the first connection stands.
const (
	firstPause    = 50 * time.Millisecond
	maxFirstPause = time.Second
)

// Open makes the first connection. It tries all servers in rounds until one lets the client in or ctx ends;
// only what no further round can mend, refused credentials or options or a server without the TLS that is
// demanded, ends it earlier.
func (c *Conn) Open(ctx context.Context, servers func(context.Context) ([]string, error)) error {
	var failure error
	for round := 1; ; round++ {
		urls, err := servers(ctx)
		if err != nil {
			return err
		}
		pool, err := c.name(urls)
		if err != nil {
			return err
		}
		l, failures := c.round(ctx, c.order(pool))
		if l == nil {
			err = roundError(urls, failures)
		} else if err = c.begin(urls, l); err == nil {
			return nil
		}
		if errors.Is(err, fault.ErrAuthorization) || errors.Is(err, fault.ErrInvalidConfig) || errors.Is(err, natsgo.ErrSecureConnWanted) {
			return err
		}
		// A round that was cut short knows less than the one before, and sockets know of a deadline before ctx does.
		deadline, bounded := ctx.Deadline()
		if failure == nil || ctx.Err() == nil && (!bounded || time.Until(deadline) > 0) {
			failure = err
		}
		if !pause.Sleep(ctx, pause.Backoff(round, firstPause, maxFirstPause)) {
			if end := fault.Ended(ctx); errors.Is(end, context.Canceled) && !errors.Is(failure, context.Canceled) {
				return fmt.Errorf("%w; %w", failure, end)
			}
			return failure
		}
	}
}

// OpenInBackground returns at once; State and Wait tell when the connection stands.
func (c *Conn) OpenInBackground(urls []string) error {
	if _, err := c.name(urls); err != nil {
		return err
	}
	return c.begin(urls, nil)
}

// begin makes the connection of nats.go, which asks for a line at once; without one it goes on asking.
func (c *Conn) begin(urls []string, l *line) error {
	o := c.natsOptions(l == nil)
	o.Servers = urls
	if l != nil {
		o.Servers = []string{l.server.url.String()}
		c.ready = l
		if l.websocket != nil {
			setUnder(&o, l.websocket, l.server.tls)
		}
	}
	nc, err := o.Connect()
	if err == nil && len(urls) > len(o.Servers) {
		err = nc.SetServerPool(urls)
	}
	if err != nil {
		kind := fault.Kind(err)
		if kind == nil {
			kind = fault.ErrNotConnected
		}
		return &fault.Error{Op: "connect to", Target: targets(urls), Kind: kind, Cause: err}
	}
	c.nc = nc
	c.requests.init(nc.NewInbox() + ".")
	close(c.born)
	if l != nil {
		l.settling.Store(false) // nothing has waited
		if l.websocket != nil {
			c.welcomed(l)
		}
	}
	go c.confirmSent()
	return nil
}

// NATS returns nats.go's connection.
func (c *Conn) NATS() *natsgo.Conn { return c.nc }

// Server returns the URL of the server of the present connection, or of the last one, without credentials.
func (c *Conn) Server() string {
	if l := c.present.Load(); l != nil {
		return l.shown
	}
	return ""
}

// Peer returns the name of the present server, or of the last one, and how long the way there and back took.
func (c *Conn) Peer() (name string, trip time.Duration) {
	if l := c.present.Load(); l != nil {
		return l.info.Name, l.trip
	}
	return "", 0
}

// TLSConnectionState returns the state of the present connection's TLS.
func (c *Conn) TLSConnectionState() (tls.ConnectionState, error) {
	l := c.present.Load()
	switch {
	case c.IsClosed():
		return tls.ConnectionState{}, fault.New("", "", fault.ErrClosed, "")
	case l == nil || !c.IsUp():
		return tls.ConnectionState{}, fault.New("", "", fault.ErrNotConnected, "")
	}
	if l.websocket != nil { // where TLS is nats.go's, behind its lock
		pass, ok := c.enterNow(0)
		if !ok {
			return tls.ConnectionState{}, cmp.Or(c.Congestion(0), fault.New("", "", fault.ErrNotConnected, ""))
		}
		defer pass.Leave()
		return c.nc.TLSConnectionState()
	}
	if secure, ok := l.Conn.(*tls.Conn); ok {
		return secure.ConnectionState(), nil
	}
	return tls.ConnectionState{}, natsgo.ErrConnectionNotTLS
}

// IsClosed tells whether the connection is closed for good.
func (c *Conn) IsClosed() bool { return c.ctx.Err() != nil }

// IsUp tells whether the connection stands. Unlike State it takes no lock.
func (c *Conn) IsUp() bool { return c.up.Load() }

// WasUp tells whether the connection ever stood.
func (c *Conn) WasUp() bool { return c.present.Load() != nil }

// Info returns what the present server, or the last one, said of itself.
func (c *Conn) Info() natsgo.ServerInfo {
	if l := c.present.Load(); l != nil {
		return l.info
	}
	return natsgo.ServerInfo{}
}

// MaxPayload returns how large a message the present server, or the last one, allows to this user; 0 before the first.
func (c *Conn) MaxPayload() int64 {
	if l := c.present.Load(); l != nil {
		return l.maxPayload.Load()
	}
	return 0
}

// LastError returns why there is no connection, or nil.
func (c *Conn) LastError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure
}

// Since returns since when the connection stands, or stood, and since when there is none.
func (c *Conn) Since() (up, down time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.upSince, c.gap
}

// isBorn waits until nc is set, and is false when it never will be.
func (c *Conn) isBorn() bool {
	select {
	case <-c.born:
		return true
	case <-c.ctx.Done():
	}
	select {
	case <-c.born:
		return true
	default:
		return false
	}
}

// Close closes the connection and returns when nothing of it is left but, for a moment, what is being sent.
func (c *Conn) Close() {
	c.cancel()
	if l := c.present.Load(); l != nil && (l.queue.n.Load() >= roomLimit || l.websocket != nil && !c.IsUp()) {
		l.fail(errClosed) // somebody may be holding nats.go's lock until there is room, or its handshake is over
	}
	if c.nc != nil {
		c.nc.Close()
	}
	c.close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ready != nil {
		c.ready.discard()
		c.ready = nil
	}
}
