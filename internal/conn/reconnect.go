package conn

import (
	"context"
	"errors"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

// errNotYet answers nats.go when it asks for a connection that is still being made.
var errNotYet = errors.New("the connection is being made")

// attempt is a round of connecting that nats.go waits for.
type attempt struct {
	pool   []*url.URL
	cancel context.CancelFunc
}

// choose is nats.go's ReconnectToServerCB. Nats.go calls it with its lock held, and then sleeps without it,
// until the goroutine that connects wakes it with ForceReconnect; Dial hands the line over.
func (c *Conn) choose(pool []natsgo.Server, _ natsgo.ServerInfo) (*natsgo.Server, time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ready != nil {
		for i := range pool {
			if pool[i].URL.Host == c.ready.server.url.Host && !c.forbidden(c.ready) {
				return &pool[i], 0
			}
		}
		c.ready.discard() // its server is no longer one of ours, or not without TLS
		c.ready = nil
	}
	urls := make([]*url.URL, 0, len(pool))
	for i := range pool {
		urls = append(urls, pool[i].URL)
	}
	sameHost := func(a, b *url.URL) bool { return a.Host == b.Host }
	if c.attempt != nil && !slices.EqualFunc(c.attempt.pool, urls, sameHost) {
		c.attempt.cancel()
		c.attempt = nil
	}
	if c.attempt == nil && c.ctx.Err() == nil {
		a := &attempt{pool: urls}
		var ctx context.Context
		ctx, a.cancel = context.WithCancel(c.ctx)
		c.attempt = a
		go c.connect(ctx, a)
	}
	return &pool[0], time.Hour
}

// forbidden tells whether TLS has been demanded of a line's server since the line was made. The caller holds
// c.mu.
func (c *Conn) forbidden(l *line) bool { return c.demanded[hostOf(l.server.url)] && !l.server.tls }

// connect makes one round and wakes nats.go. It ends early when another attempt takes its place or the
// connection is closed.
func (c *Conn) connect(ctx context.Context, a *attempt) {
	defer a.cancel()
	select {
	case <-c.born:
	case <-ctx.Done():
		return
	}
	c.mu.Lock()
	rounds := c.rounds
	c.mu.Unlock()
	if rounds > 0 && !pause.Sleep(ctx, c.backoff(rounds)) {
		return
	}
	servers := c.order(a.pool)
	l, failures := c.round(ctx, servers)
	c.mu.Lock()
	if c.attempt != a || c.ctx.Err() != nil {
		c.mu.Unlock()
		if l != nil {
			l.discard()
		}
		return
	}
	c.attempt = nil
	c.ready = l
	if l == nil {
		c.rounds++
		c.note(failures)
	}
	c.mu.Unlock()
	if l == nil && len(servers) == 0 {
		c.nc.Close() // every server has had its attempts
		return
	}
	_ = c.forceReconnect() // it fails when the connection is closed
}

// forceReconnect makes nats.go ask for a line.
func (c *Conn) forceReconnect() error {
	if c.o.BeforeHandOver != nil {
		c.o.BeforeHandOver()
	}
	return c.nc.ForceReconnect()
}

// backoff returns a pause with full jitter whose bound doubles with every round, so that the clients of a
// server that died do not return together.
func (c *Conn) backoff(rounds int) time.Duration {
	o := c.o.NATS
	wait := pause.Jitter(rounds, o.ReconnectWait, c.o.ReconnectMaxWait)
	switch jitter := o.ReconnectJitter; {
	case o.Secure && o.ReconnectJitterTLS != natsgo.DefaultReconnectJitterTLS:
		return wait + pause.Jitter(1, o.ReconnectJitterTLS, o.ReconnectJitterTLS)
	case !o.Secure && jitter != natsgo.DefaultReconnectJitter:
		return wait + pause.Jitter(1, jitter, jitter)
	}
	return wait
}

// note remembers why a round failed, and reports the reasons that are new. The caller holds c.mu.
func (c *Conn) note(failures []*ServerError) {
	var causes fault.Joined
	for _, f := range failures {
		c.attempts[f.host]++
		causes = append(causes, f)
		if callback := c.o.NATS.ReconnectErrCB; callback != nil {
			c.users.Push(func() { callback(c.nc, f) })
		}
		if reason := reasonOf(f.Err); !c.reasons[reason] {
			c.reasons[reason] = true
			c.told.Push(func() { c.reports.Failed(f) })
		}
	}
	if len(causes) > 0 {
		c.failure = causes
	}
}

// dialer is what nats.go dials with.
type dialer struct{ c *Conn }

// Dial hands over the line that stands. Nats.go holds its lock.
func (d dialer) Dial(_, address string) (net.Conn, error) {
	c := d.c
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.ready
	if l == nil || l.server.url.Host != address {
		return nil, errNotYet
	}
	c.ready = nil
	if l.websocket != nil {
		c.handOver(l)
	} else if c.nc != nil {
		c.nc.Opts.Secure = l.server.tls // the scheme of servers that it hears of
	}
	if c.longLines >= poisonous {
		l.lineLimit = c.o.MaxControlLine
	}
	l.maxPayload.Store(l.info.MaxPayload)
	l.shown = serverurl.Redact(l.server.url.String())
	c.present.Store(l)
	l.reader.onErr = func(text string) verdict { return c.onServerError(l, text) }
	l.reader.onInfo, l.reader.onPong = func(info []byte) { c.onInfo(l, info) }, l.ponged
	l.start(lineHooks{up: c.lineUp, down: c.lineDown, dropped: c.dropped})
	return l, nil
}

// SkipTLSHandshake tells nats.go that TLS has been seen to, but for websockets.
func (d dialer) SkipTLSHandshake() bool { return d.c.present.Load().websocket == nil }

// shortLived is for how long a connection must have stood for the next one to be made without a pause.
const shortLived = 500 * time.Millisecond

// poisonous is how many connections in a row a line that is too long may end right after the subscriptions
// were made, before the subscriptions whose lines are too long are left out: nats.go would make them again on
// every connection.
const poisonous = 3

// dropped reports what was not sent.
func (c *Conn) dropped(o operation) {
	c.told.Push(func() {
		if o.verb == "SUB" {
			c.reports.Unsubscribed(o.subject, o.line, c.o.MaxControlLine)
		} else {
			c.reports.Dropped(o.subject, o.payload, c.MaxPayload())
		}
	})
}

// lineUp is called with nats.go's lock held.
func (c *Conn) lineUp(l *line) {
	c.mu.Lock()
	first := !c.wasUp
	c.wasUp, c.upSince, c.failure, c.rounds = true, time.Now(), nil, 0
	var gap time.Duration
	if !c.gap.IsZero() {
		gap, c.gap = time.Since(c.gap), time.Time{}
	}
	clear(c.reasons)
	delete(c.attempts, hostOf(l.server.url))
	if name := l.server.url.Hostname(); net.ParseIP(name) == nil {
		c.lastName = name
	}
	c.demandOf(l, l.info)
	c.mu.Unlock()
	c.requests.proven.Store(false)
	c.requests.muted.Store(nil)
	if c.o.NATS.PingInterval > 0 {
		go l.watch(c.ctx, c.o.NATS.PingInterval, c.o.NATS.MaxPingsOut)
	}
	c.set(true)
	c.told.Push(func() { c.reports.Up(first, gap) })
}

// lineDown may be called with nats.go's lock held.
func (c *Conn) lineDown(l *line, err error) {
	if c.present.Load() != l {
		return
	}
	c.mu.Lock()
	refused, _ := errors.AsType[serverError](err)
	if time.Since(c.upSince) >= shortLived {
		c.flaps = 0
	} else if c.flaps++; refused == "" {
		c.rounds = c.flaps - 1 // one that stands and breaks, again and again, is made no faster than one that fails
	} else {
		c.rounds = c.flaps
	}
	if c.longLines++; c.flaps == 0 || !strings.HasPrefix(strings.ToLower(string(refused)), "maximum control line") {
		c.longLines = 0
	}
	c.failure = err
	if c.gap.IsZero() { // else a move has said since when
		c.gap = time.Now()
	}
	c.mu.Unlock()
	if c.set(false) && c.ctx.Err() == nil {
		c.told.Push(func() { c.reports.Down(err) })
	}
}

// onServerError decides on an -ERR.
func (c *Conn) onServerError(l *line, text string) verdict {
	v := judge(text)
	switch denial := denialOf(text); {
	case errors.Is(denial, natsgo.ErrMaxSubscriptionsExceeded):
		c.denied(l.roomless(denial))
	case denial != nil:
		c.denied(denial)
	case v == swallow:
		c.told.Push(func() { c.reports.Refused(serverError(text)) })
	default: // the server ends the connection, whatever is found out of that first
		var err error = serverError(text)
		l.reason.Store(&err)
	}
	return v
}

func (c *Conn) denied(err error) {
	if c.o.Denied == nil || !c.o.Denied(err) {
		c.told.Push(func() { c.reports.Refused(err) })
	}
}

// onInfo hears of the servers of the cluster, and of limits.
func (c *Conn) onInfo(l *line, text []byte) {
	if info, err := parseInfo(text); err == nil {
		l.maxPayload.Store(info.MaxPayload)
		c.mu.Lock()
		c.demandOf(l, info)
		c.mu.Unlock()
	}
}

// demandOf demands TLS of those whom a server names to which it was demanded. The caller holds c.mu.
func (c *Conn) demandOf(l *line, info natsgo.ServerInfo) {
	if l.server.tls {
		for _, host := range info.ConnectURLs {
			c.demanded[strings.ToLower(host)] = true
		}
	}
}
