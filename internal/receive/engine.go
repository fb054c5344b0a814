package receive

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// Reports are told what no call can return. They must not wait.
type Reports interface {
	// Failed: a handler returned an error, panicked or ended its goroutine.
	Failed(subject, queue string, err error)
	// Slow: so many messages were dropped since the last report. The first one begins an episode.
	Slow(s *Subscription, dropped uint64, first bool)
	// Lost: the subscription ended, or left a server, with something undone.
	Lost(subject, queue string, err error)
}

// Options say how a subscription receives.
type Options struct {
	// Workers run at once; with one, messages are handled in order.
	Workers int
	// Messages and Bytes may wait; zero is nats.go's default, and what is negative no limit.
	Messages, Bytes int
	// InFlight may wait or be handled; zero is no limit. Handle counts in Settled those that do no more.
	InFlight int
	Settled  *atomic.Int64
	// DrainTimeout bounds the graceful end that the end of the context begins.
	DrainTimeout time.Duration
	// Handle handles a message.
	Handle func(*natsgo.Msg) error
	// Refuse, where it is set, is told of each message that is dropped, and must not wait: the messages are requests.
	Refuse func(*natsgo.Msg)
	// Ended is called when the last handler has returned, and before when it is not waited for.
	Ended func(cause error)
}

// Engine holds the subscriptions of a client.
type Engine struct {
	conn    *conn.Conn
	reports Reports

	asking sync.Mutex // held by the subscription that asks for room again: a refusal for want of it names none

	mu     sync.Mutex
	closed bool
	subs   map[*Subscription]struct{}
	past   Stats // of those that have ended
}

// New returns an Engine without subscriptions.
func New(c *conn.Conn, r Reports) *Engine {
	return &Engine{conn: c, reports: r, subs: make(map[*Subscription]struct{})}
}

// Subscribe subscribes and, unless lazily, returns when the server knows of it, with what it says to it.
// The end of ctx begins the graceful end of the subscription.
func (e *Engine) Subscribe(ctx context.Context, subject, queue string, o Options, lazily bool) (*Subscription, error) {
	o.Workers = max(o.Workers, 1)
	o.Messages = cmp.Or(o.Messages, natsgo.DefaultSubPendingMsgsLimit)
	o.Bytes = cmp.Or(o.Bytes, natsgo.DefaultSubPendingBytesLimit)
	s := &Subscription{Subject: subject, Queue: queue, e: e, o: o, making: true, done: make(chan struct{})}
	s.work, s.block = s.run, blockSize
	if o.Workers > 1 || o.Messages > 0 && o.Messages < exactLimit || o.Bytes > 0 && o.Bytes < exactLimit<<10 {
		s.block = 1
	}
	s.mu.Lock() // ctx may have ended
	s.forget = context.AfterFunc(ctx, func() { s.endWith(ctx) })
	s.mu.Unlock()
	if err := e.add(s); err != nil {
		s.forget()
		return nil, err
	}
	pass, err := e.conn.Enter(ctx, 0)
	if err == nil {
		err = s.attach()
		pass.Leave()
	}
	if err == nil && !lazily {
		err = e.conn.RoundTrip(ctx, "subscribe", subject)
	}
	s.mu.Lock()
	s.making = false
	if err == nil {
		err = s.refused
	}
	s.mu.Unlock()
	if err != nil {
		s.Stop(err)
		return nil, err
	}
	return s, nil
}

// exactLimit is the limit below which it matters whether a worker has taken a few messages.
const exactLimit = 10_000

// OnError takes a refusal of the server, before anything that follows it is read, and tells whether a call
// returns it. A denial names what it denies; one for want of room means what is being subscribed to.
func (e *Engine) OnError(err error) bool {
	v := fault.DeniedBy(err)
	full := v.Subject == "" && errors.Is(err, natsgo.ErrMaxSubscriptionsExceeded)
	if !full && (v.Subject == "" || v.Publish) {
		return false
	}
	_, breaks, _ := e.conn.State()
	settled := false
	for _, s := range e.All() {
		if !full && (s.Subject != v.Subject || s.Queue != v.Queue) {
			continue
		}
		settled = s.deny(err, breaks, full) || settled
	}
	return settled
}

func (e *Engine) add(s *Subscription) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return fault.ErrClosed
	}
	e.subs[s] = struct{}{}
	return nil
}

func (e *Engine) remove(s *Subscription) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.subs, s)
	e.past.add(s.Stats())
}

// All returns the subscriptions that have not ended.
func (e *Engine) All() []*Subscription {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Keys(e.subs))
}

// Stats returns the sums of all subscriptions, those that have ended included, and how many have not.
func (e *Engine) Stats() (sum Stats, live int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	sum = e.past
	for s := range e.subs {
		sum.add(s.Stats())
	}
	return sum, len(e.subs)
}
