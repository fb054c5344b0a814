package nats

import (
	"context"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
)

// bridge is a second connection that receives while the client's own is replaced. It takes the
// members of queue groups over. For pulls and requests both connections receive, so that there is
// no moment in which nobody does; copies are dropped.
type bridge struct {
	client *Client
	nc     *natsgo.Conn // nil when there is none
	spans  []span
	stands bool
}

// span is one queue subscription on the bridge.
type span struct {
	sub  *Subscription
	over *attachment // on the bridge
}

// interestTravels is how long both connections receive before one of them stops: a server confirms a
// subscription before the others of its cluster know of it.
const interestTravels = 50 * time.Millisecond

// openBridge returns when the bridge receives and what members of queue groups had received before
// is handled. Without a bridge the move cuts them short.
func (c *Client) openBridge(servers []string) *bridge {
	ctx, cancel := context.WithTimeout(c.life.Context(), bridgeBudget)
	defer cancel()
	b := &bridge{client: c}
	if err := b.open(ctx, servers); err != nil {
		c.log.Warn("cannot receive on another server while leaving this one", "error", err)
	}
	return b
}

func (b *bridge) open(ctx context.Context, servers []string) error {
	c := b.client
	nc, err := c.dialBridge(servers)
	if err != nil {
		return err
	}
	b.nc = nc
	c.inboxes.open(b)
	if _, err := nc.Subscribe(c.replies.prefix+"*", c.replies.deliver); err != nil {
		return err
	}
	var old []*attachment
	for _, s := range c.subscriptions() {
		before := s.attachments()
		if s.queue == "" || len(before) == 0 {
			continue
		}
		over, err := s.attach(nc, before[0].closed)
		if err != nil {
			continue // the subscription has ended
		}
		b.spans = append(b.spans, span{sub: s, over: over})
		old = append(old, before...)
	}
	if err := nc.FlushWithContext(ctx); err != nil {
		return err
	}
	pause.Sleep(ctx, interestTravels)
	c.drainAttachments(ctx, old)
	b.stands = true
	return nil
}

// receive takes what comes to a pull. A status has no identity by which its copy could be known: it is
// left to the client's own connection while that stands.
func (b *bridge) receive(inbox string, receive natsgo.MsgHandler) {
	_, err := b.nc.Subscribe(inbox, func(m *natsgo.Msg) {
		if up, _, _ := b.client.link.state(); m.Reply != "" || !up {
			receive(m)
		}
	})
	if err != nil {
		b.client.log.Warn("messages on their way to a pull may be delivered again", "error", err)
	}
}

// dialBridge connects to one of the servers, for a short time and without the client's callbacks.
func (c *Client) dialBridge(servers []string) (*natsgo.Conn, error) {
	o, err := c.natsOptions(servers)
	if err != nil {
		return nil, err
	}
	o.Name += " (leaving a server)"
	o.AllowReconnect = false
	o.AsyncErrorCB = func(*natsgo.Conn, *natsgo.Subscription, error) {}
	o.DisconnectedErrCB, o.ReconnectedCB, o.ReconnectErrCB = nil, nil, nil
	o.ConnectedCB, o.ClosedCB, o.LameDuckModeHandler = nil, nil, nil
	return o.Connect()
}

// close takes everything back to the client's connection, the next after the breaks-th break.
func (b *bridge) close(breaks uint64) {
	c := b.client
	ctx, cancel := context.WithTimeout(c.life.Context(), bridgeBudget)
	defer cancel()
	if err := c.link.waitPast(ctx, breaks); err != nil {
		c.log.Warn("leaving a server takes long", "error", err)
	}
	if b.nc == nil {
		return
	}
	var over []*attachment
	for _, s := range b.spans {
		over = append(over, s.over)
		_, _ = s.sub.attach(c.nc, s.over.closed) // it fails when the subscription has ended
	}
	if err := c.roundTrip(ctx, "subscribe", ""); err != nil {
		c.log.Warn("subscribing again takes long", "error", err)
	}
	pause.Sleep(ctx, interestTravels)
	c.drainAttachments(ctx, over)
	c.inboxes.close()
	b.nc.Close()
	pause.Sleep(ctx, interestTravels) // the copies of what it received last
	c.inboxes.seen.Store(nil)
}

// drainAttachments ends attachments when what they have received is handled. When ctx ends first, what
// waits behind the handlers is dropped.
func (c *Client) drainAttachments(ctx context.Context, attachments []*attachment) {
	for _, a := range attachments {
		_ = a.sub.Drain() // an attachment that has ended is drained
	}
	for _, a := range attachments {
		select {
		case <-a.closed:
		case <-ctx.Done():
			dropped, _, _ := a.sub.Pending() // the message being handled included
			_ = a.sub.Unsubscribe()
			if dropped > 1 {
				err := fail("leave server", a.sub.Subject, ErrDrainTimeout, "%d messages not handled", dropped-1)
				c.log.Error("messages dropped while leaving a server", "error", err, "queue", a.sub.Queue)
				c.emit(Event{Type: EventAsyncError, Subject: a.sub.Subject, Queue: a.sub.Queue, Err: err})
			}
		}
	}
}
