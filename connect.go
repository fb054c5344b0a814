package nats

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

// The pauses between the rounds over all servers until the first connection stands.
const (
	connectPauseMin = 50 * time.Millisecond
	connectPauseMax = time.Second
)

// connect tries all servers, in rounds, until one welcomes the client or ctx ends. Only what a
// further round cannot mend ends it earlier.
func (c *Client) connect(ctx context.Context) error {
	var failure error
	for round := 1; ; round++ {
		urls, err := c.discoverServers(ctx)
		if err != nil {
			return err
		}
		err = c.connectRound(ctx, urls)
		if err == nil || errors.Is(err, ErrAuthorization) || errors.Is(err, ErrInvalidConfig) {
			return err
		}
		// A round that was cut short, or in which the time of a server was, knows less than the one before.
		if failure == nil || ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded) {
			failure = err
		}
		if !pause.Sleep(ctx, pause.Backoff(round, connectPauseMin, connectPauseMax)) {
			return failure
		}
	}
}

// connectRound tries each server once, in random order, with its share of the time that is left.
// One at a time, because upstream forgets why all but the last of them failed.
func (c *Client) connectRound(ctx context.Context, urls []string) error {
	order := slices.Clone(urls)
	rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] }) //nolint:gosec // not a secret
	kind := ErrNotConnected
	var causes fault.Joined
	for i, url := range order {
		deadline, _ := ctx.Deadline()
		share := time.Until(deadline) / time.Duration(len(order)-i)
		nc, err := c.dialOne(ctx, url, share)
		if err == nil {
			c.nc = nc
			c.noteServer()
			if err := nc.SetServerPool(urls); err != nil {
				nc.Close()
				return fail("connect", "", ErrInvalidConfig, "%w", err)
			}
			c.link.set(true)
			return nil
		}
		if errors.Is(err, ErrInvalidConfig) {
			return err
		}
		if s := fault.Kind(err); errors.Is(s, ErrAuthorization) {
			kind = s // a server was reached and would not have this client; another one may
		}
		causes = append(causes, fmt.Errorf("%s: %w", serverurl.Redact(url), err))
		if ctx.Err() != nil {
			causes = append(causes, context.Cause(ctx))
			break
		}
	}
	return &fault.Error{Op: "connect to", Target: strings.Join(serverurl.RedactAll(urls), ", "), Kind: kind, Cause: causes}
}

// dialOne connects to one server within a time.
func (c *Client) dialOne(ctx context.Context, url string, within time.Duration) (*natsgo.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	o, err := c.natsOptions([]string{url})
	if err != nil {
		return nil, err
	}
	release := c.dialer.bind(ctx)
	nc, err := o.Connect()
	if refusal := release(); refusal != nil && errors.Is(err, natsgo.ErrNoServers) {
		err = refusal // upstream forgets it
	}
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("no welcome within %v: %w", within.Round(time.Millisecond), context.Cause(ctx))
	}
	return nc, err
}

// connectInBackground returns at once; nats.go goes on trying.
func (c *Client) connectInBackground(urls []string) error {
	o, err := c.natsOptions(urls)
	if err != nil {
		return err
	}
	o.RetryOnFailedConnect = true
	connected := o.ConnectedCB
	o.ConnectedCB = func(nc *natsgo.Conn) {
		c.onConnected(nc)
		if connected != nil {
			connected(nc)
		}
	}
	nc, err := o.Connect()
	if err != nil {
		return &fault.Error{Op: "connect to", Target: strings.Join(serverurl.RedactAll(urls), ", "), Kind: fault.Kind(err), Cause: err}
	}
	c.nc = nc
	return nil
}

// natsOptions translates the Config and applies the user's own options last.
func (c *Client) natsOptions(urls []string) (*natsgo.Options, error) {
	cfg := c.cfg
	o := natsgo.GetDefaultOptions()
	o.Servers = urls
	o.Name = c.name()
	o.Timeout = cfg.Timeout
	o.MaxReconnect = cfg.MaxReconnect
	o.CustomReconnectDelayCB = backoff(cfg.ReconnectWait, cfg.ReconnectMaxWait)
	o.ReconnectBufSize = cfg.ReconnectBufferSize
	o.PingInterval = cfg.PingInterval
	o.MaxPingsOut = cfg.MaxPingsOut
	o.InboxPrefix = cfg.InboxPrefix
	o.DrainTimeout = cfg.DrainTimeout
	// Upstream closes the connection for good at the second refusal, which turns a rotated
	// password into an outage.
	o.IgnoreAuthErrorAbort = true
	// Discovery is the authority: servers that gossip names would come back after it dropped them.
	o.IgnoreDiscoveredServers = c.watching
	// The dialer looks the host up itself, under the context.
	o.SkipHostLookup = true
	o.CustomDialer = &c.dialer
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

// backoff returns pauses with full jitter whose bound doubles with every round over all servers,
// from wait up to limit, so that the clients of a server that died do not return together.
func backoff(wait, limit time.Duration) natsgo.ReconnectDelayHandler {
	return func(round int) time.Duration {
		bound := wait
		for i := 1; i < round && bound < limit; i++ {
			bound *= 2
		}
		return time.Duration(rand.Int64N(int64(min(bound, limit)) + 1)) //nolint:gosec // not a secret
	}
}

// dialer dials for nats.go: under a context while the first connection is made, and with the NKey
// of that moment.
type dialer struct {
	client *Client

	mu      sync.Mutex
	ctx     context.Context
	stops   []func() bool
	refusal error
	last    net.Conn // dialled last
	over    bool     // no more is to be dialled
}

// bind makes the dialer obey ctx until the returned function is called, which returns why the last
// dialling failed.
func (d *dialer) bind(ctx context.Context) (release func() error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ctx, d.refusal = ctx, nil
	return func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		for _, stop := range d.stops {
			stop()
		}
		d.ctx, d.stops = nil, nil
		return d.refusal
	}
}

// Dial implements natsgo.CustomDialer.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	d.mu.Lock()
	ctx, over := d.ctx, d.over
	d.mu.Unlock()
	if over {
		return nil, ErrClosed
	}
	bound := ctx != nil
	if !bound {
		ctx = d.client.life.Context()
	}
	conn, err := d.dial(ctx, network, address)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.refusal = err
		return nil, err
	}
	if bound {
		// A server that accepts and then says nothing must not outlast the context.
		d.stops = append(d.stops, context.AfterFunc(ctx, func() { _ = conn.Close() }))
	}
	d.last = conn
	return conn, nil
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if err := d.client.refreshCredentials(); err != nil {
		return nil, err
	}
	nd := net.Dialer{Timeout: d.client.cfg.Timeout}
	return nd.DialContext(ctx, network, address)
}

// interrupt ends an attempt to reconnect, and all further ones. Upstream holds the connection's lock
// while a server that accepted is silent, and with it everybody who wants to close the connection.
func (d *dialer) interrupt() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.over = true
	if d.last != nil {
		_ = d.last.Close()
	}
}
