package nats

import (
	"context"
	"time"
)

// moveTimeout bounds how long publishers may be held back by a move.
const moveTimeout = time.Second

// move leaves the server for another one of the pool without losing what was published: publishers
// wait at the gate while the server confirms everything sent, and what they publish afterwards goes
// to the reconnect buffer. It returns once the old connection is given up. Requests in flight go on
// waiting on the new connection.
func (c *Client) move(ctx context.Context) {
	c.moving.Lock()
	defer c.moving.Unlock()
	gate := make(chan struct{})
	c.gate.Store(&gate)
	defer func() {
		c.gate.Store(nil)
		close(gate)
	}()
	ctx, cancel := context.WithTimeout(ctx, moveTimeout)
	defer cancel()
	if err := c.roundTrip(ctx, "move", ""); err != nil {
		c.log.Warn("moving to another server without the old one's confirmation", "error", err)
	}
	if err := c.nc.ForceReconnect(); err != nil {
		c.log.Warn("cannot move to another server", "error", err)
	}
}

// passGate waits while a move holds publishers back, which is for a round trip to the server.
func (c *Client) passGate() {
	if gate := c.gate.Load(); gate != nil {
		<-*gate
	}
}
