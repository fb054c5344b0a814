package nats

import (
	"errors"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

// hook puts the client's callbacks in front of those that the user set through WithNATSOptions.
// They come one at a time, on a goroutine of nats.go's own, and may come before NewClient has the
// connection in its hands: each of them waits for that.
func (c *Client) hook(o *natsgo.Options) {
	asyncError, disconnected, reconnected := o.AsyncErrorCB, o.DisconnectedErrCB, o.ReconnectedCB
	closed, lameDuck, failed := o.ClosedCB, o.LameDuckModeHandler, o.ReconnectErrCB
	c.userError.Store(&asyncError)
	o.AsyncErrorCB = func(nc *natsgo.Conn, sub *natsgo.Subscription, err error) {
		if c.owns(nc) {
			c.onAsyncError(sub, err)
		}
		if asyncError != nil {
			asyncError(nc, sub, err)
		}
	}
	o.DisconnectedErrCB = func(nc *natsgo.Conn, err error) {
		if c.owns(nc) {
			c.onDisconnected(err)
		}
		if disconnected != nil {
			disconnected(nc, err)
		}
	}
	o.ReconnectedCB = func(nc *natsgo.Conn) {
		if c.owns(nc) {
			c.onReconnected()
		}
		if reconnected != nil {
			reconnected(nc)
		}
	}
	o.ReconnectErrCB = func(nc *natsgo.Conn, err error) {
		if c.owns(nc) {
			c.onReconnectFailed(err)
		}
		if failed != nil {
			failed(nc, err)
		}
	}
	o.ClosedCB = func(nc *natsgo.Conn) {
		if c.owns(nc) {
			c.onClosed()
		}
		if closed != nil {
			closed(nc)
		}
	}
	o.LameDuckModeHandler = func(nc *natsgo.Conn) {
		if c.owns(nc) {
			c.onLameDuck()
		}
		if lameDuck != nil {
			lameDuck(nc)
		}
	}
}

// owns waits for NewClient and tells whether it kept the connection.
func (c *Client) owns(nc *natsgo.Conn) bool {
	<-c.ready
	return c.nc == nc
}

func (c *Client) onConnected(nc *natsgo.Conn) {
	if !c.owns(nc) {
		return
	}
	c.noteServer()
	c.link.set(true)
	c.outage.end()
	c.log.Info("connected to NATS", "server", serverurl.Redact(c.serverURL()), "name", c.name())
	c.emit(Event{Type: EventConnected})
}

func (c *Client) onDisconnected(err error) {
	c.link.set(false)
	if c.isClosing() {
		return // upstream reports the end of Close as a disconnect
	}
	broke := time.Now()
	c.gap.CompareAndSwap(nil, &broke) // a move has said before since when
	lost := c.sent.unconfirmed(c.nc.Stats())
	c.log.Warn("disconnected from NATS; reconnecting", "error", err, "unconfirmed_bytes", lost)
	c.emit(Event{Type: EventDisconnected, Err: err, Bytes: lost})
	go c.watchOutage()
}

func (c *Client) onReconnected() {
	c.noteServer()
	c.link.set(true)
	c.outage.end()
	var gap time.Duration
	if begin := c.gap.Swap(nil); begin != nil {
		gap = time.Since(*begin)
	}
	c.log.Info("reconnected to NATS", "server", serverurl.Redact(c.serverURL()), "gap", gap)
	c.emit(Event{Type: EventReconnected, Gap: gap})
}

// onReconnectFailed reports why an attempt failed, once for each reason in an outage.
func (c *Client) onReconnectFailed(err error) {
	if !c.outage.isNew(err) {
		return
	}
	c.log.Warn("cannot reconnect to NATS", "error", err)
	c.emit(Event{Type: EventReconnectFailed, Err: wrap("reconnect", "", err)})
}

// onClosed also runs when nats.go gives the connection up by itself, with the attempts used up.
func (c *Client) onClosed() {
	c.link.close()
	e := Event{Type: EventClosed}
	if !c.isClosing() {
		e.Err = &fault.Error{Op: "connection", Kind: ErrClosed, Cause: c.nc.LastError()}
		e.Bytes = c.sent.unconfirmed(c.nc.Stats())
		c.log.Error("the connection to NATS is closed for good", "error", e.Err, "unconfirmed_bytes", e.Bytes)
	}
	c.life.End()
	c.emit(e)
}

// onAsyncError takes the errors that nats.go can give to no call.
func (c *Client) onAsyncError(sub *natsgo.Subscription, err error) {
	defer c.denials.handled.Store(&err)
	switch {
	case c.subs.OnError(err):
		return // the Subscribe that caused it returns it
	case c.replies.deny(err):
		return // the Request that caused it returns it
	case c.async != nil && c.async.deny(err):
		return // the futures bring it
	case errors.Is(err, natsgo.ErrSlowConsumer):
		// One of upstream's own: a watcher's, or of the user's.
		dropped, _ := sub.Dropped() // it fails when the subscription has ended
		c.reportSlow(sub.Subject, sub.Queue, uint64(max(dropped, 0)))
		c.log.Warn(slowText, "subject", sub.Subject, "queue", sub.Queue, "dropped", max(dropped, 0))
		return
	case fault.DeniedBy(err).Publish:
		c.denials.published.Store(&err)
	}
	e := Event{Type: EventAsyncError, Err: wrap("connection", "", err)}
	if sub != nil {
		e.Subject, e.Queue = sub.Subject, sub.Queue
	} else {
		e.Subject = fault.DeniedBy(err).Subject
	}
	c.log.Warn("error on the NATS connection", "error", err, "subject", e.Subject, "queue", e.Queue)
	c.emit(e)
}

// tellUser calls the user's own handler for errors, as nats.go would have.
func (c *Client) tellUser(sub *natsgo.Subscription, err error) {
	if f := c.userError.Load(); f != nil && *f != nil && sub != nil {
		go (*f)(c.nc, sub, err)
	}
}
