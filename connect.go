package nats

import (
	"context"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/auth"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
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
		Discovered:       c.watching,
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
