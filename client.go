package nats

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Client is a connection to a NATS cluster and everything done over it. It is made by NewClient,
// is safe for concurrent use, and reconnects by itself until Close. One Client per process is
// usually enough: it multiplexes all subscriptions and requests over one connection.
type Client struct {
	cfg    *Config // a pointer, so that printing the client cannot print secrets
	opts   options
	log    *slog.Logger
	events eventQueue
	link   link

	nc       *natsgo.Conn
	js       jetstream.JetStream // nil when JetStream is not enabled
	jsPrefix string              // of the subjects of the JetStream API, with the dot at its end
	replies  *replyMux
	denials  denials
	msgIDs   idSource
	finder   streamFinder
	ackWaits ackWaits
	async    *asyncPublisher // nil when JetStream is not enabled

	// ctx ends when the client is closed; received messages and background work hang on it.
	ctx     context.Context
	cancel  context.CancelCauseFunc
	pulled  *origin // of the answers to requests
	failing bool    // publish_when_disconnected: fail

	dropped   atomic.Uint64 // by subscriptions that have ended
	confirmed atomic.Uint64 // messages sent when the server last answered a PING

	established atomic.Pointer[natsgo.Conn] // nc, for the dialer

	ready   chan struct{} // closed when NewClientContext has ended
	mu      sync.Mutex
	closing chan struct{} // closed when Shutdown begins
	closed  chan struct{} // closed when Shutdown has ended
	subs    map[*Subscription]struct{}
	closers map[*closer]struct{}

	consumptions map[*Consumption]struct{}
	work         sync.WaitGroup // calls that Shutdown lets end
}

// NewClient connects to the servers that cfg names and returns the client, or an error that says
// what to mend. It takes at most Config.Timeout. The errors are ErrInvalidConfig for a Config that
// cannot work, ErrNotConnected when no server answers, and ErrAuthorization when one refuses the
// credentials. It neither changes nor keeps cfg.
func NewClient(cfg *Config, opts ...Option) (*Client, error) {
	return NewClientContext(context.Background(), cfg, opts...)
}

