package nats

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/discovery"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lifecycle"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/receive"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

// Client is a connection to a NATS cluster and everything done over it. It is made by NewClient,
// is safe for concurrent use, and reconnects by itself until Close. One Client per process is
// usually enough: it multiplexes all subscriptions and requests over one connection.
type Client struct {
	// What holds secrets is a pointer: fmt prints the fields of a *Client that stands in an unexported field
	// of another struct.
	cfg    *Config
	opts   options
	log    *slog.Logger
	events eventQueue
	link   link

	nc          *natsgo.Conn
	established atomic.Pointer[natsgo.Conn] // nc, for the dialer
	ready       chan struct{}               // closed when nc is set: upstream's callbacks may come earlier
	dialer      dialer
	tls         *tlsFiles
	js          jetstream.JetStream // nil when JetStream is not enabled
	jsPrefix    string              // of the subjects of the JetStream API, with the dot at its end
	replies     *replyMux
	subs        *receive.Engine
	denials     denials
	userError   atomic.Pointer[natsgo.ErrHandler] // of WithNATSOptions
	msgIDs      idSource
	finder      streamFinder
	ackWaits    ackWaits
	async       *asyncPublisher // nil when JetStream is not enabled

	resolver  Resolver // nil when there is no discovery
	watching  bool     // the resolver tells of changes
	servers   *discovery.Servers
	departure atomic.Pointer[departure]     // the last wish to leave a server
	gap       atomic.Pointer[time.Time]     // since when nothing is received
	server    atomic.Pointer[string]        // the URL of the present server
	gate      atomic.Pointer[chan struct{}] // closed to publishers while not nil
	outage    outage
	sent      sentMark

	life    *lifecycle.Life // received messages and background work hang on its context
	pulled  *origin         // of the answers to requests
	failing bool            // publish_when_disconnected: fail

	mu           sync.Mutex
	consumptions map[*Consumption]struct{}
}

// NewClient connects to the servers that cfg names and returns the client, or an error that says
// what to mend. It tries all servers again and again, so that services and servers may start in any
// order, for at most Config.Timeout; see WithBackgroundConnect for not waiting at all. The errors
// are ErrInvalidConfig for a Config that cannot work, ErrNotConnected, with each server's reason,
// when none answers in time, and, at once, ErrAuthorization when one refuses the credentials. It
// neither changes nor keeps cfg.
func NewClient(cfg *Config, opts ...Option) (*Client, error) {
	return NewClientContext(context.Background(), cfg, opts...)
}

