package nats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consume"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/health"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
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

const (
	// problemsShown is how many refused subscriptions are named one by one.
	problemsShown = 10
	// congested is for how long a server may take nothing before Health tells, and does not ask it.
	congested = 2 * time.Second
)

var errSilent = errors.New("the server is silent")

// Health asks the server for a sign of life, JetStream for its state, where it is enabled, and every
// Consumption's consumer for its lag. What the client has no right to see is Unknown; all else that fails is one
// of the Problems: among them the reason for which the last attempt to reconnect failed, a refused TLS
// handshake included, a server that takes nothing for 2 s, and a subscription that the server refuses since
// a reconnect. Without a deadline in ctx, Config.RequestTimeout applies to all of it.
func (c *Client) Health(ctx context.Context) Health {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	h := Health{Server: serverurl.Redact(c.conn.Server()), Reconnects: c.Stats().Reconnects}
	problem := func(what string, err error) {
		switch {
		case errors.Is(err, ErrPermission):
			h.Unknown = append(h.Unknown, what+err.Error())
		case err != nil:
			h.Problems = append(h.Problems, what+err.Error())
		}
	}
	h.Discovery = c.discoveryHealth()
	up, _, _ := c.conn.State()
	switch stuck := c.conn.Congestion(congested); {
	case c.life.Context().Err() != nil:
		problem("connection: ", ErrClosed)
	case !up:
		problem("connection: ", cmp.Or(c.conn.LastError(), ErrNotConnected))
	case stuck != nil: // no answer can be expected
		problem("connection: ", stuck)
	default:
		begin := time.Now()
		err := c.roundTrip(ctx, "health")
		problem("connection: ", err)
		if err == nil {
			h.RTT = time.Since(begin)
		}
	}
	up = up && len(h.Problems) == 0
	h.Warnings = c.certificatesEnding()
	if c.js != nil && up {
		account, err := c.api.Account(ctx)
		problem("", jsapi.Wrap("JetStream", "", err))
		h.Warnings = append(h.Warnings, health.Account(account)...)
	}
	refused := 0
	for _, s := range c.subs.All() {
		if err := s.Refused(); err != nil {
			if refused++; refused <= problemsShown {
				h.Problems = append(h.Problems, err.Error())
			}
		}
	}
	if refused > problemsShown {
		h.Problems = append(h.Problems, fmt.Sprintf("%d more subscriptions are refused", refused-problemsShown))
	}
	for _, s := range c.consumer.All() {
		one := ConsumerHealth{Stream: s.Stream, Consumer: s.Consumer, Healthy: s.Healthy()}
		if up {
			lag, err := s.Lag(ctx)
			problem("consumer "+path(s.Stream, s.Consumer)+": ", err)
			problem("consumer "+path(s.Stream, s.Consumer)+": ", s.Crowded())
			one.Lag = lag
		}
		if up && !one.Healthy {
			problem("consumer "+path(s.Stream, s.Consumer)+": ", errSilent)
		}
		h.Consumers = append(h.Consumers, one)
	}
	slices.SortFunc(h.Consumers, func(a, b ConsumerHealth) int {
		return cmp.Or(cmp.Compare(a.Stream, b.Stream), cmp.Compare(a.Consumer, b.Consumer))
	})
	h.OK = len(h.Problems) == 0
	return h
}

func (c *Client) discoveryHealth() *DiscoveryHealth {
	if c.resolver == nil {
		return nil
	}
	urls, updated := c.servers.Get()
	d := &DiscoveryHealth{Servers: serverurl.RedactAll(urls)}
	if !updated.IsZero() {
		d.Age = time.Since(updated)
	}
	return d
}

// certificatesEnding warns of the server's certificates and of the client's own.
func (c *Client) certificatesEnding() []string {
	state, _ := c.conn.TLSConnectionState() // without TLS, or a connection, there are none
	warnings := health.Certificates("server", state.PeerCertificates...)
	for _, pair := range c.tls.Own() {
		if pair.Leaf != nil {
			warnings = append(warnings, health.Certificates("client", pair.Leaf)...)
		}
	}
	return warnings
}

// HealthOption changes what a HealthHandler answers.
type HealthOption func(*healthOptions)

type healthOptions struct {
	grace    time.Duration
	required []string
	without  bool
	details  bool
}

// WithGrace is for how long an outage does not make the service not ready. Defaults to 10 s: all instances of a
// service lose a server that restarts at the same moment, and none of them would be ready.
func WithGrace(d time.Duration) HealthOption { return func(o *healthOptions) { o.grace = d } }

// WithRequired makes the service not ready while one of these consumptions is not Healthy, or does not run.
// They are named by stream and consumer, "ORDERS/worker", or by the consumer alone. While there is no
// connection, their health is that of the connection.
func WithRequired(consumptions ...string) HealthOption {
	return func(o *healthOptions) { o.required = append(o.required, consumptions...) }
}

