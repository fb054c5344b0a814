package nats

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consul"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

// WatchingResolver is a Resolver that also tells of changes. The client follows one for as long as
// it lives and keeps the connection's servers as it names them.
type WatchingResolver interface {
	Resolver
	// Watch calls update with the servers at every change, until ctx ends. An empty list is
	// ignored: the last known servers are kept.
	Watch(ctx context.Context, update func(urls []string)) error
}

// serverSet is what discovery knows of the servers.
type serverSet struct {
	mu      sync.Mutex
	urls    []string
	updated time.Time // zero while the configured URLs stand in
}

func (s *serverSet) set(urls []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.urls, s.updated = slices.Clone(urls), time.Now()
}

// fallBack records that the configured URLs stand in.
func (s *serverSet) fallBack(urls []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.urls = slices.Clone(urls)
}

func (s *serverSet) get() ([]string, time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.urls), s.updated
}

// The pauses between two attempts to follow.
const (
	followRetryMin = 200 * time.Millisecond
	followRetryMax = 10 * time.Second
)

// setupResolver chooses who finds the servers.
func (c *Client) setupResolver() error {
	c.resolver = c.opts.resolver
	if c.resolver == nil && c.cfg.UseConsul {
		r, err := consul.New(consul.Config(c.cfg.Consul), c.cfg.ServiceName, c.cfg.GRPCPort, c.log)
		if err != nil {
			return err
		}
		c.resolver = r
	}
	_, c.watching = c.resolver.(WatchingResolver)
	return nil
}

// discoverServers returns the URLs to dial.
func (c *Client) discoverServers(ctx context.Context) ([]string, error) {
	if c.resolver == nil {
		return c.cfg.URLs, nil
	}
	timeout := c.cfg.Timeout
	if c.opts.resolver == nil {
		timeout = c.cfg.Consul.Timeout
	}
	log := c.log
	if known, _ := c.servers.get(); known != nil {
		log = slog.New(slog.DiscardHandler) // it has been said
	}
	urls, err := discover(ctx, c.resolver, timeout, c.cfg.URLs, log)
	if err == nil {
		if err = checkServers(urls); err != nil {
			return nil, err
		}
		c.servers.set(urls)
		return urls, nil
	}
	if log == c.log {
		c.emit(Event{Type: EventServersFallback, Err: err})
	}
	c.servers.fallBack(urls)
	return urls, nil
}

// checkServers refuses URLs of a resolver that upstream would refuse with their text, which may
// hold a password.
func checkServers(urls []string) error {
	for _, raw := range urls {
		if _, err := serverurl.Parse(raw, false); err != nil {
			return fail("discover", serverurl.Redact(raw), ErrInvalidConfig, "the URL of a server %w", err)
		}
	}
	return nil
}

// follow asks the resolver for changes until the client is closed.
func (c *Client) follow() {
	for failures := 1; ; failures++ {
		err := c.watchServers()
		if c.life.Context().Err() != nil || err == nil {
			return
		}
		c.log.Warn("the resolver stopped telling of servers; it is asked again", "error", err)
		if !pause.Sleep(c.life.Context(), pause.Backoff(failures, followRetryMin, followRetryMax)) {
			return
		}
	}
}

// watchServers runs the resolver's watch, or asks a resolver without one once, and contains its
// panics. It returns nil when there is nothing more to ask.
func (c *Client) watchServers() (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the resolver panicked: %v", v)
		}
	}()
	if w, ok := c.resolver.(WatchingResolver); ok {
		return w.Watch(c.life.Context(), c.setServers)
	}
	urls, err := c.resolver.Resolve(c.life.Context())
	if err == nil {
		c.setServers(urls)
	}
	return err
}

// setServers takes a new list of servers. Upstream would accept an empty one and close the
// connection at the next reconnect.
func (c *Client) setServers(urls []string) {
	if len(urls) == 0 || c.life.Context().Err() != nil {
		return
	}
	known, _ := c.servers.get()
	if sameSet(known, urls) {
		c.servers.set(urls)
		return
	}
	err := checkServers(urls)
	if err == nil {
		err = c.nc.SetServerPool(urls)
	}
	if err != nil {
		c.log.Error("the servers from discovery are unusable", "servers", serverurl.RedactAll(urls), "error", err)
		c.emit(Event{Type: EventAsyncError, Err: wrap("set servers", "", err)})
		return
	}
	c.servers.set(urls)
	c.log.Info("the NATS servers changed", "servers", serverurl.RedactAll(urls))
	c.emit(Event{Type: EventServersChanged})
	up, _, _ := c.link.state()
	switch {
	case !up:
		// The pause before the next attempt was meant for the old servers.
		_ = c.nc.ForceReconnect()
	case c.cfg.Consul.Evict && !serverurl.Names(urls, c.serverURL()):
		c.leave(&departure{reason: "discovery does not name it any more", servers: c.otherServers})
	}
}

func sameSet(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}
