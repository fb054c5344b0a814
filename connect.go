package nats

import (
	"context"
	"errors"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/auth"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/receive"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/settings"
)

// connect makes the connection, or begins to in the background.
func (c *Client) connect(ctx context.Context) error {
	o, err := c.natsOptions()
	if err != nil {
		return err
	}
	c.conn = conn.New(conn.Options{
		NATS: o,
		Credentials: func(o *natsgo.Options) error {
			if keys := c.cfg.keys(); keys.HasFiles() {
				return setCredentials(o, keys)
			}
			return nil
		},
		ReconnectMaxWait: c.cfg.ReconnectMaxWait,
		Discovered:       c.servers.Watches(),
		RequestTimeout:   c.cfg.RequestTimeout,
		FailWhenDown:     c.failing,
		MaxControlLine:   c.cfg.MaxControlLine,
		Denied:           c.onDenied,
		BeforeHandOver:   func() { c.subs.Forget() },
		Contain:          c.contain,
		Groups:           func() []*natsgo.Subscription { return c.subs.Groups() },
		Life:             c.life,
	}, reports{c})
	c.subs = receive.New(c.conn, receiving{c})
	if c.opts.background {
		c.servers.FallBack(c.cfg.URLs)
		return c.conn.OpenInBackground(c.cfg.URLs)
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	err = c.conn.Open(ctx, c.servers.Find)
	if err != nil {
		c.conn.Close()
	}
	return err
}

// natsOptions translates the Config and applies the user's own options last.
func (c *Client) natsOptions() (*natsgo.Options, error) {
	cfg := c.cfg
	o := natsgo.GetDefaultOptions()
	o.Name = c.name()
	o.Timeout = cfg.DialTimeout
	o.MaxReconnect = cfg.MaxReconnect
	o.ReconnectWait = cfg.ReconnectWait
	o.ReconnectBufSize = cfg.ReconnectBufferSize
	o.PingInterval = cfg.PingInterval
	o.MaxPingsOut = cfg.MaxPingsOut
	o.InboxPrefix = cfg.InboxPrefix
	o.DrainTimeout = cfg.DrainTimeout
	// Discovery is the authority: servers that gossip names would come back after it dropped them.
	o.IgnoreDiscoveredServers = c.servers.Watches()
	if err := setCredentials(&o, cfg.keys()); err != nil {
		return nil, err
	}
	c.tls.Set(&o)
	for _, option := range c.opts.nats {
		if option == nil {
			continue
		}
		if err := option(&o); err != nil {
			return nil, fail("connect", "", ErrInvalidConfig, "option of nats.go: %w", err)
		}
	}
	if err := conn.Check(&o); err != nil {
		return nil, err
	}
	c.hook(&o)
	return &o, nil
}

// setCredentials sets those of this moment, unless they cannot be used.
func setCredentials(o *natsgo.Options, keys auth.Keys) error {
	var wrong settings.Problems
	credentials := auth.Read(keys, &wrong)
	if err := wrong.Err(); err != nil {
		return err
	}
	credentials.Set(o)
	return nil
}

// reloadTLS looks at the files now and then and moves to a connection that uses the new ones.
func (c *Client) reloadTLS() {
	for pause.Sleep(c.life.Context(), c.cfg.TLSReload) {
		if changed, err := c.tls.Reload(); err == nil && changed {
			c.log.Info("the TLS files changed; reconnecting to use them")
			c.conn.Depart(conn.Departure{Reason: "the TLS files changed"})
		}
	}
}

// name is the connection's name, which the server's monitoring shows.
func (c *Client) name() string {
	if c.cfg.ClusterID == "" {
		return c.cfg.ClientID
	}
	return c.cfg.ClusterID + "/" + c.cfg.ClientID
}

// hook puts the client's callbacks in front of those that the user set through WithNATSOptions. They come
// one at a time, on a goroutine of nats.go's own, and may come before NewClient has the connection in its
// hands: each of them waits for that.
func (c *Client) hook(o *natsgo.Options) {
	asyncError, lameDuck := o.AsyncErrorCB, o.LameDuckModeHandler
	c.userError.Store(&asyncError)
	o.AsyncErrorCB = func(nc *natsgo.Conn, sub *natsgo.Subscription, err error) {
		<-c.ready
		c.onAsyncError(sub, err)
		if asyncError != nil {
			asyncError(nc, sub, err)
		}
	}
	o.LameDuckModeHandler = func(nc *natsgo.Conn) {
		<-c.ready
		c.onLameDuck()
		if lameDuck != nil {
			lameDuck(nc)
		}
	}
}

// reports turn what happens to the connection into log lines and events.
type reports struct{ c *Client }

func (r reports) Up(first bool, gap time.Duration) {
	c := r.c
	server := c.conn.Server()
	if first {
		c.log.Info("connected to NATS", "server", server, "name", c.name())
		c.emit(Event{Type: EventConnected})
		return
	}
	c.log.Info("reconnected to NATS", "server", server, "gap", gap)
	c.emit(Event{Type: EventReconnected, Gap: gap})
}

func (r reports) Down(err error) {
	c := r.c
	if c.life.IsDraining() {
		return // the end of Close is no disconnect
	}
	lost, _ := c.conn.Unconfirmed()
	c.log.Warn("disconnected from NATS; reconnecting", append(fault.Attrs(err),
		"server", c.conn.Server(), "unconfirmed_bytes", lost)...)
	c.emit(Event{Type: EventDisconnected, Err: err, Bytes: lost})
}

func (r reports) Failed(err *conn.ServerError) {
	r.c.log.Warn("cannot reconnect to NATS", "server", err.URL, "error", err.Err)
	r.c.emit(Event{Type: EventReconnectFailed, Server: err.URL, Err: wrap("reconnect", "", err)})
}

func (r reports) Dropped(subject string, size int, limit int64) {
	r.c.report(fail("publish", subject, ErrPayloadTooLarge,
		"it waited for the connection, has %d bytes, and max_payload of this server is %d", size, limit), subject, "")
}

func (r reports) Unsubscribed(subject string, line, limit int) {
	err := fail("subscribe", subject, ErrInvalidSubject,
		"its line of %d bytes ended the connection three times, and max_control_line is %d", line, limit)
	for _, s := range r.c.subs.All() {
		if s.Subject == subject {
			s.Stop(err)
		}
	}
	r.c.report(err, subject, "")
}

func (r reports) Refused(err error) {
	v := fault.DeniedBy(err)
	r.c.report(err, v.Subject, v.Queue)
}

func (r reports) Stays(d conn.Departure, err error) {
	c := r.c
	c.log.Warn("the server is to be left, but no other one stands; trying again",
		"server", c.conn.Server(), "reason", d.Reason, "error", err)
	if !d.Another { // a server that shuts down has its event
		c.emit(Event{Type: EventAsyncError, Err: wrap("leave server", "", err)})
	}
}

func (r reports) Closed(cause error) {
	c := r.c
	e := Event{Type: EventClosed}
	if !c.life.IsDraining() {
		c.lost.Store(true)
		e.Err = &fault.Error{Op: "connection", Kind: ErrClosed, Cause: cause}
		e.Bytes, _ = c.conn.Unconfirmed()
		c.log.Error("the connection to NATS is closed for good", "server", c.conn.Server(),
			"error", e.Err, "unconfirmed_bytes", e.Bytes)
	}
	c.life.End()
	c.emit(e)
}

// onDenied takes a refusal of the server before anything that follows it is read: a call that waits for a
// PONG has heard of it then. It tells whether a call returns it.
func (c *Client) onDenied(err error) bool {
	if c.subs.OnError(err) || c.conn.Deny(err) {
		return true // the one that caused it
	}
	if v := fault.DeniedBy(err); v.Publish && !c.consumer.Deny(v.Subject) && !strings.HasPrefix(v.Subject, jetstream.DefaultAPIPrefix) {
		c.denied.Store(&err) // what asks JetStream without waiting is none of the user's
	}
	return false
}

// onLameDuck leaves a server that is about to shut down before it throws the client out.
func (c *Client) onLameDuck() {
	c.log.Warn("the NATS server is shutting down", "server", c.conn.Server())
	c.emit(Event{Type: EventLameDuck})
	// The address of the present server may be that of others, too.
	c.conn.Depart(conn.Departure{Reason: "it is shutting down", Another: true})
}

// deniedPublish returns a denied publish that no call has returned yet.
func (c *Client) deniedPublish() error {
	err := c.denied.Swap(nil)
	if err == nil {
		return nil
	}
	return wrap("publish", fault.DeniedBy(*err).Subject, *err)
}

// onAsyncError takes the errors that nats.go can give to no call.
func (c *Client) onAsyncError(sub *natsgo.Subscription, err error) {
	switch {
	case conn.IsDenial(err):
		// onDenied had it
	case errors.Is(err, natsgo.ErrSlowConsumer):
		// One of upstream's own: a watcher's, or of the user's.
		dropped, _ := sub.Dropped() // it fails when the subscription has ended
		c.reportSlow(sub.Subject, sub.Queue, uint64(max(dropped, 0)))
		c.log.Warn(slowText, "subject", sub.Subject, "queue", sub.Queue, "dropped", max(dropped, 0))
	case sub != nil:
		c.report(err, sub.Subject, sub.Queue)
	default:
		c.report(err, "", "")
	}
}

// report logs an error that no call can return, and makes an event of it.
func (c *Client) report(err error, subject, queue string) {
	err = wrap("connection", "", err)
	c.log.Warn("error on the NATS connection", "error", err, "subject", subject, "queue", queue)
	c.emit(Event{Type: EventAsyncError, Subject: subject, Queue: queue, Err: err})
}

// tellUser calls the user's own handler for errors, as nats.go would have.
func (c *Client) tellUser(sub *natsgo.Subscription, err error) {
	if f := c.userError.Load(); f != nil && *f != nil && sub != nil {
		go c.contain("AsyncErrorCB", func() { (*f)(c.nc, sub, err) })
	}
}
