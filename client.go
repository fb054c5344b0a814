package nats

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/auth"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consume"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/discovery"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/health"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	keyvalue "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/kv"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lease"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lifecycle"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/publish"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pull"
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
	events []*lifecycle.Queue[Event] // one for each handler
	conn   *conn.Conn
	nc     *natsgo.Conn  // the one of nats.go in conn
	ready  chan struct{} // closed when the client is whole: upstream's callbacks may come earlier

	tls       *auth.TLS
	js        jetstream.JetStream // nil when JetStream is not enabled
	api       *jsapi.API
	subs      *receive.Engine
	denied    atomic.Pointer[error]             // the last denied publish that no call has returned
	userError atomic.Pointer[natsgo.ErrHandler] // of WithNATSOptions
	puller    *pull.Puller
	publisher *publish.Publisher
	consumer  *consume.Engine
	buckets   *keyvalue.Buckets
	leases    *lease.Leases

	servers *discovery.Finder

	checkup *health.Checkup
	lost    atomic.Bool     // the connection was closed for good, and not by Close
	life    *lifecycle.Life // received messages and background work hang on its context
	pulled  *origin         // of the answers to requests
	failing bool            // publish_when_disconnected: fail

	around Interceptor // all of them, but for Handle: see handled
	totals totals
	beside lifecycle.Beside // of WithStart
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
	err := c.start(ctx)
	close(c.ready)
	if err != nil {
		c.life.End()
		return nil, err
	}
	c.startOthers()
	return c, nil
}

// newClient puts together what needs no connection.
func newClient(cfg *Config, opts []Option) *Client {
	own := cfg.withDefaults()
	c := &Client{
		cfg:      &own,
		opts:     applied(options{log: slog.New(slog.DiscardHandler)}, opts),
		ready:    make(chan struct{}),
		life:     lifecycle.New(),
		consumer: &consume.Engine{},
	}
	c.log = c.opts.log
	c.around = c.chained(c.opts.interceptors)
	for _, handle := range c.opts.onEvent {
		c.events = append(c.events, &lifecycle.Queue[Event]{Handle: func(e Event, lost int) {
			e.Dropped = lost
			c.contain("WithEventHandler", func() { handle(e) })
		}})
	}
	c.failing = c.cfg.PublishWhenDisconnected == whenDisconnectedFail
	c.pulled = &origin{client: c, ctx: c.life.Context()}
	c.tls = &auth.TLS{
		// A server that discovery names without a scheme must not get in plain text what was meant for tls:// URLs.
		Demanded: own.TLSEnabled || slices.ContainsFunc(own.URLs, serverurl.DemandsTLS), Base: c.opts.tls,
		Cert: own.TLSCert, Key: own.TLSKey, CA: own.TLSCA, ServerName: own.TLSServerName, First: own.TLSHandshakeFirst,
		Warn: c.log.Warn,
	}
	return c
}

// start connects and starts what runs beside the calls. All of it ends with the client's life.
func (c *Client) start(ctx context.Context) error {
	if err := c.setupDiscovery(); err != nil {
		return err
	}
	if err := c.connect(ctx); err != nil {
		return err
	}
	c.nc = c.conn.NATS()
	if err := c.setupJetStream(); err != nil {
		c.conn.Close()
		return err
	}
	c.checkup = health.New(c.parts())
	if c.servers.Resolver != nil && (c.servers.Watches() || c.opts.background) {
		go c.servers.Follow(c.life.Context(), c.conn.SetServers)
	}
	if c.cfg.TLSReload > 0 {
		go c.reloadTLS()
	}
	return nil
}

// parts are what Health looks at.
func (c *Client) parts() health.Parts {
	p := health.Parts{
		Conn: c.conn, Subs: c.subs, Consumer: c.consumer, TLS: c.tls, Life: c.life, Lost: &c.lost, Log: c.log,
	}
	if c.js != nil {
		p.API = c.api
	}
	if c.servers.Resolver != nil {
		p.Servers = &c.servers.Servers
	}
	return p
}

// startOthers starts what WithStart was given.
func (c *Client) startOthers() {
	for _, start := range c.opts.starts {
		c.contain("WithStart", func() {
			if stop := start(c); stop != nil {
				c.beside.Add(func() { c.contain("the stop of WithStart", stop) })
			}
		})
	}
}

