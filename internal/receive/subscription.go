package receive

import (
	"sync"
	"sync/atomic"
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
	gone      chan struct{}        // closed when upstream has delivered its last message; nil while nobody waits
	releasing bool                 // by this package
	making    bool                 // Subscribe has not returned yet
	refused   error                // by the server
	refusedIn uint64               // breaks of the connection until then
	denials   int                  // by the server
	asks      bool                 // it is going to ask again
	cause     error                // of the end, once it has begun
	queue     queue
	admitted  int64       // messages, ever
	running   int         // workers
	inFlight  int         // of them, with a handler
	dropped   uint64      // messages
	reported  uint64      // of those
	slow      *time.Timer // runs while messages are dropped; else nil

	block           int          // messages that a worker takes at a time
	ahead           atomic.Int64 // of the one worker's that it has not begun
	handled, failed atomic.Uint64
	unanswered      atomic.Uint64
	stopped         atomic.Bool // what waits and what comes is dropped
}

// Stats are the counters of a subscription.
type Stats struct {
	Pending, PendingBytes    int // wait for a handler; without the bytes of the few that a worker has taken
	InFlight                 int // handlers running
	Handled, Failed, Dropped uint64
	Unanswered               uint64 // handled requests whose senders wait for no answer
}

func (s *Stats) add(one Stats) {
	s.Pending += one.Pending
	s.PendingBytes += one.PendingBytes
	s.InFlight += one.InFlight
	s.Handled += one.Handled
	s.Failed += one.Failed
	s.Dropped += one.Dropped
}

// receive is called by nats.go, for one message at a time.
func (s *Subscription) receive(m *natsgo.Msg) {
	dropped, refused := uint64(0), true
	s.mu.Lock()
	switch {
	case s.stopped.Load():
	case s.o.Messages > 0 && s.queue.size >= s.o.Messages, s.o.Bytes > 0 && s.queue.bytes+m.Size() > s.o.Bytes,
		s.o.InFlight > 0 && s.admitted-s.o.Settled.Load() >= int64(s.o.InFlight):
		dropped = s.drop()
	default:
		refused = false
		s.admitted++
		s.queue.push(m, s.block)
		if s.running < s.o.Workers {
			s.running++
			go s.work()
		}
	}
	s.mu.Unlock()
	if refused && s.o.Refuse != nil {
		s.o.Refuse(m)
	}
	if dropped > 0 {
		s.e.reports.Slow(s, dropped, true)
	}
}

// run handles messages until none waits.
func (s *Subscription) run() {
	var b *block      // being worked on; else nil
	var m *natsgo.Msg // of it, being handled
	defer func() {
		if b != nil { // the handler has ended the goroutine
			s.note(m, fault.Exited())
			s.mu.Lock()
			s.inFlight--
			s.ahead.Store(0)
			s.queue.putBack(b)
			s.mu.Unlock()
			go s.work()
		}
	}()
	s.mu.Lock()
	for b = s.queue.take(); b != nil; b = s.queue.take() {
		s.inFlight++
		s.mu.Unlock()
		for b.first < b.last && !s.stopped.Load() {
			m = b.pop()
			s.ahead.Store(int64(b.last - b.first))
			s.note(m, s.o.Handle(m))
		}
		s.ahead.Store(0) // or the subscription was stopped
		s.refuse(b)
		s.mu.Lock()
		s.inFlight--
	}
	s.running--
	s.mu.Unlock()
	s.finishIfOver()
}

// note takes note of what a handler returned.
func (s *Subscription) note(m *natsgo.Msg, err error) {
	if err != nil {
		s.failed.Add(1)
		if told, ok := err.(*fault.Answered); !ok || told.Cause != nil { //nolint:errorlint // it is made by Handle
			s.e.reports.Failed(m.Subject, s.Queue, err)
		}
	}
	if m.Reply == "" && s.o.Refuse != nil {
		s.unanswered.Add(1)
	}
	s.handled.Add(1)
}

// refuse drops what is left of a block.
func (s *Subscription) refuse(b *block) {
	for s.o.Refuse != nil && b.first < b.last {
		s.o.Refuse(b.pop())
	}
	b.recycle()
}

// Stats returns the counters.
func (s *Subscription) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{
		Pending: s.queue.size + int(s.ahead.Load()), PendingBytes: s.queue.bytes, InFlight: s.inFlight,
		Handled: s.handled.Load(), Failed: s.failed.Load(), Dropped: s.dropped, Unanswered: s.unanswered.Load(),
	}
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
	s.mu.Lock()
	s.upstream = upstream
	ends := s.cause != nil
	s.mu.Unlock()
	upstream.SetClosedHandler(s.detached)
	switch {
	case ends:
		s.e.conn.Unsubscribe(upstream)
	case !upstream.IsValid(): // it was closed before it had the handler
		go s.detached("")
	}
	return nil
}

// detached is called when nats.go delivers nothing more, or twice.
func (s *Subscription) detached(string) {
	s.mu.Lock()
	s.upstream = nil
	if !s.releasing && s.cause == nil { // the connection was closed for good
		s.cause = fault.ErrClosed
	}
	if s.gone != nil {
		close(s.gone)
		s.gone = nil
	}
	s.mu.Unlock()
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
