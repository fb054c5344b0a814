package health

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/auth"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consume"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/discovery"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lifecycle"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/receive"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

// Parts are those of a client that are looked at.
type Parts struct {
	Conn     *conn.Conn
	Subs     *receive.Engine
	Consumer *consume.Engine
	API      *jsapi.API         // nil without JetStream
	Servers  *discovery.Servers // nil without a discovery
	TLS      *auth.TLS
	Life     *lifecycle.Life
	Lost     *atomic.Bool // the connection was closed for good, and not by Close
	Log      *slog.Logger
}

// Checkup looks at a client.
type Checkup struct {
	Parts
	lookout lookout
	blind   atomic.Bool // it may not ask for the account's limits
}

// New returns the checkup of a client.
func New(p Parts) *Checkup {
	c := &Checkup{Parts: p}
	c.lookout.Ask = func(ctx context.Context) error { return c.Conn.RoundTrip(ctx, "health", "") }
	c.lookout.Warn = c.lookAround
	return c
}

// Report is all that can be known. The root package has the same structs, with their comments.
type Report struct {
	Problems, Warnings, Unknown []string
	Server                      string
	Reconnects                  uint64
	RTT                         time.Duration
	Discovery                   *Source
	Consumers                   []Consumer
}

// Source is what a discovery knows.
type Source struct {
	Servers []string
	Age     time.Duration
}

// Consumer is the state of a consumption.
type Consumer struct {
	Stream, Consumer string
	Healthy          bool
	Lag              uint64
}

const (
	// problemsShown is how many refused subscriptions are named one by one.
	problemsShown = 10
	// congested is for how long a server may take nothing before that is told, and it is not asked.
	congested = 2 * time.Second
)

var errSilent = errors.New("the server is silent")

// Report asks the server for a sign of life, JetStream for its state, and every consumer for its lag. Ctx must have a
// deadline.
func (c *Checkup) Report(ctx context.Context) (r Report) {
	counters, _ := c.Conn.Stats()
	r = Report{Server: c.Conn.Server(), Reconnects: counters.Reconnects, Discovery: c.source()}
	problem := func(what string, err error) {
		switch {
		case errors.Is(err, fault.ErrPermission):
			r.Unknown = append(r.Unknown, what+err.Error())
		case err != nil:
			r.Problems = append(r.Problems, what+err.Error())
		}
	}
	up := c.Conn.IsUp()
	switch stuck := c.Conn.Congestion(congested); {
	case c.Life.Context().Err() != nil:
		problem("connection: ", fault.ErrClosed)
	case !up:
		problem("connection: ", cmp.Or(c.Conn.LastError(), fault.ErrNotConnected))
	case stuck != nil: // no answer can be expected
		problem("connection: ", stuck)
	default:
		begin := time.Now()
		err := c.Conn.RoundTrip(ctx, "health", "")
		problem("connection: ", err)
		if err == nil {
			r.RTT = time.Since(begin)
		}
	}
	up = up && len(r.Problems) == 0
	r.Warnings = c.certificates()
	if c.API != nil && up {
		info, err := c.API.Account(ctx)
		problem("", jsapi.Wrap("JetStream", "", err))
		r.Warnings = append(r.Warnings, Account(info)...)
	}
	refused := 0
	for _, s := range c.Subs.All() {
		if err := s.Refused(); err != nil {
			if refused++; refused <= problemsShown {
				r.Problems = append(r.Problems, err.Error())
			}
		}
	}
	if refused > problemsShown {
		r.Problems = append(r.Problems, fmt.Sprintf("%d more subscriptions are refused", refused-problemsShown))
	}
	for _, s := range c.Consumer.All() {
		one := Consumer{Stream: s.Stream, Consumer: s.Consumer, Healthy: s.Healthy()}
		if up {
			lag, err := s.Lag(ctx)
			problem("consumer "+name(s)+": ", err)
			problem("consumer "+name(s)+": ", s.Crowded())
			one.Lag = lag
		}
		if up && !one.Healthy {
			r.Problems = append(r.Problems, "consumer "+name(s)+": "+cmp.Or(s.Trouble(), errSilent).Error())
		}
		r.Consumers = append(r.Consumers, one)
	}
	slices.SortFunc(r.Consumers, func(a, b Consumer) int {
		return cmp.Or(cmp.Compare(a.Stream, b.Stream), cmp.Compare(a.Consumer, b.Consumer))
	})
	return r
}

func name(s *consume.Consumption) string { return s.Stream + "/" + s.Consumer }

func (c *Checkup) source() *Source {
	if c.Servers == nil {
		return nil
	}
	urls, updated := c.Servers.Get()
	s := &Source{Servers: serverurl.RedactAll(urls)}
	if !updated.IsZero() {
		s.Age = time.Since(updated)
	}
	return s
}

// certificates warns of the server's certificates and of the client's own.
func (c *Checkup) certificates() []string {
	state, _ := c.Conn.TLSConnectionState() // without TLS, or a connection, there are none
	warnings := ending("server", state.PeerCertificates...)
	for _, pair := range c.TLS.Own() {
		if pair.Leaf != nil {
			warnings = append(warnings, ending("client", pair.Leaf)...)
		}
	}
	return warnings
}

// lookAround logs the warnings that are new, and returns all.
func (c *Checkup) lookAround(ctx context.Context) []string {
	warnings := c.certificates()
	if c.API != nil && !c.blind.Load() {
		info, err := c.API.Account(ctx)
		c.blind.Store(errors.Is(err, natsgo.ErrPermissionViolation))
		warnings = append(warnings, Account(info)...)
	}
	for _, warning := range warnings {
		if !slices.Contains(c.lookout.Last().Warnings, warning) {
			c.Log.Warn("health", "warning", warning)
		}
	}
	return warnings
}
