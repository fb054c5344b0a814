package conn

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// requests receives the answers to all requests over one wildcard subscription, as nats.go does, but keeps
// the requests that are in flight when the connection is replaced: nats.go fails those.
type requests struct {
	prefix string    // "_INBOX.<unique>."
	pool   sync.Pool // of waiters
	calls  sync.Pool
	seed   maphash.Seed

	mu      sync.Mutex
	sub     *natsgo.Subscription  // made by the first request
	proven  atomic.Bool           // an answer came over this connection, so the server knows sub
	muted   atomic.Pointer[error] // why nats.go's own requests get no answer over this connection
	last    uint64
	sent    time.Time // when the last request was begun
	waiting map[string]*waiter
	watches map[*watch]struct{}
	lanes   [64]pause.Pace
	settled chan struct{} // closed when nobody waits any more; nil while nobody asks
}

// waiter waits for one answer, for a time. It is used again, channel and timer included: together they are
// half of what a request allocates.
type waiter struct {
	subject string           // of the request
	reply   string           // the subject of the answer, once it is open
	answer  chan *natsgo.Msg // nil when the server denied the request
	call    *Call            // whose answers are several, or nil
	many    bool             // all answers are kept: in the channel, and what it has no room for in rest
	rest    []*natsgo.Msg
	size    int // of rest, in bytes
	denied  error
	timer   *time.Timer
	begun   time.Time
	until   time.Time // when the timer ends
	pass    Pass
}

func (r *requests) init(prefix string) {
	r.prefix = prefix
	r.seed = maphash.MakeSeed()
	r.waiting = make(map[string]*waiter)
	r.watches = make(map[*watch]struct{})
	fresh := func() waiter { return waiter{answer: make(chan *natsgo.Msg, 4), timer: time.NewTimer(time.Hour)} }
	r.pool.New = func() any {
		w := fresh()
		return &w
	}
	r.calls.New = func() any {
		a := &Call{waiter: fresh()}
		a.alarm = time.AfterFunc(time.Hour, func() { r.wake(a) })
		a.alarm.Stop()
		return a
	}
}

// waiter returns a waiter whose timer runs.
func (r *requests) waiter(timeout time.Duration) *waiter {
	w := r.pool.Get().(*waiter) // the pool holds nothing else
	w.timer.Reset(timeout)
	w.begun = time.Now()
	w.until = w.begun.Add(timeout)
	return w
}

// open gives w, which waits for the answer to a request on subject, a reply subject of its own.
func (r *requests) open(nc *natsgo.Conn, w *waiter, subject string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.register(nc, w, subject)
}

// call is open for a, and tells whether it may be sent now.
func (r *requests) call(nc *natsgo.Conn, a *Call) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.register(nc, &a.waiter, a.msg.Subject); err != nil {
		return false, err
	}
	a.call, a.number = a, r.last
	return a.enter(1), nil
}

// register is called with the lock held.
func (r *requests) register(nc *natsgo.Conn, w *waiter, subject string) error {
	if r.sub == nil {
		sub, err := nc.Subscribe(r.prefix+"*", r.deliver)
		if err != nil {
			return err
		}
		r.sub = sub
	}
	r.last++
	token := make([]byte, 0, 64) // on the stack
	w.reply = string(strconv.AppendUint(append(token, r.prefix...), r.last, 36))
	w.subject = subject
	r.sent = w.begun
	r.waiting[w.reply] = w
	return nil
}

// close ends a waiter. What comes on its reply subject later is dropped.
func (r *requests) close(w *waiter) {
	r.mu.Lock()
	r.forget(w)
	r.mu.Unlock()
	w.clear()
	r.pool.Put(w)
}

// clear makes w ready to be used again, once it is forgotten.
func (w *waiter) clear() {
	w.timer.Stop()
	for len(w.answer) > 0 { // it came too late to be taken
		<-w.answer
	}
	w.subject, w.reply, w.denied, w.call, w.pass = "", "", nil, nil, Pass{}
	w.many, w.rest, w.size = false, nil, 0
}

// forget is called with the lock held.
func (r *requests) forget(w *waiter) {
	delete(r.waiting, w.reply)
	if r.settled != nil && len(r.waiting) == 0 {
		close(r.settled)
		r.settled = nil
	}
}