// NewClientContext is NewClient bounded by ctx as well. The context only bounds connecting; the
// client outlives it.
func NewClientContext(ctx context.Context, cfg *Config, opts ...Option) (*Client, error) {
	switch {
	case ctx == nil:
		return nil, errNilContext("new client", "")
	case cfg == nil:
		return nil, fail("new client", "", ErrInvalidConfig, "the Config is nil; DefaultConfig returns one to start from")
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	c := newClient(cfg, opts)
	defer close(c.ready)
	if err := c.start(ctx); err != nil {
		c.life.End()
		return nil, err
	}
	return c, nil
}

// newClient puts together what needs no connection.
func newClient(cfg *Config, opts []Option) *Client {
	own := cfg.withDefaults()
	c := &Client{
		cfg:          &own,
		opts:         options{log: slog.New(slog.DiscardHandler)},
		ready:        make(chan struct{}),
		life:         lifecycle.New(),
		servers:      new(discovery.Servers),
		consumptions: make(map[*Consumption]struct{}),
	}
	for _, opt := range opts {
		if opt != nil {
			opt(&c.opts)
		}
	}
	c.log = c.opts.log
	if handle := c.opts.onEvent; handle != nil {
		c.events.handler = func(e Event) { c.contain("WithEventHandler", func() { handle(e) }) }
	}
	c.failing = c.cfg.PublishWhenDisconnected == whenDisconnectedFail
	c.pulled = &origin{client: c, ctx: c.life.Context()}
	c.subs = receive.New(receiving{c}, receiving{c})
	c.dialer.client = c
	c.tls = &tlsFiles{cert: own.TLSCert, key: own.TLSKey, ca: own.TLSCA, warn: c.log.Warn}
	return c
}

// start connects and starts what runs beside the calls. All of it ends with the client's life.
func (c *Client) start(ctx context.Context) error {
	if err := c.setupResolver(); err != nil {
		return err
	}
	if c.opts.background {
		c.servers.FallBack(c.cfg.URLs)
		if err := c.connectInBackground(c.cfg.URLs); err != nil {
			return err
		}
		go c.watchOutage()
	} else {
		ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
		defer cancel()
		if err := c.connect(ctx); err != nil {
			return err
		}
	}
	c.established.Store(c.nc)
	c.replies = newReplyMux(c.nc)
	if err := c.setupJetStream(); err != nil {
		c.nc.Close()
		return err
	}
	if c.resolver != nil && (c.watching || c.opts.background) {
		go c.follow()
	}
	if c.cfg.TLSReload > 0 {
		go c.reloadTLS()
	}
	go c.confirmSent()
	if !c.opts.background {
		c.log.Info("connected to NATS", "server", serverurl.Redact(c.serverURL()), "name", c.name())
		c.emit(Event{Type: EventConnected})
	}
	return nil
}

// Ping makes a round trip to the server. Without a deadline in ctx, Config.RequestTimeout applies.
// It returns ErrNotConnected when no connection stands by then.
func (c *Client) Ping(ctx context.Context) error { return c.roundTrip(ctx, "ping", "") }

// Flush returns when everything published so far has reached the server. Without a deadline in
// ctx, Config.RequestTimeout applies. It returns ErrNotConnected when no connection stands by then,
// and ErrPermission, once, when the server has denied a publish: the last one is named.
func (c *Client) Flush(ctx context.Context) error {
	if err := c.confirmed(ctx, "flush", ""); err != nil {
		return err
	}
	return c.deniedPublish()
}

// IsConnected tells whether a connection to a server stands at this moment.
func (c *Client) IsConnected() bool {
	up, _, _ := c.link.state()
	return up
}

// Config returns a copy of the configuration in force, with the defaults filled in and every
// secret blanked.
func (c *Client) Config() Config { return c.cfg.redacted() }

// String returns the connection's name.
func (c *Client) String() string { return "nats.Client(" + c.name() + ")" }

// GoString is String: the fields would be read while they change.
func (c *Client) GoString() string { return c.String() }

// Format prints String for every verb.
func (c *Client) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, c.String()) }

// Conn returns the connection of nats.go, for what this package does not cover, such as micro
// services: Close waits for their handlers, too. Closing it closes the client without its care.
func (c *Client) Conn() *natsgo.Conn { return c.nc }

// JetStream returns upstream's JetStream handle on the same connection, or nil when
// Config.JetStreamEnabled is false.
func (c *Client) JetStream() jetstream.JetStream { return c.js }

// Stats are counters of a client. Those of a connection start at its first connect and go on over
// reconnects.
type Stats struct {
	natsgo.Statistics
	// Subscriptions that have not ended.
	Subscriptions int
	// Pending messages have been received and wait for their handlers.
	Pending int
	// Dropped messages were received and thrown away because handlers were too slow.
	Dropped uint64
	// InFlight handlers are running.
	InFlight int
	// Buffered bytes are published and not yet on their way to a server.
	Buffered int
	// Unconfirmed bytes of payload and headers are published and, as far as the client knows, not
	// yet received by a server: what an outage at this moment could cost at most. A round trip
	// every second keeps it small.
	Unconfirmed uint64
	// ConnectError is why the last attempt to reconnect failed; nil while connected.
	ConnectError error
	// ServersUpdated is when discovery last named the servers; zero while the configured URLs are
	// used.
	ServersUpdated time.Time
}