// WithoutConnection is for services that work without the broker: no outage makes them not ready, nor that no
// connection has stood yet.
func WithoutConnection() HealthOption { return func(o *healthOptions) { o.without = true } }

// WithDetails adds to the answers what operators want to see and strangers must not: the server, the last error,
// consumptions, what discovery knows, and the warnings. There are never credentials among them.
func WithDetails() HealthOption { return func(o *healthOptions) { o.details = true } }

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
	p := &probes{c: c, o: healthOptions{grace: 10 * time.Second}}
	for _, opt := range opts {
		if opt != nil {
			opt(&p.o)
		}
	}
	return health.Handler(map[string]func(context.Context) health.Answer{"livez": p.live, "readyz": p.ready})
}

// probes are those of one handler.
type probes struct {
	c *Client
	o healthOptions
}

func (p *probes) live(context.Context) health.Answer { return p.answer(p.dead(), p.c.lookout.Last()) }

// dead is why the client can never work again, or "".
func (p *probes) dead() string {
	if p.c.lost.Load() || p.c.conn.IsClosed() && !p.c.isClosing() {
		return "the connection is closed for good"
	}
	return ""
}

func (p *probes) ready(ctx context.Context) health.Answer {
	c := p.c
	seen := c.lookout.Last()
	if c.conn.IsUp() && !c.isClosing() {
		seen = c.lookout.Look(ctx, c.life.Context())
	}
	reason, outage := p.dead(), p.outage(seen)
	switch {
	case reason != "":
	case c.isClosing():
		reason = "the client is closing"
	case !c.conn.WasUp() && !p.o.without:
		reason = "not connected yet"
	case outage > p.o.grace && !p.o.without:
		reason = "no connection"
	case slices.ContainsFunc(p.o.required, func(name string) bool { return !p.runs(name, outage > 0) }):
		reason = "a required consumption is not healthy"
	}
	return p.answer(reason, seen)
}

// outage is for how long nothing has come from the server, if so: there is no connection, or it is silent.
func (p *probes) outage(seen health.Seen) time.Duration {
	up, down := p.c.conn.Since()
	if down.IsZero() && !p.c.conn.IsUp() {
		down = time.Now()
	}
	if seen.Silent.After(up) && (down.IsZero() || seen.Silent.Before(down)) {
		down = seen.Silent
	}
	if down.IsZero() {
		return 0
	}
	return max(time.Since(down), 1)
}

// runs tells whether the consumption of that name does, and whether all of that name are healthy.
func (p *probes) runs(name string, outage bool) (runs bool) {
	for _, s := range p.c.consumer.All() {
		if isNamed(s, name) {
			if runs = true; !outage && !s.Healthy() {
				return false
			}
		}
	}
	return runs
}

func isNamed(s *consume.Consumption, name string) bool {
	return name == s.Consumer || name == path(s.Stream, s.Consumer)
}

// answer has the details where they are wanted.
func (p *probes) answer(reason string, seen health.Seen) health.Answer {
	a, c := health.Answer{Reason: reason}, p.c
	if !p.o.details {
		return a
	}
	counters, _ := c.conn.Stats()
	a.Details = &health.Details{
		Server: serverurl.Redact(c.conn.Server()), Connected: c.conn.IsUp(), Outage: p.outage(seen).Seconds(),
		RTT: seen.RTT.Seconds(), Reconnects: counters.Reconnects, Warnings: seen.Warnings,
	}
	if err := c.conn.LastError(); err != nil {
		a.Error = err.Error()
	}
	for _, s := range c.consumer.All() {
		a.Consumptions = append(a.Consumptions, health.Consumption{
			Name: path(s.Stream, s.Consumer), Healthy: s.Healthy(),
			Required: slices.ContainsFunc(p.o.required, func(name string) bool { return isNamed(s, name) }),
		})
	}
	if d := c.discoveryHealth(); d != nil {
		a.Discovery = &health.Discovery{Servers: d.Servers, Age: d.Age.Seconds()}
	}
	return a
}

// lookAround logs the warnings that are new, and returns all.
func (c *Client) lookAround(ctx context.Context) []string {
	warnings := c.certificatesEnding()
	if c.js != nil && !c.blind.Load() {
		account, err := c.api.Account(ctx)
		c.blind.Store(errors.Is(err, natsgo.ErrPermissionViolation))
		warnings = append(warnings, health.Account(account)...)
	}
	for _, warning := range warnings {
		if !slices.Contains(c.lookout.Last().Warnings, warning) {
			c.log.Warn("health", "warning", warning)
		}
	}
	return warnings
}
