package nats_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

const plainInfo = `INFO {"server_id":"TAP","version":"2.15.0","proto":1,"headers":true,"max_payload":1048576,"tls_required":false}` + "\r\n"

// tap is a machine in the middle: it says that it has no TLS, and listens to what it is told.
type tap struct {
	address string
	tried   atomic.Int64 // connections that have ended
	mu      sync.Mutex
	clear   []string // what came that is no TLS record
}

func newTap(t testing.TB) *tap {
	t.Helper()
	p := &tap{}
	p.address = conntest.Serve(t, func(conn net.Conn) { p.serve(conn) })
	return p
}

func (p *tap) serve(conn net.Conn) {
	defer p.tried.Add(1)
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	_, _ = io.WriteString(conn, plainInfo)
	r := bufio.NewReader(conn)
	const handshakeRecord = 22
	if first, err := r.Peek(1); err == nil && first[0] != handshakeRecord {
		line, _ := r.ReadString('\n')
		p.mu.Lock()
		defer p.mu.Unlock()
		p.clear = append(p.clear, line)
	}
}

func (p *tap) heard() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.clear, "")
}

// gossip is a server behind TLS that names others to its clients, and then is gone for good.
func gossip(t testing.TB, ca authority, others ...string) string {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(ca.Path("server.pem"), ca.Path("server-key.pem"))
	require.NoError(t, err)
	var served atomic.Bool
	return conntest.Serve(t, func(conn net.Conn) {
		defer func() { _ = conn.Close() }()
		if served.Load() {
			return
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		info := strings.Replace(plainInfo, `"tls_required":false`, `"tls_required":true,"connect_urls":["`+strings.Join(others, `","`)+`"]`, 1)
		_, _ = io.WriteString(conn, info)
		secure := tls.Server(conn, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}})
		r := bufio.NewReader(secure)
		for {
			line, err := r.ReadString('\n')
			switch {
			case err != nil:
				return
			case strings.HasPrefix(line, "PING"):
				served.Store(true)
				_, _ = io.WriteString(secure, "PONG\r\n"+info)
				time.Sleep(50 * time.Millisecond) // the client reads it
				return
			}
		}
	})
}

// offer makes a server demand TLS, and no certificate.
func (a authority) offer(t testing.TB) natstest.Option {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(a.Path("server.pem"), a.Path("server-key.pem"))
	require.NoError(t, err)
	return natstest.WithConfig(func(o *server.Options) {
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
		o.TLSTimeout = 5
	})
}

// naming is a discovery that names lists of servers.
type naming struct {
	first   []string
	changes chan []string
}

func (n *naming) Resolve(context.Context) ([]string, error) { return n.first, nil }

func (n *naming) Watch(ctx context.Context, update func([]string)) error {
	for {
		select {
		case urls := <-n.changes:
			update(urls)
		case <-ctx.Done():
			return nil
		}
	}
}

// Wherever a server's name comes from, where TLS is demanded nobody hears of a user without it: not the
// server that says it has none, and may not be the server at all.
func TestNoCredentialsWithoutTLS(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	ca.Issue(t, "server", nil)
	with := func(urls ...string) nats.Config {
		return nats.Config{
			URLs: urls, Username: "u", Password: "hunter2", Timeout: time.Second,
			ReconnectWait: 10 * time.Millisecond, ReconnectMaxWait: 20 * time.Millisecond,
		}
	}
	// From the start.
	for name, c := range map[string]struct {
		url    string // %s is the tap
		change func(*nats.Config)
		opts   []nats.Option
	}{
		"tls://":                 {url: "tls://%s"},
		"TLS://":                 {url: "TLS://%s"},
		"wss://":                 {url: "wss://%s"},
		"WSS://":                 {url: "WSS://%s"},
		"tls_enabled":            {url: "nats://%s", change: func(c *nats.Config) { c.TLSEnabled = true }},
		"tls_ca":                 {url: "%s", change: func(c *nats.Config) { c.TLSCA = ca.Path("ca.pem") }},
		"tls_server_name":        {url: "nats://%s", change: func(c *nats.Config) { c.TLSServerName = "nats.test" }},
		"tls_handshake_first":    {url: "nats://%s", change: func(c *nats.Config) { c.TLSHandshakeFirst = true }},
		"WithTLSConfig":          {url: "nats://%s", opts: []nats.Option{nats.WithTLSConfig(&tls.Config{MinVersion: tls.VersionTLS12})}},
		"natsgo.Secure":          {url: "nats://%s", opts: []nats.Option{nats.WithNATSOptions(natsgo.Secure())}},
		"natsgo.RootCAs":         {url: "nats://%s", opts: []nats.Option{nats.WithNATSOptions(natsgo.RootCAs(ca.Path("ca.pem")))}},
		"tls:// of another":      {url: "nats://%s", change: func(c *nats.Config) { c.URLs = append(c.URLs, "tls://127.0.0.1:1") }},
		"TLS:// of another":      {url: "nats://%s", change: func(c *nats.Config) { c.URLs = append([]string{"TLS://127.0.0.1:1"}, c.URLs...) }},
		"user in the URL":        {url: "tls://u:hunter2@%s", change: func(c *nats.Config) { c.Username, c.Password = "", "" }},
		"discovery names tls://": {url: "tls://%s", change: func(c *nats.Config) { c.URLs = []string{"nats://127.0.0.1:1"} }},
		"discovery, tls_enabled": {url: "nats://%s", change: func(c *nats.Config) { c.TLSEnabled, c.URLs = true, []string{"nats://127.0.0.1:1"} }},
	} {
		for _, background := range []bool{false, true} {
			t.Run(fmt.Sprint(name, " ", background), func(t *testing.T) {
				t.Parallel()
				p := newTap(t)
				url := fmt.Sprintf(c.url, p.address)
				cfg := with(url)
				opts := c.opts
				if c.change != nil {
					c.change(&cfg)
				}
				if strings.HasPrefix(name, "discovery") {
					opts = append(opts, nats.WithResolver(&naming{first: []string{url}}))
				}
				if background {
					opts = append(opts, nats.WithBackgroundConnect())
				}
				client, err := nats.NewClient(&cfg, opts...)
				if err == nil {
					eventually(t, "it was tried", func() bool { return p.tried.Load() > 2 })
					require.NoError(t, client.Close())
				} else {
					require.ErrorIs(t, err, nats.ErrNotConnected)
				}
				eventually(t, "it was tried", func() bool { return p.tried.Load() > 0 })
				assert.Empty(t, p.heard())
			})
		}
	}
}