// Ping makes a round trip to the server. Without a deadline in ctx, Config.RequestTimeout applies.
// It returns ErrNotConnected when no connection stands by then, and ErrTimeout when the server is silent.
func (c *Client) Ping(ctx context.Context) error { return c.roundTrip(ctx, "ping") }

// Flush returns when everything published so far has reached the server. Without a deadline in
// ctx, Config.RequestTimeout applies. It returns ErrNotConnected when no connection stands by then,
// and ErrPermission, once, when the server has denied a publish: the last one is named.
func (c *Client) Flush(ctx context.Context) error {
	if err := c.roundTrip(ctx, "flush"); err != nil {
		return err
	}
	return c.deniedPublish()
}

// IsConnected tells whether a connection to a server stands at this moment.
func (c *Client) IsConnected() bool { return c.conn.IsUp() }

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
// services: Close waits for their handlers, too. Closing it closes the client without its care. Its
// TLSConnectionState fails, since TLS is made below it: use that of the Client.
func (c *Client) Conn() *natsgo.Conn { return c.nc }

// TLSConnectionState returns the state of the present connection's TLS. It returns ErrNotConnected while
// there is no connection, and nats.go's ErrConnectionNotTLS when there is no TLS.
func (c *Client) TLSConnectionState() (tls.ConnectionState, error) {
	state, err := c.conn.TLSConnectionState()
	return state, wrap("tls connection state", "", err)
}

// JetStream returns upstream's JetStream handle on the same connection, or nil when
// Config.JetStreamEnabled is false.
func (c *Client) JetStream() jetstream.JetStream { return c.js }

// awaitConnection waits for the connection: upstream would keep what is sent for later and answer
// with a timeout. Before the first connection of a client that connects in the background only ctx
// bounds the wait.
func (c *Client) awaitConnection(ctx context.Context, op, target string) error {
	up, breaks, _ := c.conn.State()
	switch {
	case up && c.conn.HasRoom():
		return nil
	case c.conn.IsClosed():
		return fail(op, target, ErrClosed, "")
	case c.failing && !up:
		return c.conn.Refused(op, target)
	case up || breaks > 0:
		var cancel context.CancelFunc
		ctx, cancel = c.conn.Deadline(ctx)
		defer cancel()
	}
	if err := c.conn.Wait(ctx); err != nil {
		return c.conn.Unreachable(ctx, op, target, err)
	}
	return nil
}

// roundTrip waits for the connection and for a PONG that follows everything sent before.
func (c *Client) roundTrip(ctx context.Context, op string) error {
	if ctx == nil {
		return errNilContext(op, "")
	}
	return c.conn.RoundTrip(ctx, op, "")
}

func errNilContext(op, target string) error {
	return fail(op, target, ErrInvalidArgument, "the context is nil")
}

// emit reports e with the time and the server's name to the event handlers.
func (c *Client) emit(e Event) {
	if len(c.events) == 0 {
		return
	}
	e.Time = time.Now()
	e.Server = cmp.Or(e.Server, c.conn.Server())
	for _, q := range c.events {
		q.Push(e)
	}
}

// EventClientFactory makes clients from the service's configuration file and environment.
type EventClientFactory struct {
	cfg  func() *Config // a function, so that no way of printing the factory can show secrets
	opts []Option
}

// NewEventClientFactory loads the configuration as LoadConfig("") does. The options are those of
// every client that the factory makes.
func NewEventClientFactory(opts ...Option) (*EventClientFactory, error) {
	cfg, err := LoadConfig("")
	if err != nil {
		return nil, err
	}
	return &EventClientFactory{cfg: func() *Config { return cfg }, opts: opts}, nil
}

// NewNATSClient connects as NewClientContext does, with discovery through Consul when the
// configuration asks for it.
func (f *EventClientFactory) NewNATSClient(ctx context.Context) (*Client, error) {
	return NewClientContext(ctx, f.config(), f.opts...)
}

// Config returns a copy of the configuration that was loaded, with every secret blanked.
func (f *EventClientFactory) Config() Config {
	cfg := f.config()
	if cfg == nil {
		return Config{}
	}
	return cfg.redacted()
}

// config is nil when NewEventClientFactory has not made the factory.
func (f *EventClientFactory) config() *Config {
	if f == nil || f.cfg == nil {
		return nil
	}
	return f.cfg()
}
