package nats

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// connect dials the servers and returns once one of them has welcomed the client, or ctx ends.
func (c *Client) connect(ctx context.Context, urls []string) error {
	opts, err := c.natsOptions(urls)
	if err != nil {
		return err
	}
	d := &dialer{client: c, ctx: ctx, life: c.ctx, timeout: opts.Timeout}
	opts.CustomDialer = d
	for _, option := range c.opts.nats {
		if option == nil {
			continue
		}
		if err := option(opts); err != nil {
			return fail("connect", "", ErrInvalidConfig, "option of nats.go: %w", err)
		}
	}
	alone := *opts
	c.hook(opts)

	nc, err := opts.Connect()
	if err != nil {
		causes := append([]error{err}, d.causes...)
		if len(urls) > 1 {
			causes = append(causes, askEach(ctx, alone, d, urls)...)
		}
		d.release()
		return c.connectError(ctx, urls, causes)
	}
	d.release()
	c.nc = nc
	c.established.Store(nc)
	c.link.set(nc.IsConnected())
	return nil
}

// askEach connects to every server alone to learn why those that can be reached cannot be used:
// upstream tells only about the last one it tried.
func askEach(ctx context.Context, opts natsgo.Options, d *dialer, urls []string) []error {
	opts.RetryOnFailedConnect = false
	opts.AsyncErrorCB = func(*natsgo.Conn, *natsgo.Subscription, error) {}
	opts.ConnectedCB, opts.DisconnectedCB, opts.DisconnectedErrCB, opts.ClosedCB = nil, nil, nil, nil
	var causes []error
	for _, server := range urls {
		if ctx.Err() != nil {
			break
		}
		opts.Servers = []string{server}
		unreachable := len(d.causes)
		nc, err := opts.Connect()
		if err == nil {
			nc.Close()
		} else if len(d.causes) == unreachable {
			causes = append(causes, fmt.Errorf("%s: %w", redactURL(server), err))
		}
	}
	return causes
}

// minServerTimeout is what a server gets to welcome the client, however many there are.
const minServerTimeout = time.Second

// natsOptions translates the Config.
func (c *Client) natsOptions(urls []string) (*natsgo.Options, error) {
	cfg := c.cfg
	o := natsgo.GetDefaultOptions()
	o.Servers = urls
	o.Name = cfg.ClientID
	if cfg.ClusterID != "" {
		o.Name = cfg.ClusterID + "/" + cfg.ClientID
	}
	// A server that hangs must leave time for the others.
	o.Timeout = max(cfg.Timeout/time.Duration(max(len(urls), 1)), min(cfg.Timeout, minServerTimeout))
	o.MaxReconnect = cfg.MaxReconnect
	o.CustomReconnectDelayCB = backoff(cfg.ReconnectWait, cfg.ReconnectMaxWait)
	o.ReconnectBufSize = cfg.ReconnectBufferSize
	o.PingInterval = cfg.PingInterval
	o.MaxPingsOut = cfg.MaxPingsOut
	o.DrainTimeout = cfg.DrainTimeout
	// Upstream closes the connection for good at the second refusal, which turns a rotated
	// password into an outage.
	o.IgnoreAuthErrorAbort = true
	// The dialer looks the host up itself, under the context.
	o.SkipHostLookup = true
	if err := setAuth(&o, cfg); err != nil {
		return nil, err
	}
	setTLS(&o, cfg, c.opts.tls)
	return &o, nil
}

// setTLS makes nats.go read the files at every handshake, so that renewed certificates are used
// without a restart.
func setTLS(o *natsgo.Options, cfg *Config, base *tls.Config) {
	// A server that discovery names without a scheme must not get in plain text what was meant for
	// tls:// URLs.
	inURLs := slices.ContainsFunc(cfg.URLs, func(u string) bool {
		return strings.HasPrefix(u, "tls://") || strings.HasPrefix(u, "wss://")
	})
	enabled := inURLs || cfg.TLSEnabled || base != nil || cfg.TLSCert != "" || cfg.TLSCA != "" ||
		cfg.TLSServerName != "" || cfg.TLSHandshakeFirst
	if !enabled {
		return
	}
	if base == nil {
		base = &tls.Config{}
	}
	t := base.Clone()
	t.MinVersion = max(t.MinVersion, tls.VersionTLS12)
	if cfg.TLSServerName != "" {
		t.ServerName = cfg.TLSServerName
	}
	o.Secure = true
	o.TLSConfig = t
	o.TLSHandshakeFirst = cfg.TLSHandshakeFirst
	if cfg.TLSCert != "" {
		o.TLSCertCB = func() (tls.Certificate, error) { return tls.LoadX509KeyPair(cfg.TLSCert, cfg.TLSKey) }
	}
	if cfg.TLSCA != "" {
		o.RootCAsCB = func() (*x509.CertPool, error) { return readCertPool(cfg.TLSCA) }
	}
}