// NewClientContext is NewClient bounded by ctx as well. The context only bounds connecting; the
// client outlives it.
func NewClientContext(ctx context.Context, cfg *Config, opts ...Option) (*Client, error) {
	if cfg == nil {
		return nil, fail("new client", "", ErrInvalidConfig, "the Config is nil; DefaultConfig returns one to start from")
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	own := cfg.withDefaults()
	c := &Client{
		cfg:     &own,
		opts:    options{log: slog.New(slog.DiscardHandler)},
		ready:   make(chan struct{}),
		closing: make(chan struct{}),
		closed:  make(chan struct{}),
		subs:    make(map[*Subscription]struct{}),
		closers: make(map[*closer]struct{}),

		consumptions: make(map[*Consumption]struct{}),
	}
	defer close(c.ready)
	for _, opt := range opts {
		if opt != nil {
			opt(&c.opts)
		}
	}
	c.log = c.opts.log
	c.events.handler = c.opts.onEvent
	c.events.onPanic = func(err error) { c.log.Error("event handler panicked", "error", err) }
	c.failing = c.cfg.PublishWhenDisconnected == whenDisconnectedFail
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	c.pulled = &origin{client: c, ctx: c.ctx}

	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	urls, err := c.servers(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.connect(ctx, urls); err != nil {
		c.cancel(ErrClosed)
		return nil, err
	}
	c.replies = newReplyMux(c.nc)
	if err := c.setupJetStream(); err != nil {
		c.nc.Close()
		c.cancel(ErrClosed)
		return nil, err
	}
	c.log.Info("connected to NATS", "server", redactURL(c.nc.ConnectedUrl()), "name", c.nc.Opts.Name)
	c.emit(Event{Type: EventConnected})
	return c, nil
}

// Ping makes a round trip to the server. Without a deadline in ctx, Config.RequestTimeout applies.
// It returns ErrNotConnected when no connection stands by then.
func (c *Client) Ping(ctx context.Context) error { return c.roundTrip(ctx, "ping", "") }

// Flush returns when everything published so far has reached the server. Without a deadline in
// ctx, Config.RequestTimeout applies. It returns ErrNotConnected when no connection stands by then,
// and ErrPermission, once, when the server has denied a publish: the last one is named.
func (c *Client) Flush(ctx context.Context) error {
	if err := c.roundTrip(ctx, "flush", ""); err != nil {
		return err
	}
	return c.deniedPublish()
}

// IsConnected tells whether a connection to a server stands at this moment.
func (c *Client) IsConnected() bool { return c.nc.IsConnected() }

// Config returns a copy of the configuration in force, with the defaults filled in and every
// secret blanked.
func (c *Client) Config() Config { return c.cfg.redacted() }

// String returns the connection's name.
func (c *Client) String() string { return "nats.Client(" + c.nc.Opts.Name + ")" }

// GoString is String: the fields would be read while they change.
func (c *Client) GoString() string { return c.String() }

// Conn returns the connection of nats.go, for what this package does not cover. Closing it closes
// the client without its care.
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
}

// Stats returns the client's counters.
func (c *Client) Stats() Stats {
	s := Stats{Statistics: c.nc.Stats(), Dropped: c.dropped.Load()}
	if n, err := c.nc.Buffered(); err == nil {
		s.Buffered = n
	}
	for _, sub := range c.subscriptions() {
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
		sent := c.nc.Stats().OutMsgs
		err := c.nc.FlushWithContext(ctx)
		switch {
		case err == nil:
			c.confirmed.Store(sent)
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
	return &opError{op: op, target: target, kind: err, cause: cause}
}

func errNilContext(op, target string) error {
	return fail(op, target, ErrInvalidArgument, "the context is nil")
}

// emit reports e with the server's name to the event handler.
func (c *Client) emit(e Event) {
	if c.events.handler == nil {
		return
	}
	if e.Server == "" && c.nc != nil {
		e.Server = redactURL(c.nc.ConnectedUrl())
	}
	c.events.push(e)
}

func (c *Client) onDisconnected(err error) {
	c.link.set(false)
	select {
	case <-c.closing:
		return // upstream reports the end of Close as a disconnect
	default:
	}
	c.log.Warn("disconnected from NATS; reconnecting", "error", err)
	c.emit(Event{Type: EventDisconnected, Err: err})
}

func (c *Client) onReconnected(nc *natsgo.Conn) {
	c.link.set(true)
	c.log.Info("reconnected to NATS", "server", redactURL(nc.ConnectedUrl()))
	c.emit(Event{Type: EventReconnected, Server: redactURL(nc.ConnectedUrl())})
}

func (c *Client) onLameDuck(nc *natsgo.Conn) {
	c.log.Warn("the NATS server is shutting down", "server", redactURL(nc.ConnectedUrl()))
	c.emit(Event{Type: EventLameDuck, Server: redactURL(nc.ConnectedUrl())})
}

// onClosed also runs when nats.go gives the connection up by itself, with the attempts used up.
func (c *Client) onClosed(nc *natsgo.Conn) {
	c.link.close()
	var err error
	select {
	case <-c.closing:
	default:
		err = &opError{op: "connection", kind: ErrClosed, cause: nc.LastError()}
		c.log.Error("the connection to NATS is closed for good", "error", err)
	}
	c.cancel(ErrClosed)
	c.emit(Event{Type: EventClosed, Err: err})
}

// onAsyncError takes the errors that nats.go can give to no call.
func (c *Client) onAsyncError(sub *natsgo.Subscription, err error) {
	if c.denials.settle(err) {
		return // the Subscribe that caused it returns it
	}
	kind, e := "error on the NATS connection", Event{Type: EventAsyncError, Err: wrap("connection", "", err)}
	if sub != nil {
		e.Subject, e.Queue = sub.Subject, sub.Queue
	}
	if sentinelOf(err) == ErrSlowConsumer { //nolint:errorlint // a sentinel of our own table
		kind, e.Type = "slow consumer: messages are being dropped", EventSlowConsumer
	}
	attrs := []any{"error", err}
	if sub != nil {
		pending, _, _ := sub.Pending()
		attrs = append(attrs, "subject", sub.Subject, "queue", sub.Queue, "pending", pending)
	}
	c.log.Warn(kind, attrs...)
	c.emit(e)
}

// servers returns the URLs to dial.
func (c *Client) servers(ctx context.Context) ([]string, error) {
	resolver, timeout := c.opts.resolver, c.cfg.Timeout
	if resolver == nil {
		if !c.cfg.UseConsul {
			return c.cfg.URLs, nil
		}
		consul, err := newConsulResolver(c.cfg.Consul, c.cfg.ServiceName, c.cfg.GRPCPort, c.log)
		if err != nil {
			return nil, err
		}
		resolver, timeout = consul, c.cfg.Consul.Timeout
	}
	urls, err := discover(ctx, resolver, timeout, c.cfg.URLs, c.log)
	if err != nil {
		c.emit(Event{Type: EventServersFallback, Err: err})
	}
	return urls, nil
}