// Stats returns the client's counters.
func (c *Client) Stats() Stats {
	s := Stats{Statistics: c.nc.Stats(), Dropped: c.subs.Dropped(), ConnectError: c.outage.lastError()}
	_, s.ServersUpdated = c.servers.Get()
	s.Unconfirmed = c.sent.unconfirmed(s.Statistics)
	if n, err := c.nc.Buffered(); err == nil {
		s.Buffered = n
	}
	for _, sub := range c.subs.All() {
		one := sub.Stats()
		s.Subscriptions++
		s.Pending += one.Pending
		s.Dropped += one.Dropped
		s.InFlight += one.InFlight
	}
	for _, consumption := range c.runningConsumptions() {
		one := consumption.Stats()
		s.Pending += one.Ready
		s.InFlight += one.InFlight
	}
	return s
}

// deadline gives ctx the configured default when it has none.
func (c *Client) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, c.cfg.RequestTimeout)
}

// awaitConnection waits for the connection: upstream would keep what is sent for later and answer
// with a timeout. Before the first connection of a client that connects in the background only ctx
// bounds the wait.
func (c *Client) awaitConnection(ctx context.Context, op, target string) error {
	up, breaks, _ := c.link.state()
	switch {
	case up:
		return nil
	case c.nc.IsClosed():
		return fail(op, target, ErrClosed, "")
	case c.failing:
		return c.refused(op, target)
	case breaks > 0:
		var cancel context.CancelFunc
		ctx, cancel = c.deadline(ctx)
		defer cancel()
	}
	if err := c.link.wait(ctx); err != nil {
		return c.unreachable(ctx, op, target, err)
	}
	return nil
}

// refused is the error of what publish_when_disconnected forbids.
func (c *Client) refused(op, target string) error {
	return fail(op, target, ErrNotConnected, "publish_when_disconnected is %q", whenDisconnectedFail)
}

// roundTrip waits for the connection and for a PONG that follows everything sent before. When the
// connection breaks meanwhile it tries again on the next one.
func (c *Client) roundTrip(ctx context.Context, op, target string) error {
	if ctx == nil {
		return errNilContext(op, target)
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	for {
		if err := c.link.wait(ctx); err != nil {
			return c.unreachable(ctx, op, target, err)
		}
		_, breaks, change := c.link.state()
		sent := c.nc.Stats()
		err := c.nc.FlushWithContext(ctx)
		switch {
		case err == nil:
			c.sent.confirm(sent)
			return nil
		case c.nc.IsClosed():
			return fail(op, target, ErrClosed, "")
		case ctx.Err() != nil:
			if _, now, _ := c.link.state(); now != breaks {
				return c.unreachable(ctx, op, target, ErrNotConnected)
			}
			return wrap(op, target, err)
		}
		// The connection broke under the flush; the link hears of it soon after.
		select {
		case <-change:
		case <-ctx.Done():
		}
	}
}

// unreachable adds to err what is known of the connection and of ctx.
func (c *Client) unreachable(ctx context.Context, op, target string, err error) error {
	cause := c.nc.LastError()
	if ctx.Err() != nil {
		cause = context.Cause(ctx)
	}
	return &fault.Error{Op: op, Target: target, Kind: err, Cause: cause}
}

func errNilContext(op, target string) error {
	return fail(op, target, ErrInvalidArgument, "the context is nil")
}

// noteServer remembers the server at the moment of the connection: after a change of the pool
// upstream names one that it is not connected to.
func (c *Client) noteServer() {
	server := c.nc.ConnectedUrl()
	c.server.Store(&server)
}

// serverURL returns the URL of the present or last server.
func (c *Client) serverURL() string {
	if server := c.server.Load(); server != nil {
		return *server
	}
	return ""
}

// emit reports e with the server's name to the event handler.
func (c *Client) emit(e Event) {
	if c.events.handler == nil {
		return
	}
	if e.Server == "" && c.nc != nil {
		e.Server = serverurl.Redact(c.serverURL())
	}
	c.events.push(e)
}
