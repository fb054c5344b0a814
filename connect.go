package nats

import (
	"context"
	"slices"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/receive"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
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
			if c.cfg.PasswordFile+c.cfg.TokenFile+c.cfg.NKeySeedFile+c.cfg.CredsFile == "" {
				return nil
			}
			fresh, err := readCredentials(c.cfg)
			if err == nil {
				fresh.set(o)
			}
			return err
		},
		ReconnectMaxWait: c.cfg.ReconnectMaxWait,
		Discovered:       c.watching,
		RequestTimeout:   c.cfg.RequestTimeout,
		FailWhenDown:     c.failing,
		MaxControlLine:   c.cfg.MaxControlLine,
		Denied:           c.onDenied,
		BeforeHandOver:   func() { c.subs.Forget() },
	}, reports{c})
	c.subs = receive.New(c.conn, receiving{c})
	if c.opts.background {
		c.servers.FallBack(c.cfg.URLs)
		return c.conn.OpenInBackground(c.cfg.URLs)
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	err = c.conn.Open(ctx, c.discoverServers)
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
	o.IgnoreDiscoveredServers = c.watching
	credentials, err := readCredentials(cfg)
	if err != nil {
		return nil, err
	}
	credentials.set(&o)
	setTLS(&o, cfg, c.opts.tls, c.tls)
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

// name is the connection's name, which the server's monitoring shows.
func (c *Client) name() string {
	if c.cfg.ClusterID == "" {
		return c.cfg.ClientID
	}
	return c.cfg.ClusterID + "/" + c.cfg.ClientID
}

// The pauses while no other server stands.
const (
	movePauseMin = 100 * time.Millisecond
	movePauseMax = 2 * time.Second
)

// departure is a wish to leave the present server.
type departure struct {
	reason  string
	servers func() []string // to go to; none ends the wish
	another bool            // than the present one, whatever its address

	cancel context.CancelFunc
	over   chan struct{}
}

// onLameDuck leaves a server that is about to shut down before it throws the client out.
func (c *Client) onLameDuck() {
	c.log.Warn("the NATS server is shutting down", "server", serverurl.Redact(c.conn.Server()))
	c.emit(Event{Type: EventLameDuck})
	// The address of the present server may be that of others, too.
	c.leave(&departure{reason: "it is shutting down", servers: c.serverPool, another: true})
}

// serverPool returns the URLs that upstream chooses from.
func (c *Client) serverPool() []string {
	var urls []string
	for _, server := range c.nc.ServerPool() {
		urls = append(urls, server.URL.String())
	}
	return urls
}

// otherServers is serverPool, or nothing when the present server is in it.
func (c *Client) otherServers() []string {
	present := c.conn.Server()
	pool := c.serverPool()
	if slices.ContainsFunc(pool, func(raw string) bool { return serverurl.Names([]string{raw}, present) }) {
		return nil
	}
	return pool
}

// leave moves to another connection in the background, as soon as one is sure to stand. The last wish to
// leave takes the place of the one before.
func (c *Client) leave(d *departure) {
	done, err := c.life.Begin()
	if err != nil {
		return
	}
	var ctx context.Context
	ctx, d.cancel = context.WithCancel(c.life.Context())
	d.over = make(chan struct{})
	before := c.departure.Swap(d)
	go func() {
		defer done()
		defer close(d.over)
		defer d.cancel()
		if before != nil {
			before.cancel()
			<-before.over
		}
		go func() {
			select {
			case <-c.life.Draining():
				d.cancel()
			case <-ctx.Done():
			}
		}()
		c.moveAway(ctx, d)
	}()
}

// moveAway tries to leave the present server until another one stands or there is no need any more.
func (c *Client) moveAway(ctx context.Context, d *departure) {
	up, breaks, change := c.conn.State()
	for failures := 0; up; failures++ {
		servers := d.servers()
		if len(servers) == 0 {
			return
		}
		err := c.conn.Leave(ctx, servers, d.another, c.subs.Groups)
		up, now, _ := c.conn.State()
		switch {
		case err == nil, ctx.Err() != nil, !up, now != breaks:
			return
		case failures == 0:
			c.log.Warn("the server is to be left, but no other one stands; trying again",
				"server", serverurl.Redact(c.conn.Server()), "reason", d.reason, "error", err)
			if !d.another { // a server that shuts down has its event
				c.emit(Event{Type: EventAsyncError, Err: wrap("leave server", "", err)})
			}
		}
		timer := time.NewTimer(pause.Backoff(failures+1, movePauseMin, movePauseMax))
		select {
		case <-timer.C:
		case <-change:
			return // it was left meanwhile
		case <-ctx.Done():
			return
		}
		timer.Stop()
	}
}
