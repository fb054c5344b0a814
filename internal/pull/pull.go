package pull

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lifecycle"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// Puller pulls for the callers of one client.
type Puller struct {
	api    *jsapi.API
	conn   *conn.Conn
	life   *lifecycle.Life
	parked parked
	waits  waits
}

// New returns a puller, whose last pulls life waits for.
func New(api *jsapi.API, life *lifecycle.Life) *Puller {
	return &Puller{api: api, conn: api.Conn(), life: life}
}

// Messages waits for the first message of a consumer and takes what is there, up to limit. When ctx ends, which
// must have a deadline, it returns none, and an error where a pull that was over before was met with silence.
func (p *Puller) Messages(ctx context.Context, stream, consumer string, limit int) ([]*natsgo.Msg, error) {
	const op = "pull messages"
	target := stream + "/" + consumer
	subject := p.api.Subject("CONSUMER.MSG.NEXT." + stream + "." + consumer)
	limit = p.within(ctx, stream, consumer, limit)
	bytes := wire.PullBytes(limit, p.conn.MaxPayload())
	var unheard error // by the consumer in the last attempt
	silent := false   // so was the last one that had the time for an answer
	for pause := pauseMin; ; pause = min(2*pause, pauseMax) {
		if err := p.conn.Wait(ctx); err != nil {
			return nil, p.conn.Unreachable(ctx, op, target, err)
		}
		if unheard != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, fault.Wrap(op, target, unheard) // there may be messages
		}
		begun := time.Now()
		messages, err := p.once(ctx, subject, limit, bytes)
		silent = errors.Is(err, errSilent) || silent && errors.Is(err, context.DeadlineExceeded)
		switch {
		case len(messages) > 0:
			if len(messages) < limit && time.Since(begun) > expiryMax {
				p.held(ctx, stream, consumer, limit)
			}
			return messages, nil // whatever ended the pull will end the next one too
		case errors.Is(err, errLarge):
			limit, bytes = 1, 0
			continue
		case wire.RefusedBytes(err) > 0:
			bytes = wire.RefusedBytes(err)
			continue
		case err == nil && expiry(ctx, p.conn) > expiryMin: // it was begun by a call before, or ended early
			continue
		case silent && ctx.Err() != nil:
			return nil, fault.New(op, target, fault.ErrTimeout, "%w; "+jsapi.Silence, errSilent)
		case silent:
		case err == nil, errors.Is(err, context.DeadlineExceeded):
			return nil, nil
		case errors.Is(err, natsgo.ErrNoResponders):
			// Nobody listens for pulls: the consumer does not exist, or its leader is changing.
			unheard = fmt.Errorf("nobody leads the consumer, or its domain is out of reach: %w", err)
			_, err := p.api.ConsumerInfo(ctx, stream, consumer)
			if err != nil && ctx.Err() == nil && p.conn.IsUp() {
				return nil, jsapi.Wrap(op, target, err)
			}
		case errors.Is(err, wire.ErrTooManyPulls):
			unheard = err
		case errors.Is(err, wire.ErrPullAgain):
			unheard = nil
		default:
			return nil, fault.Wrap(op, target, err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		case <-p.life.Context().Done():
		}
	}
}

// The pauses between pulls that ended early.
const (
	pauseMin = 10 * time.Millisecond
	pauseMax = 500 * time.Millisecond
)

// pull is one request for messages and what it brings.
type pull struct {
	of      *Puller
	subject string // of the request
	sub     *natsgo.Subscription
	deaf    func() // ends the watch for denials
	breaks  uint64 // of the connection

	mu   sync.Mutex
	due  time.Time     // from when on it is silent
	came []*natsgo.Msg // and not taken
	left wire.Pulls    // of this one
	want int           // messages are waited for
	over bool          // on the server
	err  error         // why it is over; nil is its natural end
	news chan struct{} // holds one: what was waited for is there, or it is over
}

