package nats

import (
	"context"
	"slices"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

// A server that shuts down gives its clients 10 s, unless it is configured otherwise.
const (
	// bridgeBudget bounds how long handlers of queue groups may take to finish, before the move and
	// after it.
	bridgeBudget = 5 * time.Second
	// moveTimeout bounds how long publishers may be held back.
	moveTimeout = time.Second
)

// onLameDuck leaves a server that is about to shut down before it throws the client out.
func (c *Client) onLameDuck() {
	c.log.Warn("the NATS server is shutting down", "server", serverurl.Redact(c.serverURL()))
	c.emit(Event{Type: EventLameDuck})
	moved, err := c.life.Begin()
	if err != nil {
		return
	}
	go func() {
		defer moved()
		c.leave(c.otherServers())
	}()
}

// serverPool returns the URLs that upstream chooses from.
func (c *Client) serverPool() []string {
	var urls []string
	for _, server := range c.nc.ServerPool() {
		urls = append(urls, server.URL.String())
	}
	return urls
}

// otherServers is serverPool without the present server.
func (c *Client) otherServers() []string {
	present := c.serverURL()
	return slices.DeleteFunc(c.serverPool(), func(raw string) bool { return serverurl.Names([]string{raw}, present) })
}

// leave moves to another connection at will, without a failed request, a lost publish or a message
// delivered twice: a bridge to one of the servers receives meanwhile, and requests in flight go on
// waiting. Subscriptions outside of queue groups miss what is published while the connection is
// replaced, as in every reconnect of NATS.
func (c *Client) leave(servers []string) {
	_, breaks, _ := c.link.state()
	c.leaving.Lock()
	defer c.leaving.Unlock()
	if up, now, _ := c.link.state(); !up || now != breaks || len(servers) == 0 {
		return // it was left meanwhile, or there is nowhere to go but to its successor
	}
	bridge := c.openBridge(servers)
	c.move(bridge.stands)
	bridge.close(breaks)
	c.link.bridgeGone()
}

// move replaces the connection without losing what was published: publishers wait at the gate while
// the server confirms everything sent, and what they publish afterwards goes to the reconnect buffer.
// It returns once the old connection is given up.
func (c *Client) move(bridged bool) {
	gate := make(chan struct{})
	c.gate.Store(&gate)
	defer func() {
		c.gate.Store(nil)
		close(gate)
	}()
	ctx, cancel := context.WithTimeout(c.life.Context(), moveTimeout)
	defer cancel()
	if err := c.roundTrip(ctx, "move", ""); err != nil {
		c.log.Warn("moving to another server without the old one's confirmation", "error", err)
	}
	if bridged {
		c.link.bridgeNext()
	}
	if err := c.nc.ForceReconnect(); err != nil {
		c.log.Warn("cannot move to another server", "error", err)
	}
}

// isMoving tells whether passGate would wait.
func (c *Client) isMoving() bool { return c.gate.Load() != nil }

// passGate waits while a move holds publishers back, which is for a round trip to the server.
func (c *Client) passGate() {
	if gate := c.gate.Load(); gate != nil {
		<-*gate
	}
}
