package nats

import (
	"context"
	"slices"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// evacuationBudget bounds how long the client takes to leave a server that is shutting down. The
// server's own grace period is 10 s unless it is configured otherwise.
const evacuationBudget = 5 * time.Second

// onLameDuck leaves a server that is about to shut down before it throws the client out.
func (c *Client) onLameDuck() {
	c.log.Warn("the NATS server is shutting down", "server", redactURL(c.serverURL()))
	c.emit(Event{Type: EventLameDuck})
	if c.beginWork() != nil {
		return
	}
	go func() {
		defer c.work.Done()
		c.evacuate()
	}()
}

// evacuate moves to another server of the pool without a failed request or a message delivered
// twice: members of queue groups go on receiving over a second connection while theirs moves, pulls
// settle, and requests in flight are answered before. Other subscriptions miss what is published
// while the connection moves, as in every reconnect of NATS.
func (c *Client) evacuate() {
	others := c.otherServers()
	if len(others) == 0 {
		return // there is nowhere to go; the reconnect will find the server's successor
	}
	ctx, cancel := context.WithTimeout(c.ctx, evacuationBudget)
	defer cancel()

	defer c.pulls.settle(ctx)()
	bridge := c.openBridge(ctx, others)
	defer c.replies.hold()()
	select {
	case <-c.replies.quiet():
	case <-ctx.Done():
	}
	_, breaks, _ := c.link.state()
	c.move(ctx)
	if err := c.link.waitPast(ctx, breaks); err != nil {
		c.log.Warn("leaving a server that shuts down takes long", "error", err)
	}
	bridge.close(ctx)
}

// otherServers returns the URLs of the pool without the present server's.
func (c *Client) otherServers() []string {
	present := c.serverURL()
	var others []string
	for _, server := range c.nc.ServerPool() {
		if raw := server.URL.String(); !namesServer([]string{raw}, present) {
			others = append(others, raw)
		}
	}
	return others
}

// bridge is a second connection over which the members of queue groups receive meanwhile.
type bridge struct {
	client *Client
	nc     *natsgo.Conn
	spans  []span
}

// span is one subscription on the bridge.
type span struct {
	sub  *Subscription
	over *attachment // on the bridge
}

// openBridge moves the queue subscriptions to a second connection and returns when what they had
// received on the first is handled. Without a bridge they stay, and the move cuts them short.
func (c *Client) openBridge(ctx context.Context, servers []string) *bridge {
	b := &bridge{client: c}
	queues := slices.DeleteFunc(c.subscriptions(), func(s *Subscription) bool { return s.queue == "" })
	if len(queues) == 0 {
		return b
	}
	nc, err := c.dialBridge(servers)
	if err != nil {
		c.log.Warn("cannot receive on another server while leaving this one", "error", err)
		return b
	}
	b.nc = nc
	var old []*attachment
	for _, s := range queues {
		before := s.attachments()
		if len(before) == 0 {
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
		c.log.Warn("cannot receive on another server while leaving this one", "error", err)
		return b
	}
	drainAttachments(ctx, old)
	return b
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

// close takes the subscriptions back to the client's connection.
func (b *bridge) close(ctx context.Context) {
	if b.nc == nil {
		return
	}
	defer b.nc.Close()
	var over []*attachment
	for _, s := range b.spans {
		over = append(over, s.over)
		if _, err := s.sub.attach(b.client.nc, s.over.closed); err != nil {
			continue // the subscription has ended
		}
	}
	if err := b.client.roundTrip(ctx, "subscribe", ""); err != nil {
		b.client.log.Warn("subscribing again takes long", "error", err)
	}
	drainAttachments(ctx, over)
}

// drainAttachments ends attachments when what they have received is handled.
func drainAttachments(ctx context.Context, attachments []*attachment) {
	for _, a := range attachments {
		_ = a.sub.Drain() // an attachment that has ended is drained
	}
	for _, a := range attachments {
		select {
		case <-a.closed:
		case <-ctx.Done():
			_ = a.sub.Unsubscribe()
		}
	}
}
