package health

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consume"
)

// Options are those of one handler.
type Options struct {
	Grace    time.Duration // for which an outage does no harm
	Required []string      // consumptions, by stream and consumer or by the consumer alone
	Without  bool          // no outage does harm
	Details  bool          // are told
}

// Handler answers the probes livez and readyz.
func (c *Checkup) Handler(o Options) http.Handler {
	p := &probes{c, o}
	return handler(map[string]func(context.Context) answer{"livez": p.live, "readyz": p.ready})
}

// probes are those of one handler.
type probes struct {
	*Checkup
	o Options
}

func (p *probes) live(context.Context) answer { return p.answer(p.dead(), p.lookout.Last()) }

// dead is why the client can never work again, or "".
func (p *probes) dead() string {
	if p.Lost.Load() || p.Conn.IsClosed() && !p.Life.IsDraining() {
		return "the connection is closed for good"
	}
	return ""
}

func (p *probes) ready(ctx context.Context) answer {
	seen := p.lookout.Last()
	if p.Conn.IsUp() && !p.Life.IsDraining() {
		seen = p.lookout.Look(ctx, p.Life.Context())
	}
	reason, outage := p.dead(), p.outage(seen)
	switch {
	case reason != "":
	case p.Life.IsDraining():
		reason = "the client is closing"
	case !p.Conn.WasUp() && !p.o.Without:
		reason = "not connected yet"
	case outage > p.o.Grace && !p.o.Without:
		reason = "no connection"
	case slices.ContainsFunc(p.o.Required, func(name string) bool { return !p.has(name, running) }):
		reason = "a required consumption does not run"
	case outage == 0 && slices.ContainsFunc(p.o.Required, func(name string) bool { return p.has(name, ill) }):
		reason = "a required consumption is not healthy"
	}
	return p.answer(reason, seen)
}

// outage is for how long nothing has come from the server, if so: there is no connection, or it is silent.
func (p *probes) outage(seen sighting) time.Duration {
	up, down := p.Conn.Since()
	if down.IsZero() && !p.Conn.IsUp() {
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

// has tells whether one of the consumptions of that name is such.
func (p *probes) has(name string, such func(*consume.Consumption) bool) bool {
	return slices.ContainsFunc(p.Consumer.All(), func(s *consume.Consumption) bool { return isNamed(s, name) && such(s) })
}

func running(*consume.Consumption) bool { return true }

func ill(s *consume.Consumption) bool { return !s.Healthy() }

func isNamed(s *consume.Consumption, text string) bool {
	return text == s.Consumer || text == name(s)
}

// answer has the details where they are wanted.
func (p *probes) answer(reason string, seen sighting) answer {
	a := answer{Reason: reason}
	if !p.o.Details {
		return a
	}
	counters, _ := p.Conn.Stats()
	a.details = &details{
		Server: p.Conn.Server(), Connected: p.Conn.IsUp(), Outage: p.outage(seen).Seconds(),
		RTT: seen.RTT.Seconds(), Reconnects: counters.Reconnects, Warnings: seen.Warnings,
	}
	if err := p.Conn.LastError(); err != nil {
		a.Error = err.Error()
	}
	for _, s := range p.Consumer.All() {
		a.Consumptions = append(a.Consumptions, consumption{
			Name: name(s), Healthy: s.Healthy(),
			Required: slices.ContainsFunc(p.o.Required, func(name string) bool { return isNamed(s, name) }),
		})
	}
	for _, name := range p.o.Required {
		if !p.has(name, running) {
			a.Consumptions = append(a.Consumptions, consumption{Name: name, Required: true})
		}
	}
	if d := p.source(); d != nil {
		a.Discovery = &named{Servers: d.Servers, Age: d.Age.Seconds()}
	}
	return a
}
