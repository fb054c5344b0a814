package conn

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// Pass is the leave to enter nats.go, whose lock its holder may take. It is given back by Leave.
type Pass struct {
	queue    *queue
	reserved int64
}

// Leave gives the pass back.
func (p Pass) Leave() {
	if p.reserved != 0 {
		p.queue.done(p.reserved)
	}
}

// Enter waits until a message of size bytes, 0 for what is small, can be sent without waiting inside of
// nats.go. Without a deadline in ctx, the request timeout bounds it.
func (c *Conn) Enter(ctx context.Context, size int) (Pass, error) {
	if pass, ok := c.enterNow(size); ok {
		return pass, nil
	}
	return c.enterLater(ctx, size)
}

// HasRoom tells whether Enter would not wait now.
func (c *Conn) HasRoom() bool {
	_, ok := c.enterNow(0)
	return ok
}

// Wait returns nil once the connection stands and has room, so that nats.go can be entered for what knows no
// room: its JetStream. It returns ErrClosed when that will never be, and ErrNotConnected when ctx ends first.
func (c *Conn) Wait(ctx context.Context) error {
	for {
		if err := c.link.Wait(ctx); err != nil {
			return err
		}
		switch pass, err := c.Enter(ctx, 0); {
		case err == nil:
			pass.Leave()
			return nil
		case c.IsClosed():
			return fault.ErrClosed
		case ctx.Err() != nil:
			return away(ctx)
		}
	}
}

func (c *Conn) enterNow(size int) (Pass, bool) {
	if c.gate.wait.Load() != nil {
		return Pass{}, false
	}
	l := c.present.Load()
	if l == nil {
		return Pass{}, true
	}
	reserved, ok := l.queue.reserve(size)
	return Pass{l.queue, reserved}, ok
}

// enterLater waits. A context without a deadline gets none of its own, which would cost more than the wait.
func (c *Conn) enterLater(ctx context.Context, size int) (Pass, error) {
	most := c.o.RequestTimeout
	if deadline, ok := ctx.Deadline(); ok {
		most = time.Until(deadline) + time.Second // ctx ends before
	}
	if err := c.gate.pass(ctx); err != nil {
		return Pass{}, err
	}
	l := c.present.Load()
	if l == nil {
		return Pass{}, nil
	}
	reserved, err := l.queue.admit(ctx, size, most)
	switch {
	case err == nil:
		return Pass{l.queue, reserved}, nil
	case c.IsClosed():
		return Pass{}, fault.ErrClosed
	}
	return Pass{}, fmt.Errorf("%s: %w", l.congestion(), err)
}

// congestion says how the line is.
func (l *line) congestion() string {
	text := fmt.Sprintf("%d bytes wait to be sent to the server", l.queue.n.Load())
	if stalled := l.tcp.stalled(); stalled > time.Second {
		text += fmt.Sprintf(", which has taken nothing for %v", stalled.Round(100*time.Millisecond))
	}
	return text
}

// Congestion returns an error while the server has taken nothing for longer than that.
func (c *Conn) Congestion(than time.Duration) error {
	if l := c.present.Load(); l != nil && l.tcp.stalled() > than {
		return errors.New(l.congestion())
	}
	return nil
}

// Deadline gives ctx the request timeout when it has no deadline.
func (c *Conn) Deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, c.o.RequestTimeout)
}

// Publish sends a message, or keeps it for the next connection. Header may be nil, and reply empty.
func (c *Conn) Publish(ctx context.Context, subject, reply string, header natsgo.Header, data []byte) error {
	pass, err := c.Enter(ctx, len(data))
	if err != nil {
		return err
	}
	err = c.send(subject, reply, header, data)
	pass.Leave()
	if err != nil && errors.Is(err, natsgo.ErrReconnectBufExceeded) {
		err = c.why(err)
	}
	return err
}

// send enters nats.go by its cheapest door.
func (c *Conn) send(subject, reply string, header natsgo.Header, data []byte) error {
	switch {
	case header != nil:
		return c.nc.PublishMsg(&natsgo.Msg{Subject: subject, Reply: reply, Header: header, Data: data})
	case reply != "":
		return c.nc.PublishRequest(subject, reply, data)
	}
	return c.nc.Publish(subject, data)
}

// why adds to err why there is no connection.
func (c *Conn) why(err error) error {
	if failure := c.LastError(); failure != nil {
		return fault.Joined{err, failure}
	}
	return err
}

// errNoRoom is returned by TryPublish.
var errNoRoom = errors.New("too much waits to be sent to the server")

// TryPublish is Publish of something small, for those who cannot wait for room: it fails then.
func (c *Conn) TryPublish(subject, reply string, data []byte) error {
	if _, ok := c.enterNow(0); !ok {
		return errNoRoom
	}
	return c.send(subject, reply, nil, data)
}

// PublishMsg is Publish of a message with a header or a reply subject.
func (c *Conn) PublishMsg(ctx context.Context, m *natsgo.Msg) error {
	pass, err := c.Enter(ctx, len(m.Data))
	if err != nil {
		return err
	}
	err = c.nc.PublishMsg(m)
	pass.Leave()
	return err
}

