package nats

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// PullMessages takes up to limit messages from a consumer: it waits for the first one and then takes
// what is there, in one round trip. When ctx ends first, or without a deadline in ctx
// Config.RequestTimeout, it returns no messages and no error; a ctx that is cancelled is an error.
// Messages must be acknowledged, or the server delivers them again. What is on its way when ctx is cancelled
// is returned by the next call for the consumer, or handed back when there is none within 300 ms.
//
// The errors are ErrStreamNotFound, ErrConsumerNotFound, ErrPermission, ErrNotConnected, ErrNoResponders when the
// consumer has no leader until ctx ends, as during an election, for bad arguments ErrInvalidArgument, and
// ErrPullRefused when the consumer's configuration does not allow the pull: its MaxRequestBatch is less than
// limit, or its MaxRequestExpires than the time left in ctx, or it is a push consumer or has priority groups.
func (c *Client) PullMessages(ctx context.Context, stream, consumer string, limit int) ([]*Message, error) {
	const op = "pull messages"
	target := path(stream, consumer)
	if limit < 1 {
		return nil, fail(op, target, ErrInvalidArgument, "the limit must be at least 1, got %d", limit)
	}
	if err := checkName(op, "consumer", consumer); err != nil {
		return nil, err
	}
	if err := c.checkCall(ctx, op, stream, consumer); err != nil {
		return nil, err
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()

	subject := c.api.Subject("CONSUMER.MSG.NEXT." + stream + "." + consumer)
	var unheard error // by the consumer in the last attempt
	for pause := retryPauseMin; ; pause = min(2*pause, retryPauseMax) {
		if err := c.conn.Wait(ctx); err != nil {
			return nil, c.unreachable(ctx, op, target, err)
		}
		if unheard != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, wrap(op, target, unheard) // there may be messages
		}
		messages, err := c.pullOnce(ctx, subject, limit)
		switch {
		case len(messages) > 0:
			return messages, nil // whatever ended the pull will end the next one too
		case err == nil && pullExpiry(ctx, c.conn) > pullExpiryMin: // it was begun by a call before, or ended early
			continue
		case err == nil, errors.Is(err, context.DeadlineExceeded):
			return nil, nil
		case errors.Is(err, natsgo.ErrNoResponders):
			// Nobody listens for pulls: the consumer does not exist, or its leader is changing.
			unheard = err
			_, err := c.api.ConsumerInfo(ctx, stream, consumer)
			if err != nil && ctx.Err() == nil && c.conn.IsUp() {
				return nil, jsapi.Wrap(op, target, err)
			}
		case errors.Is(err, wire.ErrTooManyPulls):
			unheard = err
		case errors.Is(err, wire.ErrPullAgain):
			unheard = nil
		default:
			return nil, wrap(op, target, err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		case <-c.life.Context().Done():
		}
	}
}

// The pauses between pulls that ended early.
const (
	retryPauseMin = 10 * time.Millisecond
	retryPauseMax = 500 * time.Millisecond
)

// pull is one request for messages and what it brings.
type pull struct {
	client  *Client
	subject string // of the request
	sub     *natsgo.Subscription
	breaks  uint64 // of the connection

	mu   sync.Mutex
	came []*natsgo.Msg // and not taken
	left int           // asked for and not yet come
	want int           // messages are waited for
	over bool          // on the server
	err  error         // why it is over; nil is its natural end
	news chan struct{} // holds one: what was waited for is there, or it is over
}

// pullOnce goes on with a pull that a call before had to leave, or begins one, and collects what it brings. The
// server holds a pull with both no_wait and expires until the first message and then answers with all there are.
func (c *Client) pullOnce(ctx context.Context, subject string, limit int) ([]*Message, error) {
	if err := fault.Ended(ctx); err != nil {
		return nil, err
	}
	done, err := c.life.Begin()
	if err != nil {
		return nil, err
	}
	p := c.pulls.adopt(subject)
	if p == nil {
		p = &pull{client: c, subject: subject, left: limit, news: make(chan struct{}, 1)}
		if p.sub, err = c.conn.Subscribe(ctx, c.nc.NewInbox(), p.receive, nil); err != nil {
			done()
			return nil, err
		}
		_ = p.sub.SetPendingLimits(-1, -1) // no more comes than was asked for
		_, p.breaks, _ = c.conn.State()
		body := wire.Pull(limit, pullExpiry(ctx, c.conn), 0, true)
		defer c.conn.Watch(p.end, subject, p.sub.Subject)()
		if err := c.conn.Publish(ctx, subject, p.sub.Subject, nil, body); err != nil {
			p.end(err)
		}
	}
	messages, err := p.collect(ctx, limit)
	p.mu.Lock()
	spent := p.over && len(p.came) == 0
	p.mu.Unlock()
	if spent {
		c.conn.Unsubscribe(p.sub)
		done()
	} else {
		c.pulls.leave(p, done)
	}
	return messages, err
}

// receive is called by nats.go for everything that comes, one at a time.
func (p *pull) receive(m *natsgo.Msg) {
	if status, description := wire.Status(m); status != "" {
		p.end(wire.PullError(status, description))
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.came = append(p.came, m)
	p.left--
	p.over = p.over || p.left <= 0
	p.tell()
}

// end takes note that the server is done with the pull.
func (p *pull) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.over {
		p.over, p.err = true, err
	}
	p.tell()
}

// ready tells whether there is nothing more to wait for. It is called with the lock held.
func (p *pull) ready() bool { return p.over || len(p.came) >= p.want }

// tell is called with the lock held.
func (p *pull) tell() {
	if p.ready() {
		select {
		case p.news <- struct{}{}:
		default:
		}
	}
}

// collect waits until so many messages are there, the pull is over, or ctx ends, and takes what has come: what is
// left behind would wait for its redelivery.
func (p *pull) collect(ctx context.Context, limit int) ([]*Message, error) {
	c := p.client
	p.mu.Lock()
	p.want = limit
	p.tell()
	p.mu.Unlock()
	var err error
	for waiting := true; waiting; {
		up, breaks, change := c.conn.State()
		if !up || breaks != p.breaks {
			p.end(wire.ErrPullAgain) // the server has forgotten the pull
		}
		select {
		case <-p.news: // perhaps of before
			p.mu.Lock()
			waiting = !p.ready()
			p.mu.Unlock()
		case <-change:
		case <-ctx.Done():
			waiting, err = false, fault.Ended(ctx)
		case <-c.life.Ending():
			waiting, err = false, ErrClosed
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	took := p.came[:min(limit, len(p.came))]
	p.came = p.came[len(took):]
	if p.over && err == nil {
		err = p.err
	}
	if len(took) == 0 {
		return nil, err
	}
	from := &origin{client: c, ctx: c.life.Context(), received: time.Now()} // they come together
	messages := make([]*Message, len(took))
	for i, m := range took {
		messages[i] = from.message(m)
	}
	return messages, err
}

// pulls are those that calls had to leave before they were over: to unsubscribe from one that the server may
// still answer costs the messages on their way a delivery, and in a cluster those that are not sent yet, too. So
// the next call for the consumer goes on with it. Where none comes soon, the messages are handed back.
type pulls struct {
	some   atomic.Bool // so that a call takes no lock where there are none
	mu     sync.Mutex
	parked map[string][]*pull // by subject
}

// adopt returns a pull of the subject that was left.
func (all *pulls) adopt(subject string) *pull {
	if !all.some.Load() {
		return nil
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	of := all.parked[subject]
	if len(of) == 0 {
		return nil
	}
	p := of[0]
	all.remove(p)
	return p
}

// remove tells whether p was there. The caller holds the lock.
func (all *pulls) remove(p *pull) bool {
	of := all.parked[p.subject]
	i := slices.Index(of, p)
	if i < 0 {
		return false
	}
	if all.parked[p.subject] = slices.Delete(of, i, i+1); len(of) == 1 {
		delete(all.parked, p.subject)
	}
	all.some.Store(len(all.parked) > 0)
	return true
}

const (
	pullsLeft   = 300 * time.Millisecond // for the next call to come
	handBackMax = 2 * time.Second        // for what is on its way then
)

// leave keeps p for the next call, and ends it when none comes. Shutdown waits for that.
func (all *pulls) leave(p *pull, done func()) {
	all.mu.Lock()
	if all.parked == nil {
		all.parked = make(map[string][]*pull)
	}
	all.parked[p.subject] = append(all.parked[p.subject], p)
	all.some.Store(true)
	all.mu.Unlock()
	c := p.client
	_, trip := c.conn.Peer()
	go func() {
		defer done()
		timer := time.NewTimer(pullsLeft + trip)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-c.life.Ending():
		}
		all.mu.Lock()
		mine := all.remove(p)
		all.mu.Unlock()
		if mine {
			p.handBack(handBackMax + 2*trip)
		}
	}()
}

// handBack ends the pull and hands back what has come of it: otherwise it would wait for the ack wait to pass.
func (p *pull) handBack(within time.Duration) {
	c := p.client
	ctx, cancel := context.WithTimeout(c.life.Context(), within)
	defer cancel()
	c.conn.Finish(ctx, p.sub, true)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.came {
		_ = c.conn.TryPublish(m.Reply, "", wire.Nak)
	}
	p.came = nil
}

// pullExpiryMin is the shortest time for which the server is asked to wait for messages.
const pullExpiryMin = time.Millisecond

// pullExpiry ends the pull on the server so early before ctx ends here that its answer arrives.
func pullExpiry(ctx context.Context, on *conn.Conn) time.Duration {
	deadline, _ := ctx.Deadline()
	left := time.Until(deadline)
	_, trip := on.Peer()
	return max(left-trip-min(left/10, 50*time.Millisecond), pullExpiryMin)
}
