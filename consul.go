package nats

import (
	"context"
	"log/slog"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consul"
)

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
