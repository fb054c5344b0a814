package nats

import (
	"context"
	"log/slog"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consul"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/discovery"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

// Resolver finds the NATS servers at run time. [ConsulResolver] is the one that Config.UseConsul
// selects; any other registry can stand in its place. What it names is used as far as it can be: an
// entry that is no URL of a server is skipped with a warning, and so is, in a list that mixes them,
// what differs from the configured URLs in being ws:// or wss://.
type Resolver interface {
	// Resolve returns the URLs of the servers, best first: nats://, tls://, ws:// or wss://, host
	// and port. It returns when ctx ends at the latest. Finding no server is an error.
	Resolve(ctx context.Context) ([]string, error)
}

// WatchingResolver is a Resolver that also tells of changes. The client follows one for as long as
// it lives and keeps the connection's servers as it names them.
type WatchingResolver interface {
	Resolver
	// Watch calls update with the servers at every change, until ctx ends. An empty list is
	// ignored: the last known servers are kept. When it returns earlier it is called again.
	Watch(ctx context.Context, update func(urls []string)) error
}

// setupDiscovery chooses who finds the servers.
func (c *Client) setupDiscovery() error {
	c.servers = &discovery.Finder{Configured: c.cfg.URLs, Within: c.cfg.Timeout, Reports: discoveryReports{c}}
	if c.opts.resolver != nil {
		c.servers.Resolver = c.opts.resolver
		return nil
	}
	c.servers.Within = c.cfg.Consul.Timeout
	if !c.cfg.UseConsul {
		return nil
	}
	r, err := consul.New(consul.Config(c.cfg.Consul), c.cfg.ServiceName, c.cfg.GRPCPort, c.log)
	if err == nil {
		c.servers.Resolver = r
	}
	return err
}

// discoveryReports turns what discovery tells into log lines and events.
type discoveryReports struct{ c *Client }

func (r discoveryReports) FellBack(ctx context.Context, err error) {
	// The servers are counted, not listed: their URLs may hold passwords.
	r.c.log.WarnContext(ctx, "discovery failed, using the configured servers", "servers", len(r.c.cfg.URLs), "error", err)
	r.c.emit(Event{Type: EventServersFallback, Err: err})
}

func (r discoveryReports) Skipped(wrong string) {
	r.c.log.Warn("servers from discovery are skipped", "reason", wrong)
}

func (r discoveryReports) Ended(err error) {
	r.c.log.Warn("the resolver stopped telling of servers; it is asked again", "error", err)
}

func (r discoveryReports) Unusable(err error) {
	r.c.log.Error("the servers from discovery are unusable", "error", err)
	r.c.emit(Event{Type: EventAsyncError, Err: wrap("set servers", "", err)})
}

func (r discoveryReports) Changed(urls []string) {
	c := r.c
	c.log.Info("the NATS servers changed", "servers", fault.Few(serverurl.RedactAll(urls), ", ", 20))
	c.emit(Event{Type: EventServersChanged})
	if c.cfg.Consul.Evict && c.conn.IsUp() && !serverurl.Names(urls, c.conn.Server()) {
		c.conn.Depart(conn.Departure{Reason: "discovery does not name it any more", Unlisted: true})
	}
}

// ConsulResolver finds the NATS servers that are registered as a service in Consul. It is safe for
// concurrent use. Between two queries it holds neither a connection nor a goroutine, so that there
// is nothing to close.
//
// Only instances whose checks all pass count. The parts of an instance's URL are:
//
//   - scheme: "nats", or what the service meta "scheme" says: nats, tls, ws or wss;
//   - host: the address of the tagged address "nats", else the service's address, else its node's;
//   - port: the port of the tagged address "nats", else the service meta "nats_port", else the
//     service's port. The tagged address comes first because it is registered as a whole: its host
//     with another's port could be an endpoint that nobody listens on.
//
// An instance that is left with the port of the gRPC gateway (Config.GRPCPort, 50056 by default)
// names no NATS port and is the gateway itself. It is skipped with a warning, as is an instance
// whose registration makes no URL; the others are used all the same. An answer is read up to 8 MiB.
type ConsulResolver struct{ resolver *consul.Resolver }

// NewConsulResolver returns a resolver for the instances of service. It refuses what could never
// work before anything is sent: [ErrInvalidConfig] for cfg, [ErrInvalidArgument] for service.
//
// What cfg leaves empty is taken from the CONSUL_* variables of Consul's own tools. A token file is
// read at every query, so that a rotated token takes effect without a restart.
func NewConsulResolver(cfg ConsulConfig, service string) (*ConsulResolver, error) {
	r, err := consul.New(consul.Config(cfg), service, defaultGRPCPort, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	return &ConsulResolver{r}, nil
}

// Resolve asks Consul once, within ConsulConfig.Timeout. The URLs are in Consul's order, which is
// by distance when ConsulConfig.Near is set, and without duplicates.
//
// When no instance is usable, the error names the service, the datacenter and the tag and tells
// why instances were skipped. A token that is refused is [ErrAuthorization], one that may not read
// the service [ErrPermission]; a query that takes too long is [ErrTimeout].
func (r *ConsulResolver) Resolve(ctx context.Context) ([]string, error) {
	return r.resolver.Resolve(ctx)
}

// Watch calls update with the service's URLs, at once and then after every change, until ctx ends;
// it returns the error of ctx. It follows the service with blocking queries. An outage of Consul and
// an answer without a usable instance are logged and waited out, with pauses that double up to 10 s
// and have jitter: update is never called with an empty list.
func (r *ConsulResolver) Watch(ctx context.Context, update func(urls []string)) error {
	return r.resolver.Watch(ctx, update)
}
