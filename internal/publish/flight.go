package publish

import (
	"cmp"
	"context"
	"errors"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
)

// How much is in flight, unacknowledged. More brings no speed, and is more to send again after an
// outage.
const (
	MostMessages = 1024
	MostBytes    = 32 << 20
)

// Flight is how a message is in flight.
type Flight struct {
	// Context ends the flight, in the place of the one of Start, which then is for waiting for room only.
	Context context.Context //nolint:containedctx // an argument
	// Patience is how long an answer is waited for at least, before the message is sent again.
	Patience time.Duration
	// Brief lets go of the message when its outcome is known: nobody asks the future for it.
	Brief bool

	tell func(*jetstream.PubAck, error) // before the outcome is known to anybody else
}

// Start publishes m, to which it gives an ID if it has none, once there is a connection and room, and does not
// wait for the acknowledgement. It is sent again as by Store. Without a deadline the publisher's own time
// bounds it.
func (p *Publisher) Start(ctx context.Context, op string, m *natsgo.Msg, o Flight) (*Future, error) {
	if o.Patience == 0 && p.isHooked() {
		return p.startHooked(ctx, op, m, o)
	}
	p.identify(m)
	return p.start(ctx, op, m, o)
}

func (p *Publisher) start(ctx context.Context, op string, m *natsgo.Msg, o Flight) (*Future, error) {
	if err := p.check(ctx, op, m); err != nil {
		return nil, err
	}
	f := &Future{publisher: p, op: op, ctx: cmp.Or(o.Context, ctx), msg: m, patience: o.Patience, brief: o.Brief, tell: o.tell}
	var ok bool
	if f.deadline, ok = f.ctx.Deadline(); !ok {
		f.deadline = time.Now().Add(p.timeout)
	}
	if err := p.admit(ctx, f); err != nil {
		return nil, err
	}
	if err := p.send(ctx, f); err != nil {
		return nil, err
	}
	return f, nil
}

// admit waits for the connection and for room.
func (p *Publisher) admit(ctx context.Context, f *Future) error {
	wait, kind := p.enter(ctx, f)
	if kind == nil {
		return nil
	}
	ctx, cancel := context.WithDeadline(ctx, f.deadline)
	defer cancel()
	for ; kind != nil; wait, kind = p.enter(ctx, f) {
		if wait == nil {
			return fault.Wrap(f.op, f.msg.Subject, kind)
		}
		select {
		case <-wait:
		case <-ctx.Done():
			if errors.Is(kind, fault.ErrNotConnected) {
				return p.conn.Unreachable(ctx, f.op, f.msg.Subject, kind)
			}
			return &fault.Error{Op: f.op, Target: f.msg.Subject, Kind: kind, Cause: fault.Ended(ctx)}
		}
	}
	return nil
}

func (p *Publisher) send(ctx context.Context, f *Future) error {
	f.call = p.call(f.msg)
	if f.patience > 0 {
		f.begun = time.Now()
		f.call.Patient(f.patience)
	}
	err := f.call.Quietly(ctx, p.ctx, f)
	switch {
	case err == nil:
	case errors.Is(err, conn.ErrUnanswered), jsapi.Passes(err):
		go f.GoOn()
	default:
		err = fault.Wrap(f.op, f.msg.Subject, p.sized(ctx, err, f.msg))
		f.call.End(false)
		p.land(f, nil, err)
		return err
	}
	return nil
}

// enter counts f as in flight, or returns why it cannot be yet and a channel that is closed when it is worth
// to try again; without one it never is.
func (p *Publisher) enter(ctx context.Context, f *Future) (wait <-chan struct{}, kind error) {
	up, _, change := p.conn.State()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed, p.conn.IsClosed():
		return nil, fault.ErrClosed
	case ctx.Err() != nil:
		return nil, fault.Ended(ctx)
	case !up:
		return change, fault.ErrNotConnected
	case p.flying >= MostMessages, p.bytes >= MostBytes:
		if p.room == nil {
			p.room = make(chan struct{})
		}
		return p.room, fault.ErrTimeout
	}
	p.flying++
	p.bytes += len(f.msg.Data)
	return nil, nil
}

// land ends the flight of f.
func (p *Publisher) land(f *Future, ack *jetstream.PubAck, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flying--
	p.bytes -= len(f.msg.Data)
	f.settle(ack, err)
	// Waking a waiter for every message that leaves would cost more than the publishing.
	if p.room != nil && p.flying <= MostMessages/2 && p.bytes <= MostBytes/2 {
		close(p.room)
		p.room = nil
	}
	if p.drained != nil && p.flying == 0 {
		close(p.drained)
		p.drained = nil
	}
}

// Drain lets nothing more start, waits until nothing is in flight, fails what is left when ctx ends, and returns how
// many that were.
func (p *Publisher) Drain(ctx context.Context) (left int) {
	p.mu.Lock()
	p.closed = true
	if p.room != nil {
		close(p.room) // those who wait learn that it is over
		p.room = nil
	}
	drained := make(chan struct{})
	if p.flying == 0 {
		close(drained)
	} else {
		p.drained = drained
	}
	p.mu.Unlock()
	select {
	case <-drained:
	case <-ctx.Done():
	case <-p.ctx.Done():
	}
	left = p.drainUpstream(ctx)
	p.mu.Lock()
	left += p.flying
	p.mu.Unlock()
	p.end()
	p.conn.Rouse()
	<-drained
	return left
}

// drainUpstream does the same with upstream's own publishes, whose futures would be unresolved for ever otherwise.
func (p *Publisher) drainUpstream(ctx context.Context) (left int) {
	js := p.api.JetStream()
	if js.PublishAsyncPending() > 0 {
		select {
		case <-js.PublishAsyncComplete():
		case <-ctx.Done():
		case <-p.ctx.Done():
		}
	}
	left = js.PublishAsyncPending()
	js.CleanupPublisher()
	return left
}
