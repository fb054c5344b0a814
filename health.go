package nats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

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