// SubscribeInbox makes a subscription of nats.go to a new inbox, or to what is below, as ".*"; the channel is used where
// there is no handler. Denied, which must not wait, is called each time that the server denies the inbox, or one of the
// subjects whose answers come there, until unwatch is called. That may be before this returns.
func (c *Conn) SubscribeInbox(
	ctx context.Context, below string, h natsgo.MsgHandler, ch chan *natsgo.Msg, denied func(error), subjects ...string,
) (sub *natsgo.Subscription, unwatch func(), err error) {
	pass, err := c.Enter(ctx, 0)
	if err != nil {
		return nil, nil, err
	}
	defer pass.Leave()
	inbox := c.nc.NewInbox() + below
	unwatch = c.watch(&watch{subjects: append(subjects, inbox), denied: denied, inbox: time.Now()})
	if h == nil {
		sub, err = c.nc.ChanSubscribe(inbox, ch)
	} else {
		sub, err = c.nc.Subscribe(inbox, h)
	}
	if err != nil {
		unwatch()
		return nil, nil, err
	}
	return sub, unwatch, nil
}

// Unsubscribe ends a subscription of nats.go. It does not wait, not even for room, since its line is short:
// only where others have filled the queue, or a handshake goes on, it is ended later.
func (c *Conn) Unsubscribe(sub *natsgo.Subscription) {
	if l := c.present.Load(); c.gate.wait.Load() == nil && (l == nil || l.queue.spare()) {
		_ = sub.Unsubscribe() // it fails when it has ended
		return
	}
	c.leaving.Push(func() {
		if c.Wait(c.ctx) == nil {
			_ = sub.Unsubscribe()
		}
	})
}

// Finish ends a subscription of nats.go gracefully: what is on its way to its handler still comes, until ctx ends. It
// waits for that only where that is said.
func (c *Conn) Finish(ctx context.Context, sub *natsgo.Subscription, wait bool) {
	over := make(chan struct{})
	sub.SetClosedHandler(func(string) { close(over) })
	pass, err := c.Enter(ctx, 0)
	if err == nil {
		err = sub.Drain() // it fails without a connection
		pass.Leave()
	}
	if err == nil && (!wait || !sub.IsValid()) { // it may have ended before, and tells nobody any more
		return
	}
	if err == nil {
		select {
		case <-over:
			return
		case <-ctx.Done():
		}
	}
	c.Unsubscribe(sub)
}

// said is what nats.go says of its counters, and of the bytes in its buffer.
type said struct {
	counters natsgo.Statistics
	buffered int
}

// statsMemory is what nats.go said last.
type statsMemory struct {
	mu sync.Mutex
	said
}

// statsPatience bounds the wait for what nats.go says of itself, whose lock others may hold while their writes wait.
const statsPatience = 40 * time.Millisecond

// Stats returns nats.go's counters, and how many bytes wait to leave the client, of which there are none once it is
// closed. It does not wait while somebody holds nats.go's lock for long: it returns what it did before. Reconnects are our
// own, for nats.go counts a first connection that took more than one attempt, and refused logins.
func (c *Conn) Stats() (counters natsgo.Statistics, buffered int) {
	c.stats.mu.Lock()
	defer c.stats.mu.Unlock()
	l := c.present.Load()
	if c.gate.wait.Load() == nil && (l == nil || l.queue.spare()) {
		now := make(chan said, 1)
		go func() { // the queue may become full before nats.go's lock is taken
			s := said{counters: c.nc.Stats()}
			s.buffered, _ = c.nc.Buffered() // -1 when it is closed
			now <- s
		}()
		select {
		case c.stats.said = <-now:
		case <-time.After(statsPatience):
			select {
			case c.stats.said = <-now: // both have come on a busy machine
			default:
			}
		}
	}
	if buffered = max(c.stats.buffered, 0); l != nil && !c.IsClosed() {
		buffered += int(l.queue.n.Load())
	}
	counters = c.stats.counters
	counters.Reconnects = c.reconnects()
	return counters, buffered
}

// RoundTrip waits for the connection and for a PONG that follows everything sent before. When the
// connection breaks meanwhile it tries again on the next one.
func (c *Conn) RoundTrip(ctx context.Context, op, target string) error {
	ctx, cancel := c.Deadline(ctx)
	defer cancel()
	for {
		if err := c.link.Wait(ctx); err != nil {
			return c.Unreachable(ctx, op, target, err)
		}
		_, breaks, change := c.State()
		err := c.Flush(ctx)
		if err == nil {
			return nil
		}
		_, now, _ := c.State()
		switch {
		case c.IsClosed():
			return fault.New(op, target, fault.ErrClosed, "")
		case ctx.Err() != nil && now != breaks:
			return c.Unreachable(ctx, op, target, fault.ErrNotConnected)
		case ctx.Err() != nil:
			return fault.Wrap(op, target, fault.Because(ctx, err))
		}
		// The connection broke under the flush; the link hears of it soon after.
		select {
		case <-change:
		case <-ctx.Done():
		}
	}
}

// Flush waits for a PONG of the present connection that follows everything sent before.
func (c *Conn) Flush(ctx context.Context) error {
	pass, err := c.Enter(ctx, 0)
	if err != nil {
		return err
	}
	defer pass.Leave()
	sent, _ := c.Stats()
	err = c.nc.FlushWithContext(ctx)
	if err == nil {
		c.sent.confirm(sent)
	}
	return err
}

// Unreachable is the error of a call that found no connection: it says why there is none, why the call waited no
// longer, and what has become of it before.
func (c *Conn) Unreachable(ctx context.Context, op, target string, kind error, before ...error) error {
	var causes fault.Joined
	if failure := c.LastError(); failure != nil {
		causes = append(causes, failure)
	}
	if stuck := c.Congestion(oneWrite); stuck != nil {
		causes = append(causes, stuck)
	}
	if ctx.Err() != nil {
		causes = append(causes, fault.Ended(ctx))
	}
	causes = append(causes, before...)
	e := &fault.Error{Op: op, Target: target, Kind: kind}
	if len(causes) > 0 {
		e.Cause = causes
	}
	return e
}