// once goes on with a pull that a call before had to leave, or begins one, and collects what it brings. The
// server holds a pull with both no_wait and expires until the first message and then answers with all there are.
func (p *Puller) once(ctx context.Context, subject string, limit, bytes int) ([]*natsgo.Msg, error) {
	if err := fault.Ended(ctx); err != nil {
		return nil, err
	}
	done, err := p.life.Begin()
	if err != nil {
		return nil, err
	}
	one := p.parked.adopt(subject)
	if one == nil {
		one = &pull{of: p, subject: subject, news: make(chan struct{}, 1)}
		one.left.Add(limit, bytes)
		if one.sub, one.deaf, err = p.conn.SubscribeInbox(ctx, "", one.receive, nil, one.end, subject); err != nil {
			done()
			return nil, err
		}
		_ = one.sub.SetPendingLimits(-1, -1) // no more comes than was asked for
		_, one.breaks, _ = p.conn.State()
		expires := min(expiry(ctx, p.conn), expiryMax)
		_, trip := p.conn.Peer()
		one.due = time.Now().Add(expires + silence + 2*trip)
		body := wire.Pull(limit, bytes, expires, 0, true)
		if err := p.conn.Publish(ctx, subject, one.sub.Subject, nil, body); err != nil {
			one.end(err)
		}
	}
	messages, err := one.collect(ctx, limit)
	one.mu.Lock()
	spent := one.over && len(one.came) == 0
	one.mu.Unlock()
	if spent {
		one.deaf()
		p.conn.Unsubscribe(one.sub)
		done()
	} else {
		p.leave(one, done)
	}
	return messages, err
}

// receive is called by nats.go for everything that comes, one at a time.
func (p *pull) receive(m *natsgo.Msg) {
	if status, description := wire.Status(m); status != "" {
		if status == wire.StatusConflict && wire.PullEnded(m) {
			p.full(m)
		} else {
			p.end(wire.PullError(status, description))
		}
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.came = append(p.came, m)
	if due := time.Now().Add(silence); due.After(p.due) { // what follows is on a slow way
		p.due = due
	}
	p.left.Came(m)
	p.over = p.over || p.left.Left() == 0
	p.tell()
}

// full takes note of what the limit of bytes has no room for. That may be heard before those messages that do come.
func (p *pull) full(status *natsgo.Msg) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.left.End(status); p.left.Left() == 0 && !p.over {
		p.over, p.err = true, errLarge
	}
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
func (p *pull) collect(ctx context.Context, limit int) ([]*natsgo.Msg, error) {
	p.mu.Lock()
	p.want = limit
	p.tell()
	p.mu.Unlock()
	var err error
	late := time.NewTimer(p.patience())
	defer late.Stop()
	for waiting := true; waiting; {
		up, breaks, change := p.of.conn.State()
		if !up || breaks != p.breaks {
			p.end(wire.ErrPullAgain) // the server has forgotten the pull
		}
		select {
		case <-p.news: // perhaps of before
			p.mu.Lock()
			waiting = !p.ready()
			p.mu.Unlock()
		case <-change:
		case <-late.C:
			if left := p.patience(); left > 0 {
				late.Reset(left)
			} else {
				waiting, err = false, errSilent
			}
		case <-ctx.Done():
			waiting, err = false, fault.Ended(ctx)
		case <-p.of.life.Ending():
			waiting, err = false, fault.ErrClosed
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	took := p.came[:min(limit, len(p.came))]
	p.came = p.came[len(took):]
	if p.over && err == nil {
		err = p.err
	}
	return took, err
}

// silence is for how long a pull may be over without the server's word. Then it may be nobody's: its leader has gone, and
// the connection is another server's.
const silence = time.Second

// patience returns when it is silent.
func (p *pull) patience() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Until(p.due)
}

var errSilent = errors.New("no answer to a pull came")

// errLarge is the end of a pull by its limit of bytes; no message may have come of it.
var errLarge = errors.New("the next message is larger than the limit")

// For how long the server is asked to wait for messages. It does not end a pull whose consumer has reached its
// MaxAckPending, and what has come of it is the caller's only then, before its ack wait is over: see held.
const (
	expiryMin = time.Millisecond
	expiryMax = 5 * time.Second
)

// expiry ends the pull on the server so early before ctx ends here that its answer arrives.
func expiry(ctx context.Context, on *conn.Conn) time.Duration {
	deadline, _ := ctx.Deadline()
	left := time.Until(deadline)
	_, trip := on.Peer()
	return max(left-trip-min(left/10, 50*time.Millisecond), expiryMin)
}
