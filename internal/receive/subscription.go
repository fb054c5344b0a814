package receive

import (
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// Subscription is the interest in a subject. Its methods are safe for concurrent use.
type Subscription struct {
	Subject, Queue string

	e      *Engine
	o      Options
	work   func()      // run, made once
	forget func() bool // the context of Subscribe
	ended  sync.Once
	done   chan struct{} // closed when the last handler has returned

	mu        sync.Mutex
	upstream  *natsgo.Subscription // nil while nothing is received
	gone      chan struct{}        // closed when upstream has delivered its last message
	releasing bool                 // by this package
	making    bool                 // Subscribe has not returned yet
	refused   error                // by the server
	refusedIn uint64               // breaks of the connection until then
	cause     error                // of the end, once it has begun
	stopped   bool                 // what comes is dropped
	queue     queue
	running   int // workers
	stats     Stats
	reported  uint64      // of the dropped messages
	slow      *time.Timer // runs while messages are dropped; else nil
}

// Stats are the counters of a subscription.
type Stats struct {
	Pending, PendingBytes    int // wait for a handler
	InFlight                 int // handlers running
	Handled, Failed, Dropped uint64
}

// queue is messages in their order, in a ring.
type queue struct {
	ring        []*natsgo.Msg
	first, size int
}

// What an empty queue keeps room for, and what the first message makes room for.
const (
	queueKept  = 1024
	queueBegin = 4
)

func (q *queue) push(m *natsgo.Msg) {
	if q.size == len(q.ring) {
		larger := make([]*natsgo.Msg, max(queueBegin, 2*q.size))
		n := copy(larger, q.ring[q.first:])
		copy(larger[n:], q.ring[:q.first])
		q.ring, q.first = larger, 0
	}
	q.ring[(q.first+q.size)&(len(q.ring)-1)] = m // the length is a power of two
	q.size++
}

func (q *queue) pop() *natsgo.Msg {
	m := q.ring[q.first]
	q.ring[q.first] = nil
	q.first = (q.first + 1) & (len(q.ring) - 1)
	if q.size--; q.size == 0 && len(q.ring) > queueKept {
		q.ring, q.first = nil, 0
	}
	return m
}

// receive is called by nats.go, for one message at a time.
func (s *Subscription) receive(m *natsgo.Msg) {
	size, dropped := m.Size(), uint64(0)
	s.mu.Lock()
	switch {
	case s.stopped:
	case s.o.Messages > 0 && s.queue.size >= s.o.Messages, s.o.Bytes > 0 && s.stats.PendingBytes+size > s.o.Bytes:
		dropped = s.drop()
	default:
		s.queue.push(m)
		s.stats.PendingBytes += size
		if s.running < s.o.Workers {
			s.running++
			go s.work()
		}
	}
	s.mu.Unlock()
	if dropped > 0 {
		s.e.reports.Slow(s, dropped, true)
	}
}

// run handles messages until none waits.
func (s *Subscription) run() {
	var m *natsgo.Msg // nil but while it is handled
	defer func() {
		if m != nil { // the handler has ended the goroutine
			s.handled(m, fault.Exited())
			s.mu.Unlock()
			go s.work()
		}
	}()
	s.mu.Lock()
	for s.queue.size > 0 {
		m = s.queue.pop()
		s.stats.PendingBytes -= m.Size()
		s.stats.InFlight++
		s.mu.Unlock()
		s.handled(m, s.o.Handle(m))
	}
	m = nil
	s.running--
	s.mu.Unlock()
	s.finishIfOver()
}

// handled takes note of what a handler returned. It leaves the lock to the caller.
func (s *Subscription) handled(m *natsgo.Msg, err error) {
	if err != nil {
		s.e.reports.Failed(m.Subject, s.Queue, err)
	}
	s.mu.Lock()
	s.stats.InFlight--
	s.stats.Handled++
	if err != nil {
		s.stats.Failed++
	}
}

// Stats returns the counters.
func (s *Subscription) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	stats.Pending = s.queue.size
	return stats
}

// Upstream returns nats.go's subscription, or nil while there is none.
func (s *Subscription) Upstream() *natsgo.Subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.upstream
}

// Done returns a channel that is closed when the subscription has ended and its last handler has
// returned.
func (s *Subscription) Done() <-chan struct{} { return s.done }

// Err returns why the subscription ends, or why the server of the present connection refuses it.
func (s *Subscription) Err() error {
	s.mu.Lock()
	cause := s.cause
	s.mu.Unlock()
	if cause == nil {
		return s.Refused()
	}
	return cause
}

// Refused returns why the server of the present connection sends nothing, or nil.
func (s *Subscription) Refused() error {
	_, breaks, _ := s.e.conn.State()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused == nil || s.refusedIn != breaks {
		return nil
	}
	return fault.Wrap("subscription", s.Subject, s.refused)
}

// attach makes the server send. The caller sees to it that this need not wait.
func (s *Subscription) attach() error {
	upstream, err := s.e.conn.NATS().QueueSubscribe(s.Subject, s.Queue, s.receive)
	if err != nil {
		return err
	}
	_ = upstream.SetPendingLimits(-1, -1) // the limits are those of the queue
	gone := make(chan struct{})
	s.mu.Lock()
	s.upstream, s.gone, s.releasing = upstream, gone, false
	ends := s.cause != nil
	s.mu.Unlock()
	detach := sync.OnceFunc(func() { s.detached(gone) })
	upstream.SetClosedHandler(func(string) { detach() })
	switch {
	case ends:
		s.e.conn.Unsubscribe(upstream)
	case !upstream.IsValid(): // it was closed before it had the handler
		go detach()
	}
	return nil
}

// detached runs when nats.go delivers nothing more.
func (s *Subscription) detached(gone chan struct{}) {
	s.mu.Lock()
	s.upstream = nil
	if !s.releasing && s.cause == nil { // the connection was closed for good
		s.cause = fault.ErrClosed
	}
	s.mu.Unlock()
	close(gone)
	s.finishIfOver()
}

// finishIfOver ends the subscription when it is to end, and nothing comes and no handler runs any more.
func (s *Subscription) finishIfOver() {
	s.mu.Lock()
	over := s.cause != nil && s.upstream == nil && s.running == 0
	s.mu.Unlock()
	if !over {
		return
	}
	s.ended.Do(func() {
		s.forget()
		if n := s.endSlow(); n > 0 {
			s.e.reports.Slow(s, n, false)
		}
		s.o.Ended(s.Err())
		s.e.remove(s)
		close(s.done)
	})
}