// lane returns what is shared with the calls to subjects that begin alike, which mostly go to one stream. The
// questions to the JetStream API have one of their own: their answers tell nothing about a stream that is slow.
// Acknowledgements share what their stream's others do.
func (r *requests) lane(subject string) *pause.Pace {
	if _, stored, _ := strings.Cut(subject, ".API."); strings.HasPrefix(stored, "$") {
		subject = stored // of a domain
	}
	head := subjects.Head(subject)
	switch consumer, isAck := strings.CutPrefix(subject, wire.AckPrefix); {
	case isAck:
		head = subjects.Head(consumer)
	case strings.HasPrefix(subject, "$JS."):
		return &r.lanes[0]
	}
	return &r.lanes[1+maphash.String(r.seed, head)%uint64(len(r.lanes)-1)]
}

// deliver sends under the lock: after close nothing comes any more, so w can be used again.
func (r *requests) deliver(m *natsgo.Msg) {
	if a, asker := r.accept(m); asker != nil {
		a.tell(asker, m)
	}
}

// accept returns the call that m answers and its asker, if it is a quiet one. It gives m to any other.
func (r *requests) accept(m *natsgo.Msg) (*Call, Asker) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.proven.Store(true)
	call, _, _ := strings.Cut(m.Subject[len(r.prefix):], sendingMark)
	w := r.waiting[m.Subject[:len(r.prefix)+len(call)]]
	switch {
	case w == nil:
	case w.many:
		r.keep(w, m)
	case w.call == nil:
		r.forget(w)
		w.answer <- m // it has room
	case w.call.quiet != nil:
		return w.call, w.call.take()
	default:
		w.push(m)
	}
	return nil, nil
}

// keep is called with the lock held. What is more than a subscription may have waiting is the end.
func (r *requests) keep(w *waiter, m *natsgo.Msg) {
	w.size += m.Size()
	w.rest = append(w.rest, m)
	if w.size > natsgo.DefaultSubPendingBytesLimit {
		w.rest[len(w.rest)-1], w.denied = nil, natsgo.ErrSlowConsumer
		r.forget(w)
	}
	w.refill()
}

// refill is called with the lock held.
func (w *waiter) refill() {
	for len(w.rest) > 0 && len(w.answer) < cap(w.answer) {
		m := w.rest[0]
		w.rest = w.rest[1:]
		w.answer <- m
		if m != nil {
			w.size -= m.Size()
		}
	}
}

// push is called with the lock held, so there is room after the oldest answer has gone.
func (w *waiter) push(m *natsgo.Msg) {
	if len(w.answer) == cap(w.answer) {
		select {
		case <-w.answer:
		default: // it was taken
		}
	}
	w.answer <- m
}

// settle waits until all requests are answered, but for none longer than most after it was sent.
func (r *requests) settle(ctx context.Context, most time.Duration) {
	r.mu.Lock()
	left := most - time.Since(r.sent)
	if len(r.waiting) == 0 || left <= 0 {
		r.mu.Unlock()
		return
	}
	if r.settled == nil {
		r.settled = make(chan struct{})
	}
	settled := r.settled
	r.mu.Unlock()
	select {
	case <-settled:
	case <-time.After(left):
	case <-ctx.Done():
	}
}

// Request sends and waits for one answer. Unlike nats.go's it outlives a reconnect, tells a broken
// connection from a silent responder, and needs no context for its timeout; 0 is the request timeout.
func (c *Conn) Request(ctx context.Context, op, subject string, header natsgo.Header, data []byte, timeout time.Duration) (*natsgo.Msg, error) {
	w, breaks, err := c.ask(ctx, op, subject, header, data, timeout, false)
	if err != nil {
		return nil, err
	}
	defer c.requests.close(w)
	return c.answer(ctx, op, w, breaks, timeout)
}

// RequestMany sends and hands over the answers, one after the other, until each returns false, no further one comes
// within stall, where that is not zero, or the time is up, which is the end of ctx or else the request timeout.
func (c *Conn) RequestMany(ctx context.Context, op string, m *natsgo.Msg, stall time.Duration, each func(*natsgo.Msg) bool) error {
	timeout := c.o.RequestTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(time.Until(deadline), 1)
	}
	w, breaks, err := c.ask(ctx, op, m.Subject, m.Header, m.Data, timeout, true)
	if err != nil {
		return err
	}
	defer c.requests.close(w)
	for wait, first := timeout, true; ; first = false {
		m, err := c.answer(ctx, op, w, breaks, wait)
		switch {
		case errors.Is(ctx.Err(), context.Canceled):
			return fault.Wrap(op, w.subject, fault.Ended(ctx))
		case err != nil && !first && errors.Is(err, fault.ErrTimeout):
			return nil
		case err != nil || !each(m):
			return err
		}
		c.requests.mu.Lock()
		w.refill()
		left := time.Until(w.until)
		if left <= 0 { // more come too late
			c.requests.forget(w)
		}
		c.requests.mu.Unlock()
		wait = min(left, cmp.Or(stall, left))
		w.timer.Reset(wait) // which may have ended beside an answer
	}
}

