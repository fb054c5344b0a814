package nats

import (
	"context"
	"errors"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// flights bounds what a client has in flight.
type flights struct {
	client *Client
	ctx    context.Context // ends when nothing is waited for any more
	end    context.CancelFunc

	mu      sync.Mutex
	flying  int
	bytes   int
	room    chan struct{} // closed when there is room again; nil when nobody waits
	drained chan struct{} // closed when nothing is in flight; nil before drain
	closed  bool
}

func newFlights(c *Client) *flights {
	p := &flights{client: c}
	p.ctx, p.end = context.WithCancel(c.life.Context())
	return p
}

// start sends f once there is a connection and room, for which it waits under ctx.
func (p *flights) start(ctx context.Context, f *pubAckFuture) error {
	if wait, kind := p.enter(ctx, f); kind != nil {
		ctx, cancel := context.WithDeadline(ctx, f.deadline)
		defer cancel()
		for ; kind != nil; wait, kind = p.enter(ctx, f) {
			if wait == nil {
				return wrap(f.op, f.msg.Subject, kind)
			}
			select {
			case <-wait:
			case <-ctx.Done():
				return &fault.Error{Op: f.op, Target: f.msg.Subject, Kind: kind, Cause: fault.Ended(ctx)}
			}
		}
	}
	f.call = p.client.conn.Ask(f.msg)
	if f.patience > 0 {
		f.begun = time.Now()
		f.call.Patient(f.patience)
	}
	err := f.call.Quietly(ctx, f)
	switch {
	case err == nil:
	case errors.Is(err, conn.ErrUnanswered), jsapi.Passes(err):
		go f.GoOn()
	default:
		err = wrap(f.op, f.msg.Subject, p.client.sized(err, f.msg.Header, f.msg.Data))
		f.call.End(false)
		p.land(f, nil, err)
		return err
	}
	return nil
}

// enter counts f as in flight, or returns why it cannot be yet and a channel that is closed when it is worth
// to try again; without one it never is.
func (p *flights) enter(ctx context.Context, f *pubAckFuture) (wait <-chan struct{}, kind error) { //nolint:revive // the kind belongs to the channel
	up, _, change := p.client.conn.State()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed, p.client.conn.IsClosed():
		return nil, ErrClosed
	case ctx.Err() != nil:
		return nil, fault.Ended(ctx)
	case !up:
		return change, ErrNotConnected
	case p.flying >= asyncMessages, p.bytes >= asyncBytes:
		if p.room == nil {
			p.room = make(chan struct{})
		}
		return p.room, ErrTimeout
	}
	p.flying++
	p.bytes += len(f.msg.Data)
	return nil, nil
}

// land ends the flight of f.
func (p *flights) land(f *pubAckFuture, ack *jetstream.PubAck, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flying--
	p.bytes -= len(f.msg.Data)
	f.settle(ack, err)
	// Waking a waiter for every message that leaves would cost more than the publishing.
	if p.room != nil && p.flying <= asyncMessages/2 && p.bytes <= asyncBytes/2 {
		close(p.room)
		p.room = nil
	}
	if p.drained != nil && p.flying == 0 {
		close(p.drained)
		p.drained = nil
	}
}

// drain waits until nothing is in flight, fails what is left when ctx ends, and returns how many that were.
func (p *flights) drain(ctx context.Context) (left int) {
	p.mu.Lock()
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
	p.mu.Lock()
	p.closed, left = true, p.flying
	if p.room != nil {
		close(p.room) // those who wait learn that it is over
		p.room = nil
	}
	p.mu.Unlock()
	p.end()
	p.client.conn.Rouse()
	<-drained
	return left
}

// Answered implements conn.Asker.
func (f *pubAckFuture) Answered(m *natsgo.Msg) bool {
	ack, err := wire.ParsePubAck(m)
	if err != nil {
		return false
	}
	if f.patience > 0 {
		f.took, f.repeated = time.Since(f.begun), f.call.Sent() > 1
	}
	f.call.End(!ack.Duplicate && f.patience == 0)
	f.flights.land(f, ack, nil)
	return true
}

// Over implements conn.Asker.
func (f *pubAckFuture) Over() bool {
	return f.ctx.Err() != nil || f.flights.ctx.Err() != nil || !time.Now().Before(f.deadline)
}

// GoOn implements conn.Asker: what is not answered at once is asked for as by anybody else.
func (f *pubAckFuture) GoOn() {
	p := f.flights
	f.repeated = true
	ctx, cancel := context.WithDeadline(f.ctx, f.deadline)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	ack, _, err := p.client.storeCall(ctx, f.op, f.msg, f.call)
	if err != nil && p.ctx.Err() != nil {
		err = fail(f.op, f.msg.Subject, ErrClosed, "%w", conn.ErrUnanswered)
	}
	p.land(f, ack, err)
}