// What changes the list of servers later changes nothing of that.
func TestNoCredentialsWithoutTLSLater(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	ca.Issue(t, "server", nil)
	for name, c := range map[string]struct {
		tls    bool                                                       // of the first server
		change func(t *testing.T, client *nats.Client, n *naming, p *tap) // after the connection stands
		hears  bool
	}{
		"the tap hears what is not protected": {change: func(_ *testing.T, _ *nats.Client, n *naming, p *tap) { n.changes <- []string{"nats://" + p.address} }, hears: true},
		"discovery names tls://":              {change: func(_ *testing.T, _ *nats.Client, n *naming, p *tap) { n.changes <- []string{"tls://" + p.address} }},
		"discovery names TLS://":              {change: func(_ *testing.T, _ *nats.Client, n *naming, p *tap) { n.changes <- []string{"TLS://" + p.address} }},
		"discovery changes nats to tls": {change: func(t *testing.T, client *nats.Client, n *naming, p *tap) {
			n.changes <- []string{n.first[0], "nats://" + p.address}
			n.changes <- []string{"tls://" + p.address}
			eventually(t, "it has taken effect", func() bool {
				pool := client.Conn().ServerPool()
				return len(pool) == 1 && pool[0].URL.Scheme == "tls"
			})
		}},
		"discovery names tls:// beside others": {change: func(_ *testing.T, _ *nats.Client, n *naming, p *tap) {
			n.changes <- []string{"nats://127.0.0.1:1", "tls://" + p.address}
		}},
		"a key demands it, discovery does not": {tls: true, change: func(_ *testing.T, _ *nats.Client, n *naming, p *tap) { n.changes <- []string{"nats://" + p.address} }},
		"the user names tls://": {change: func(t *testing.T, client *nats.Client, _ *naming, p *tap) {
			require.NoError(t, client.Conn().SetServerPool([]string{"tls://" + p.address}))
		}},
		"the user names TLS://": {change: func(t *testing.T, client *nats.Client, _ *naming, p *tap) {
			require.NoError(t, client.Conn().SetServerPool([]string{"TLS://" + p.address}))
		}},
		"a key demands it, the user does not": {tls: true, change: func(t *testing.T, client *nats.Client, _ *naming, p *tap) {
			require.NoError(t, client.Conn().SetServerPool([]string{"nats://" + p.address}))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newTap(t)
			opts := []natstest.Option{natstest.WithUser("u", "hunter2")}
			if c.tls {
				opts = append(opts, ca.offer(t))
			}
			s := natstest.RunServer(t, opts...)
			n := &naming{first: []string{s.URL()}, changes: make(chan []string)}
			client := connect(t, s, func(cfg *nats.Config) {
				cfg.Username, cfg.Password = "u", "hunter2"
				if c.tls {
					cfg.TLSCA = ca.Path("ca.pem")
				}
			}, nats.WithResolver(n))
			c.change(t, client, n, p)
			s.Stop()
			eventually(t, "it is tried", func() bool { return p.tried.Load() > 2 })
			if c.hears {
				assert.Contains(t, p.heard(), "hunter2", "the tap works")
			} else {
				assert.Empty(t, p.heard())
			}
		})
	}
}

// What is heard of over TLS is not told without it.
func TestNoCredentialsWithoutTLSToGossiped(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	ca.Issue(t, "server", nil)
	for name, c := range map[string]struct {
		discovered bool // the tls:// server is known from discovery alone
	}{
		"of a configured server": {},
		"of a discovered server": {discovered: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newTap(t)
			url := "tls://" + gossip(t, ca, p.address)
			cfg := &nats.Config{
				URLs: []string{url}, Username: "u", Password: "hunter2",
				ReconnectWait: 10 * time.Millisecond, ReconnectMaxWait: 20 * time.Millisecond,
			}
			opts := []nats.Option{nats.WithNATSOptions(natsgo.RootCAs(ca.Path("ca.pem")))}
			if c.discovered {
				cfg.URLs = []string{"nats://127.0.0.1:1"}
				opts = append(opts, nats.WithResolver(fixedServers{url}))
			}
			client, err := nats.NewClient(cfg, opts...)
			require.NoError(t, err)
			eventually(t, "the gossiped server is tried", func() bool { return p.tried.Load() > 2 })
			require.NoError(t, client.Close())
			assert.Empty(t, p.heard())
		})
	}
}
