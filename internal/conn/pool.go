package conn

import (
	"context"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

// name takes the URLs for those of servers that the user or a discovery has named.
func (c *Conn) name(urls []string) ([]*url.URL, error) {
	pool, err := parseAll(urls)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, u := range pool {
		if host := hostOf(u); !c.named[host] {
			c.named[host] = true
			delete(c.attempts, host)
		}
		if u.Scheme == "tls" || u.Scheme == "wss" {
			c.demanded[hostOf(u)] = true
		}
	}
	return pool, nil
}

// order returns what a round tries: in random order, unless the user wants theirs, and the server that was
// left last.
func (c *Conn) order(pool []*url.URL) []server {
	c.mu.Lock()
	defer c.mu.Unlock()
	order := slices.Clone(pool)
	if !c.o.NATS.NoRandomize {
		rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] }) //nolint:gosec // not a secret
	}
	var left, last []server
	for _, u := range order {
		s := server{url: u, name: u.Hostname()}
		host := hostOf(u)
		s.tls = c.o.NATS.Secure || u.Scheme == "tls" || u.Scheme == "wss" || c.demanded[host]
		if c.lastName != "" && !c.named[host] && net.ParseIP(s.name) != nil {
			s.name = c.lastName // an address that servers gossip is of the cluster that has the name
		}
		switch present := c.present.Load(); {
		case c.o.NATS.MaxReconnect >= 0 && !c.o.Discovered && c.attempts[host] >= max(c.o.NATS.MaxReconnect, 1): // at all
		case present != nil && hostOf(present.server.url) == host:
			last = append(last, s)
		default:
			left = append(left, s)
		}
	}
	return append(left, last...)
}

func parseAll(urls []string) ([]*url.URL, error) {
	pool := make([]*url.URL, 0, len(urls))
	for _, raw := range urls {
		u, err := parse(raw)
		if err != nil {
			return nil, fault.New("connect to", serverurl.Redact(raw), fault.ErrInvalidConfig, "%w", err)
		}
		pool = append(pool, u)
	}
	return pool, nil
}

// parse reads a URL as nats.go does, so that both know the server by the same host and port.
func parse(raw string) (*url.URL, error) {
	u, err := serverurl.Parse(raw, false)
	if err != nil {
		return nil, err
	}
	u.Host = serverurl.Address(u)
	return u, nil
}

// SetServers replaces the servers. The present connection stays; without one, the new servers are tried at
// once.
func (c *Conn) SetServers(urls []string) error {
	c.mu.Lock()
	clear(c.named)
	c.mu.Unlock()
	if _, err := c.name(urls); err != nil {
		return err
	}
	// A list is told of once: it waits until there is room, or the line that has none is dead.
	ctx, cancel := context.WithTimeout(c.ctx, 2*maxPatience)
	defer cancel()
	leave, err := c.Enter(ctx, 0)
	if err != nil {
		return err
	}
	defer leave.Leave()
	if len(urls) > manyServers {
		_ = c.nc.SetServerPool(urls[:1]) // nats.go compares each old server with each new one
	}
	if err := c.nc.SetServerPool(urls); err != nil {
		return err
	}
	if !c.IsUp() {
		return c.nc.ForceReconnect()
	}
	return nil
}

// manyServers are not compared with as many.
const manyServers = 1_000
