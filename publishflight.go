package nats

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// asyncTick is how often the messages in flight are looked through for what is overdue.
const asyncTick = 100 * time.Millisecond

// asyncPublisher has the messages of a client that are in flight. The answers to all of them come
// over one subscription, told apart by the last token of the subject; one timer looks for those that
// do not come.
type asyncPublisher struct {
	client *Client
	prefix string // of the answers' subjects

	mu      sync.Mutex
	sub     *natsgo.Subscription // made by the first publish
	last    uint64
	flying  map[uint64]*pubAckFuture
	bytes   int
	room    chan struct{} // closed when there is room again; nil when nobody waits
	drained chan struct{} // closed when nothing is in flight; nil before Shutdown
	pace    pause.Pace
	timer   *time.Timer
	ticking bool // the timer runs
	asking  bool // retry runs
	closed  bool
}

func newAsyncPublisher(c *Client) *asyncPublisher {
	return &asyncPublisher{client: c, prefix: c.nc.NewInbox() + ".", flying: make(map[uint64]*pubAckFuture)}
}

// publish waits for room and for the connection, and sends f.
func (p *asyncPublisher) publish(f *pubAckFuture) error {
	c := p.client
	var timeout <-chan time.Time
	for {
		wait, kind := p.admit(f)
		if wait == nil {
			if kind != nil {
				return wrap(f.op, f.msg.Subject, kind)
			}
			break
		}
		if timeout == nil {
			timer := time.NewTimer(time.Until(f.deadline))
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-wait:
		case <-timeout:
			return &fault.Error{Op: f.op, Target: f.msg.Subject, Kind: kind, Cause: context.DeadlineExceeded}
		case <-f.ctx.Done():
			return &fault.Error{Op: f.op, Target: f.msg.Subject, Kind: kind, Cause: fault.Ended(f.ctx)}
		case <-c.life.Context().Done():
			return fail(f.op, f.msg.Subject, ErrClosed, "")
		}
	}
	if err := p.send(f, 1); err != nil && !jsapi.Passes(err) {
		err = wrap(f.op, f.msg.Subject, c.sized(err, f.msg.Header, f.msg.Data))
		p.resolve(f, nil, err)
		return err
	}
	return nil
}

// admit registers f as in flight, or returns a channel that is closed when it is worth to try again
// and the error to give should that never happen.
func (p *asyncPublisher) admit(f *pubAckFuture) (<-chan struct{}, error) {
	up, breaks, change := p.client.conn.State()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed, p.client.conn.IsClosed():
		return nil, ErrClosed
	case f.ctx.Err() != nil:
		return nil, fault.Ended(f.ctx)
	case !up:
		return change, ErrNotConnected
	case len(p.flying) >= asyncMessages, p.bytes >= asyncBytes:
		if p.room == nil {
			p.room = make(chan struct{})
		}
		return p.room, ErrTimeout
	}
	if p.sub == nil {
		sub, err := p.client.nc.Subscribe(p.prefix+"*", p.deliver)
		if err != nil {
			return nil, err
		}
		p.sub = sub
	}
	p.last++
	reply := make([]byte, 0, 64) // on the stack
	f.sequence, f.reply = p.last, string(strconv.AppendUint(append(reply, p.prefix...), p.last, 36))
	p.sending(f, breaks)
	p.flying[f.sequence] = f
	p.bytes += len(f.msg.Data)
	if !p.ticking {
		p.ticking = true
		if p.timer == nil {
			p.timer = time.AfterFunc(asyncTick, p.tick)
		} else {
			p.timer.Reset(asyncTick)
		}
	}
	return nil, nil
}

// sending notes that f is about to be sent. It is called with the lock held.
func (p *asyncPublisher) sending(f *pubAckFuture, breaks uint64) {
	f.attempts++
	patience := p.pace.Patience(f.attempts, p.client.conn.Trip())
	if f.chunk != nil {
		patience = f.chunk.patience
	}
	f.sent, f.breaks, f.silent = time.Now(), breaks, false
	f.due = f.sent.Add(patience)
}

// send makes the given attempt. The subject of its answer tells which it is, but for the first.
func (p *asyncPublisher) send(f *pubAckFuture, attempt int) error {
	m := natsgo.Msg{Subject: f.msg.Subject, Reply: f.reply, Header: f.msg.Header, Data: f.msg.Data}
	if attempt > 1 {
		m.Reply += attemptMark + strconv.Itoa(attempt)
	}
	return p.client.conn.PublishMsg(f.ctx, &m)
}

