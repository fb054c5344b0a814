package nats

import (
	"context"
	"slices"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

// The pauses while no other server stands.
const (
	movePauseMin = 100 * time.Millisecond
	movePauseMax = 2 * time.Second
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
	c.log.Warn("the NATS server is shutting down", "server", serverurl.Redact(c.conn.Server()))
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
	present := c.conn.Server()
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
		c.moveAway(ctx, d)
	}()
}

// moveAway tries to leave the present server until another one stands or there is no need any more.
func (c *Client) moveAway(ctx context.Context, d *departure) {
	up, breaks, change := c.conn.State()
	for failures := 0; up; failures++ {
		servers := d.servers()
		if len(servers) == 0 {
			return
		}
		err := c.conn.Leave(ctx, servers, d.another, c.subs.Groups)
		up, now, _ := c.conn.State()
		switch {
		case err == nil, ctx.Err() != nil, !up, now != breaks:
			return
		case failures == 0:
			c.log.Warn("the server is to be left, but no other one stands; trying again",
				"server", serverurl.Redact(c.conn.Server()), "reason", d.reason, "error", err)
			if !d.another { // a server that shuts down has its event
				c.emit(Event{Type: EventAsyncError, Err: wrap("leave server", "", err)})
			}
		}
		timer := time.NewTimer(pause.Backoff(failures+1, movePauseMin, movePauseMax))
		select {
		case <-timer.C:
		case <-change:
			return // it was left meanwhile
		case <-ctx.Done():
			return
		}
		timer.Stop()
	}
}