func readCertPool(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", path)
	}
	return pool, nil
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

// hook puts the client's callbacks in front of those that the user set through WithNATSOptions. They
// wait until the client is complete, which a connection that breaks at once would overtake.
func (c *Client) hook(o *natsgo.Options) {
	connected := o.ConnectedCB
	o.ConnectedCB = func(nc *natsgo.Conn) { // at once, or later with RetryOnFailedConnect
		<-c.ready
		c.link.set(true)
		if connected != nil {
			connected(nc)
		}
	}
	asyncError, disconnected, reconnected := o.AsyncErrorCB, o.DisconnectedErrCB, o.ReconnectedCB
	closed, lameDuck := o.ClosedCB, o.LameDuckModeHandler
	o.AsyncErrorCB = func(nc *natsgo.Conn, sub *natsgo.Subscription, err error) {
		<-c.ready
		c.onAsyncError(sub, err)
		if asyncError != nil {
			asyncError(nc, sub, err)
		}
	}
	o.DisconnectedErrCB = func(nc *natsgo.Conn, err error) {
		<-c.ready
		c.onDisconnected(err)
		if disconnected != nil {
			disconnected(nc, err)
		}
	}
	o.ReconnectedCB = func(nc *natsgo.Conn) {
		<-c.ready
		c.onReconnected(nc)
		if reconnected != nil {
			reconnected(nc)
		}
	}
	o.ClosedCB = func(nc *natsgo.Conn) {
		<-c.ready
		c.onClosed(nc)
		if closed != nil {
			closed(nc)
		}
	}
	o.LameDuckModeHandler = func(nc *natsgo.Conn) {
		<-c.ready
		c.onLameDuck(nc)
		if lameDuck != nil {
			lameDuck(nc)
		}
	}
}

// connectError says which servers were tried and why each failed: upstream keeps only
// "no servers available".
func (c *Client) connectError(ctx context.Context, urls []string, causes []error) error {
	kind := ErrNotConnected
	var all joined
	for _, err := range causes {
		if s := sentinelOf(err); s != nil && !errors.Is(s, ErrTimeout) && !errors.Is(s, ErrNotConnected) {
			kind = s // a server was reached and would not have this client
		}
		if !slices.ContainsFunc(all, func(other error) bool { return strings.HasSuffix(other.Error(), err.Error()) }) {
			all = append(all, err)
		}
	}
	if ctx.Err() != nil {
		all = append(all, context.Cause(ctx))
	}
	return &opError{op: "connect to", target: strings.Join(redactURLs(urls), ", "), kind: kind, cause: all}
}

// joined is errors.Join on one line.
type joined []error

func (j joined) Error() string {
	texts := make([]string, 0, len(j))
	for _, err := range j {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "; ")
}

func (j joined) Unwrap() []error { return j }

// dialer dials under the context of NewClientContext until the first connection stands, and
// remembers why servers could not be reached.
type dialer struct {
	client  *Client
	timeout time.Duration
	life    context.Context // of the client

	mu     sync.Mutex
	ctx    context.Context // nil once released
	stops  []func() bool
	causes []error
}

// Dial implements natsgo.CustomDialer.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	d.mu.Lock()
	ctx := d.ctx
	d.mu.Unlock()
	connecting := ctx != nil
	if !connecting {
		ctx = d.life
	}
	d.client.refreshNKey()
	nd := net.Dialer{Timeout: d.timeout}
	conn, err := nd.DialContext(ctx, network, address)

	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		if connecting {
			d.causes = append(d.causes, err)
		}
		return nil, err
	}
	if connecting {
		// A server that accepts and then says nothing must not outlast the context.
		d.stops = append(d.stops, context.AfterFunc(ctx, func() { _ = conn.Close() }))
	}
	return conn, nil
}

// release unties the dialer from the context.
func (d *dialer) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, stop := range d.stops {
		stop()
	}
	d.ctx, d.stops = nil, nil
}