// attemptMark stands before the number of an attempt.
const attemptMark = "-"

// deliver takes the answer to an attempt.
func (p *asyncPublisher) deliver(m *natsgo.Msg) {
	number, attempt, _ := strings.Cut(m.Subject[len(p.prefix):], attemptMark)
	sequence, err := strconv.ParseUint(number, 36, 64)
	if err != nil {
		return
	}
	p.mu.Lock()
	f := p.flying[sequence]
	again := f != nil && f.attempts > 1
	p.mu.Unlock()
	if f == nil {
		return // an earlier attempt's answer has resolved it
	}
	ack, err := wire.ParsePubAck(m)
	switch {
	case err == nil:
		p.stored(f, attempt, ack)
	case errors.Is(err, jetstream.ErrInvalidJSAck), again && jsapi.InProcess(err): // the answer is still to come
	case jsapi.Passes(err):
		p.postpone(f, jsapi.Pause, errors.Is(err, natsgo.ErrNoResponders), err)
	case again && fault.Kind(err) == ErrConflict: //nolint:errorlint // a sentinel of our own table
		p.postpone(f, time.Second, false, err)
		go p.verify(f, err) // it waits for the server
	default:
		p.resolve(f, nil, wrap(f.op, f.msg.Subject, p.client.sized(err, f.msg.Header, f.msg.Data)))
	}
}

// deny fails the messages that a permission error of the server means and tells whether there are
// any.
func (p *asyncPublisher) deny(err error) bool {
	v := fault.DeniedBy(err)
	if !v.Publish {
		return false
	}
	p.mu.Lock()
	var denied []*pubAckFuture
	for _, f := range p.flying {
		if f.msg.Subject == v.Subject {
			denied = append(denied, f)
		}
	}
	p.mu.Unlock()
	for _, f := range denied {
		p.resolve(f, nil, wrap(f.op, f.msg.Subject, err))
	}
	return len(denied) > 0
}

// postpone sets when f is sent again.
func (p *asyncPublisher) postpone(f *pubAckFuture, d time.Duration, silent bool, last error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f.due, f.silent, f.last = time.Now().Add(d), silent, last
}

// verify resolves f when the stream refused it perhaps only because it is stored already.
func (p *asyncPublisher) verify(f *pubAckFuture, refusal error) {
	ctx, cancel := context.WithDeadline(p.client.life.Context(), f.deadline)
	defer cancel()
	ack, err := p.client.storedBefore(ctx, f.op, f.msg, refusal)
	p.resolve(f, ack, err)
}

// stored resolves f by the acknowledgement of an attempt. A duplicate is acknowledged before what waits to be
// stored, and so tells nothing about the others.
func (p *asyncPublisher) stored(f *pubAckFuture, attempt string, ack *jetstream.PubAck) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last := f.attempts == 1 || attempt == strconv.Itoa(f.attempts); last && !ack.Duplicate && f.chunk == nil {
		p.pace.Answered(f.sent)
	}
	p.land(f, ack, nil)
}

// resolve ends the flight of f, once.
func (p *asyncPublisher) resolve(f *pubAckFuture, ack *jetstream.PubAck, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.land(f, ack, err)
}

// land is resolve with the lock held.
func (p *asyncPublisher) land(f *pubAckFuture, ack *jetstream.PubAck, err error) {
	if p.flying[f.sequence] != f {
		return
	}
	delete(p.flying, f.sequence)
	if f.asking {
		p.pace.Asked()
	}
	p.bytes -= len(f.msg.Data)
	f.settle(ack, err)
	// Waking a waiter for every message that leaves would cost more than the publishing.
	if p.room != nil && len(p.flying) <= asyncMessages/2 && p.bytes <= asyncBytes/2 {
		close(p.room)
		p.room = nil
	}
	if p.drained != nil && len(p.flying) == 0 {
		close(p.drained)
		p.drained = nil
	}
}

