package nats

import (
	"context"
	"net/http"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/health"
)

// Health is what a readiness check wants to know. It is meant to be shown as JSON; durations are in
// nanoseconds there.
type Health struct {
	// OK tells whether the client can do all of its work; Problems say why not.
	OK       bool     `json:"ok"`
	Problems []string `json:"problems,omitempty"`
	// Warnings are of certificates that end within 7 days, and of limits of the account that are used to over 80 %.
	Warnings []string `json:"warnings,omitempty"`
	// Unknown is what the client's rights do not let it see, which is no problem.
	Unknown []string `json:"unknown,omitempty"`
	// Server is the present server's URL, or the last one's, without credentials.
	Server     string `json:"server"`
	Reconnects uint64 `json:"reconnects"`
	// RTT is how long the server took to answer; zero when it did not.
	RTT time.Duration `json:"rtt"`
	// Discovery is nil on a client without one.
	Discovery *DiscoveryHealth `json:"discovery,omitempty"`
	// Consumers are those that the client consumes.
	Consumers []ConsumerHealth `json:"consumers,omitempty"`
}

// DiscoveryHealth is what discovery knows.
type DiscoveryHealth struct {
	// Servers without credentials: those that discovery named last, or the configured ones.
	Servers []string `json:"servers"`
	// Age of the discovery's last answer; zero while the configured servers stand in for it.
	Age time.Duration `json:"age"`
}

// ConsumerHealth is the state of a Consumption.
type ConsumerHealth struct {
	Stream   string `json:"stream"`
	Consumer string `json:"consumer"`
	Healthy  bool   `json:"healthy"` // as Consumption.Healthy
	Lag      uint64 `json:"lag"`     // as Consumption.Lag; zero when it cannot be found out
}

// Health asks the server for a sign of life, JetStream for its state, where it is enabled, and every
// Consumption's consumer for its lag. What the client has no right to see is Unknown; all else that fails is one
// of the Problems: among them the reason for which the last attempt to reconnect failed, a refused TLS
// handshake included, a server that takes nothing for 2 s, and a subscription that the server refuses since
// a reconnect. Without a deadline in ctx, Config.RequestTimeout applies to all of it.
func (c *Client) Health(ctx context.Context) Health {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := c.conn.Deadline(ctx)
	defer cancel()
	r := c.checkup.Report(ctx)
	h := Health{
		OK: len(r.Problems) == 0, Problems: r.Problems, Warnings: r.Warnings, Unknown: r.Unknown, Server: r.Server,
		Reconnects: r.Reconnects, RTT: r.RTT, Discovery: (*DiscoveryHealth)(r.Discovery),
	}
	for _, one := range r.Consumers {
		h.Consumers = append(h.Consumers, ConsumerHealth(one))
	}
	return h
}

// HealthOption changes what a HealthHandler answers.
type HealthOption func(*healthOptions)

type healthOptions = health.Options

// WithGrace is for how long an outage does not make the service not ready. Defaults to 10 s: all instances of a
// service lose a server that restarts at the same moment, and none of them would be ready.
func WithGrace(d time.Duration) HealthOption { return func(o *healthOptions) { o.Grace = d } }

// WithRequired makes the service not ready while one of these consumptions is not Healthy, or does not run.
// They are named by stream and consumer, "ORDERS/worker", or by the consumer alone. While there is no
// connection, their health is that of the connection.
func WithRequired(consumptions ...string) HealthOption {
	return func(o *healthOptions) { o.Required = append(o.Required, consumptions...) }
}

// WithoutConnection is for services that work without the broker: no outage makes them not ready, nor that no
// connection has stood yet.
func WithoutConnection() HealthOption { return func(o *healthOptions) { o.Without = true } }

// WithDetails adds to the answers what operators want to see and strangers must not: the server, the last error,
// consumptions, what discovery knows, and the warnings. There are never credentials among them.
func WithDetails() HealthOption { return func(o *healthOptions) { o.Details = true } }

// HealthHandler answers the probes of an orchestrator, such as Kubernetes, at /livez and /readyz below the path
// where it is mounted (http.StripPrefix), to GET and HEAD, in JSON with times in seconds.
//
// /livez is 200 unless the connection was closed for good by something other than Close: only a new process
// helps then. /readyz is 503 before the first connection, in an outage that is longer than WithGrace, while a
// consumption of WithRequired is not Healthy, and from the first moment of Close. A server that does not answer
// is an outage, too. A consumer's lag makes nothing not ready, and neither do warnings, of certificates and of
// the account's limits: see Health. The log has the warnings, as do the answers with WithDetails.
//
// An answer takes 500 ms at most, whatever the connection does. However many probes there are, the server is
// asked once a second, and without any it is not asked.
func (c *Client) HealthHandler(opts ...HealthOption) http.Handler {
	return c.checkup.Handler(applied(healthOptions{Grace: 10 * time.Second}, opts))
}
