package conn

import (
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// MaxPatience is the longest patience that options can bring about.
const MaxPatience = maxPatience

// Told returns what nats.go is told.
func (c *Conn) Told() natsgo.Options { return c.natsOptions(false) }

// Patience returns how long the connection waits before it takes a line for dead.
func (c *Conn) Patience() time.Duration { return c.patience }

// SetPatience changes that for the lines to come.
func (c *Conn) SetPatience(d time.Duration) { c.patience = d }

// Wake is what the alarm of a quiet call does.
func (c *Conn) Wake(a *Call) { c.requests.wake(a) }