// tick sends again what is overdue and fails what has run out of time.
func (p *asyncPublisher) tick() {
	c := p.client
	up, breaks, _ := c.conn.State()
	now := time.Now()
	var overdue, ended []*pubAckFuture
	p.mu.Lock()
	for _, f := range p.flying {
		switch {
		case f.ctx.Err() != nil && f.chunk == nil, now.After(f.deadline), c.life.Context().Err() != nil:
			ended = append(ended, f)
		case up && (f.breaks != breaks || now.After(f.due) || p.pace.Lost(f.sent.Add(asyncTick)) && now.Sub(f.sent) > pause.Doubled(f.attempts)):
			overdue = append(overdue, f)
		}
	}
	if p.asking {
		overdue = nil
	}
	p.asking = p.asking || len(overdue) > 0
	p.mu.Unlock()
	for _, f := range ended {
		p.resolve(f, nil, p.failure(f, up && f.breaks == breaks))
	}
	if len(overdue) > 0 {
		go p.retry(overdue, breaks) // it may wait for the server, and deadlines do not
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ticking = len(p.flying) > 0; p.ticking {
		p.timer.Reset(asyncTick)
	}
}

// mayAsk tells whether f may be sent again on the same connection. The lock is held. F left some time after
// it was to be sent.
func (p *asyncPublisher) mayAsk(f *pubAckFuture) bool {
	if f.silent || f.asking || f.chunk != nil || p.pace.Lost(f.sent.Add(asyncTick)) {
		return true
	}
	f.asking = p.pace.Ask()
	return f.asking
}

// retry sends the overdue messages again, but for those that no stream stores.
func (p *asyncPublisher) retry(overdue []*pubAckFuture, breaks uint64) {
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.asking = false
	}()
	slices.SortFunc(overdue, func(a, b *pubAckFuture) int { return cmp.Compare(a.sequence, b.sequence) })
	askUntil := time.Now().Add(asyncTick)
	for _, f := range overdue {
		p.mu.Lock()
		broken := f.breaks != breaks
		silent := f.silent || !broken
		may := broken || p.mayAsk(f)
		p.mu.Unlock()
		if silent && time.Now().Before(askUntil) { // a server that is slow to answer is asked next time
			switch missing, doubted := p.client.api.Find(p.client.life.Context(), f.msg.Subject, may); {
			case missing:
				p.resolve(f, nil, wrap(f.op, f.msg.Subject, jetstream.ErrNoStreamResponse))
				continue
			case doubted:
				continue // the next tick knows
			}
		}
		if !may {
			continue
		}
		p.mu.Lock()
		flying := p.flying[f.sequence] == f
		p.sending(f, breaks)
		attempt := f.attempts
		p.mu.Unlock()
		if !flying {
			continue
		}
		if err := p.send(f, attempt); err != nil && !jsapi.Passes(err) {
			p.resolve(f, nil, wrap(f.op, f.msg.Subject, err))
		}
	}
}

// failure says why f ends without an acknowledgement.
func (p *asyncPublisher) failure(f *pubAckFuture, connected bool) error {
	p.mu.Lock()
	last := f.last
	p.mu.Unlock()
	kind, cause := ErrTimeout, fault.Ended(f.ctx)
	switch {
	case p.client.life.Context().Err() != nil:
		return fail(f.op, f.msg.Subject, ErrClosed, "%w", conn.ErrUnanswered)
	case errors.Is(cause, context.Canceled):
		kind = nil
	case !connected:
		kind = ErrConnectionLost
	}
	if cause == nil {
		cause = context.DeadlineExceeded
	}
	if last == nil {
		last = conn.ErrUnanswered
	}
	return &fault.Error{Op: f.op, Target: f.msg.Subject, Kind: kind, Cause: fault.Joined{cause, last}}
}

// shutdown waits until nothing is in flight, fails what is left when ctx ends, and returns how many
// that were.
func (p *asyncPublisher) shutdown(ctx context.Context) int {
	p.mu.Lock()
	var drained chan struct{}
	if len(p.flying) > 0 {
		drained = make(chan struct{})
		p.drained = drained
	}
	p.mu.Unlock()
	if drained != nil {
		select {
		case <-drained:
		case <-ctx.Done():
		case <-p.client.life.Context().Done():
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed, p.drained = true, nil
	left := len(p.flying)
	for sequence, f := range p.flying {
		delete(p.flying, sequence)
		f.settle(nil, fail(f.op, f.msg.Subject, ErrClosed, "%w", conn.ErrUnanswered))
	}
	if p.room != nil {
		close(p.room) // those who wait learn that it is over
		p.room = nil
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	return left
}