// ask sends a request, to which many answers may come. The waiter is to be closed.
func (c *Conn) ask(ctx context.Context, op, subject string, header natsgo.Header, data []byte, timeout time.Duration, many bool) (*waiter, uint64, error) {
	switch {
	case timeout < 0:
		return nil, 0, fault.New(op, subject, fault.ErrInvalidArgument, "the timeout must not be negative, got %v", timeout)
	case timeout == 0:
		timeout = c.o.RequestTimeout
	}
	if err := fault.Ended(ctx); err != nil {
		return nil, 0, fault.Wrap(op, subject, err)
	}
	w := c.requests.waiter(timeout)
	w.many = many
	breaks, err := c.openRequest(ctx, w, op, subject, len(data))
	if err == nil {
		err = c.send(subject, w.reply, header, data)
		err = fault.Wrap(op, subject, wire.Sized(err, header, data, c.MaxPayload()))
	}
	w.pass.Leave()
	if err != nil {
		c.requests.close(w)
		return nil, 0, err
	}
	return w, breaks, nil
}

// answer waits for an answer to what was sent after so many breaks of the connection. One that is there counts,
// whatever else has happened meanwhile.
func (c *Conn) answer(ctx context.Context, op string, w *waiter, breaks uint64, timeout time.Duration) (*natsgo.Msg, error) {
	var err error
	select {
	case m := <-w.answer:
		return w.read(op, m)
	case <-w.timer.C:
		err = c.unanswered(op, w.subject, breaks, fmt.Errorf("%w after %v", natsgo.ErrTimeout, cmp.Or(timeout, c.o.RequestTimeout)))
	case <-ctx.Done():
		err = c.unanswered(op, w.subject, breaks, fault.Ended(ctx))
	case <-c.ctx.Done():
		err = fault.New(op, w.subject, fault.ErrClosed, "%w", fault.Doubt("while waiting for the answer"))
	}
	select {
	case m := <-w.answer:
		return w.read(op, m)
	default:
		return nil, err
	}
}

// read returns the error that m is, if it is one of the server.
func (w *waiter) read(op string, m *natsgo.Msg) (*natsgo.Msg, error) {
	switch {
	case m == nil:
		return nil, fault.Wrap(op, w.subject, w.denied)
	case wire.NoResponders(m):
		return nil, fault.Wrap(op, w.subject, natsgo.ErrNoResponders)
	}
	return m, nil
}

// openRequest opens w when the connection stands and has room, and returns how often it broke so far.
func (c *Conn) openRequest(ctx context.Context, w *waiter, op, subject string, size int) (uint64, error) {
	for {
		up, breaks, wait := c.State()
		switch {
		case c.IsClosed():
			return 0, fault.New(op, subject, fault.ErrClosed, "")
		case up:
			pass, ready := c.enterNow(size)
			if !ready {
				late, cancel := context.WithDeadline(ctx, w.until)
				var err error
				pass, err = c.enterLater(late, size)
				cancel()
				if err != nil {
					return 0, fault.Wrap(op, subject, err)
				}
			}
			w.pass = pass
			return breaks, fault.Wrap(op, subject, c.requests.open(c.nc, w, subject))
		case c.o.FailWhenDown:
			return 0, c.Refused(op, subject)
		}
		select {
		case <-wait:
		case <-w.timer.C:
			return 0, c.Unreachable(ctx, op, subject, fault.ErrNotConnected)
		case <-ctx.Done():
			return 0, c.Unreachable(ctx, op, subject, fault.ErrNotConnected)
		}
	}
}

// Refused is the error of what is not to wait for a connection.
func (c *Conn) Refused(op, target string) error {
	return fault.New(op, target, fault.ErrNotConnected, "%w", c.why(errors.New(`publish_when_disconnected is "fail"`)))
}

// unanswered tells a broken connection from a slow or silent responder.
func (c *Conn) unanswered(op, subject string, breaks uint64, cause error) error {
	if up, now, _ := c.State(); !up || now != breaks {
		return &fault.Error{Op: op, Target: subject, Kind: fault.ErrConnectionLost, Cause: cause}
	}
	return fault.Wrap(op, subject, cause)
}
