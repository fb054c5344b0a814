package nats

import (
	"context"
	"errors"
	"net"
	"net/url"
	"slices"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

// How long the steps of a move may take. A server that shuts down gives its clients 10 s, unless it is
// configured otherwise.
const (
	probeTimeout   = 2 * time.Second // for each server
	releaseTimeout = 3 * time.Second
	answerWait     = 500 * time.Millisecond // of a request, before the connection is given up
	moveTimeout    = time.Second            // for the old server to confirm what was published
	movePauseMin   = 100 * time.Millisecond // while no other server stands
	movePauseMax   = 2 * time.Second
)

// departure is a wish to leave the present server.
type departure struct {
	reason  string
	servers func() []string // to go to; none ends the wish
	another bool            // than the present one, whatever its address

	cancel context.CancelFunc
	over   chan struct{}
}

// onLameDuck leaves a server that is about to shut down before it throws the client out.
func (c *Client) onLameDuck() {
	c.log.Warn("the NATS server is shutting down", "server", serverurl.Redact(c.serverURL()))
	c.emit(Event{Type: EventLameDuck})
	// The address of the present server may be that of others, too.
	c.leave(&departure{reason: "it is shutting down", servers: c.serverPool, another: true})
}

// serverPool returns the URLs that upstream chooses from.
func (c *Client) serverPool() []string {
	var urls []string
	for _, server := range c.nc.ServerPool() {
		urls = append(urls, server.URL.String())
	}
	return urls
}

// otherServers is serverPool, or nothing when the present server is in it.
func (c *Client) otherServers() []string {
	present := c.serverURL()
	pool := c.serverPool()
	if slices.ContainsFunc(pool, func(raw string) bool { return serverurl.Names([]string{raw}, present) }) {
		return nil
	}
	return pool
}

// leave moves to another connection in the background, as soon as one is sure to stand. The last wish to
// leave takes the place of the one before.
func (c *Client) leave(d *departure) {
	done, err := c.life.Begin()
	if err != nil {
		return
	}
	var ctx context.Context
	ctx, d.cancel = context.WithCancel(c.life.Context())
	d.over = make(chan struct{})
	before := c.departure.Swap(d)
	go func() {
		defer done()
		defer close(d.over)
		defer d.cancel()
		if before != nil {
			before.cancel()
			<-before.over
		}
		go func() {
			select {
			case <-c.life.Draining():
				d.cancel()
			case <-ctx.Done():
			}
		}()
		if breaks, ok := c.awaitOther(ctx, d); ok {
			c.move(ctx, breaks)
		}
	}()
}

// awaitOther returns when another server stands. It is false when there is no need to leave any more.
func (c *Client) awaitOther(ctx context.Context, d *departure) (breaks uint64, ok bool) {
	up, breaks, change := c.link.state()
	present := c.nc.ConnectedServerId()
	if !d.another {
		present = ""
	}
	for failures := 0; up; failures++ {
		servers := d.servers()
		if len(servers) == 0 {
			return 0, false
		}
		err := c.probe(ctx, servers, present)
		up, now, _ := c.link.state()
		switch {
		case ctx.Err() != nil || !up || now != breaks:
			return 0, false // it was left meanwhile
		case err == nil:
			return breaks, true
		case failures == 0:
			c.log.Warn("the server is to be left, but no other one stands; trying again",
				"server", serverurl.Redact(c.serverURL()), "reason", d.reason, "error", err)
			if !d.another { // a server that shuts down has its event
				c.emit(Event{Type: EventAsyncError, Err: wrap("leave server", "", err)})
			}
		}
		timer := time.NewTimer(pause.Backoff(failures+1, movePauseMin, movePauseMax))
		select {
		case <-timer.C:
		case <-change:
			up = false
		case <-ctx.Done():
			up = false
		}
		timer.Stop()
		if !up {
			break
		}
	}
	return 0, false
}

// move replaces the connection without losing what was published, an answer, or a message of a queue group
// that has a member elsewhere: the old server sends the groups no more and all of it is received, publishers
// wait at the gate while it confirms everything sent, and what they publish afterwards goes to the reconnect
// buffer. Subscriptions outside of queue groups miss what is published while the connection is replaced, as in
// every reconnect of NATS.
func (c *Client) move(ctx context.Context, breaks uint64) {
	begin := time.Now()
	releasing, cancel := context.WithTimeout(ctx, releaseTimeout)
	members, rejoin := c.subs.Release(releasing)
	cancel()
	defer rejoin()

	open := c.shutGate()
	defer open()
	if up, now, _ := c.link.state(); !up || now != breaks || ctx.Err() != nil {
		return
	}
	c.replies.settle(ctx, answerWait)
	confirming, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	if err := c.roundTrip(confirming, "move", ""); err != nil {
		c.log.Warn("moving to another server without the old one's confirmation", "error", err)
	}
	if members == 0 {
		begin = time.Now()
	}
	c.gap.Store(&begin)
	if err := c.nc.ForceReconnect(); err != nil {
		c.log.Warn("cannot move to another server", "error", err)
		return
	}
	if c.failing { // those who publish would be refused
		_ = c.link.waitPast(confirming, breaks)
	}
}

// errSameServer means that nobody but the server that is to be left answers.
var errSameServer = errors.New("it is the server that is to be left")

// probe returns nil when one of the servers, but not the one with that ID, lets the client in.
func (c *Client) probe(ctx context.Context, servers []string, except string) error {
	var failures fault.Joined
	for _, raw := range servers {
		err := c.probeOne(ctx, raw, except)
		if err == nil {
			return nil
		}
		failures = append(failures, wrap("connect to", serverurl.Redact(raw), err))
	}
	return failures
}

// probeOne connects to a server, with what the client would use, for a moment.
func (c *Client) probeOne(ctx context.Context, raw, except string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	o, err := c.natsOptions([]string{raw})
	if err != nil {
		return err
	}
	d := &dialer{client: c}
	o.CustomDialer = d
	o.Name += " (looks whether this server stands)"
	o.AllowReconnect = false
	o.AsyncErrorCB = func(*natsgo.Conn, *natsgo.Subscription, error) {}
	o.DisconnectedErrCB, o.ReconnectedCB, o.ReconnectErrCB = nil, nil, nil
	o.ConnectedCB, o.ClosedCB, o.LameDuckModeHandler = nil, nil, nil
	if o.TLSConfig != nil && o.TLSConfig.ServerName == "" {
		o.TLSConfig = o.TLSConfig.Clone()
		o.TLSConfig.ServerName = c.nameFor(raw)
	}
	release := d.bind(ctx)
	nc, err := o.Connect()
	if refusal := release(); refusal != nil && err != nil {
		err = refusal
	}
	if err != nil {
		return err
	}
	defer nc.Close()
	if except != "" && nc.ConnectedServerId() == except {
		return errSameServer
	}
	return nil
}

// nameFor returns the name that a server's certificate is to have where its URL has an address, as servers
// that others name have: that of the server connected to, or of the configured ones, as nats.go does.
func (c *Client) nameFor(raw string) string {
	for _, one := range append([]string{raw, c.serverURL()}, c.cfg.URLs...) {
		if u, err := url.Parse(one); err == nil && net.ParseIP(u.Hostname()) == nil {
			return u.Hostname()
		}
	}
	return ""
}

// shutGate holds publishers back until the returned function is called.
func (c *Client) shutGate() (open func()) {
	gate := make(chan struct{})
	c.gate.Store(&gate)
	return func() {
		c.gate.Store(nil)
		close(gate)
	}
}

// isMoving tells whether passGate would wait.
func (c *Client) isMoving() bool { return c.gate.Load() != nil }

// passGate waits while a move holds publishers back.
func (c *Client) passGate() {
	if gate := c.gate.Load(); gate != nil {
		<-*gate
	}
}
