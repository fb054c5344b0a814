package nats

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// SubscribeOption changes a subscription.
type SubscribeOption func(*subscribeOptions)

type subscribeOptions struct {
	concurrency     int
	messages, bytes int
}

// WithConcurrency runs up to n handlers at once, for handlers that wait on something. Messages are
// then handled in no particular order. The default, and the meaning of an n below 2, is one at a
// time, in order.
func WithConcurrency(n int) SubscribeOption {
	return func(o *subscribeOptions) { o.concurrency = n }
}

// WithPendingLimits bounds how many messages and bytes may wait for the handlers. What comes on top
// is dropped, counted in Stats and reported as EventSlowConsumer. A negative number means no
// bound; zero means the default: 500,000 messages and 64 MiB.
func WithPendingLimits(messages, bytes int) SubscribeOption {
	return func(o *subscribeOptions) { o.messages, o.bytes = messages, bytes }
}

// Subscription is the interest in a subject. It is made by Subscribe and QueueSubscribe, and its
// methods are safe for concurrent use.
type Subscription struct {
	client         *Client
	subject, queue string
	handler        Handler
	options        subscribeOptions
	origin         origin
	cancel         context.CancelCauseFunc

	jobs    chan *Message // to the workers; nil when one message is handled at a time
	quit    chan struct{} // ends the workers
	workers sync.WaitGroup

	inFlight atomic.Int64
	handled  atomic.Uint64
	failed   atomic.Uint64

	mu       sync.Mutex
	attached []*attachment // one, but for the time in which the client leaves its server
	dropped  uint64        // by attachments that have ended
	reported uint64        // of all dropped, in events
	slow     *time.Timer   // runs while the subscription drops messages; nil otherwise

	ended sync.Once
	done  chan struct{} // closed when the last handler has returned
}

// SubscriptionStats are the counters of a subscription.
type SubscriptionStats struct {
	// Pending messages, and their bytes, wait for the handler.
	Pending      int
	PendingBytes int
	// InFlight handlers are running.
	InFlight int
	// Handled messages, of which Failed ended in an error or a panic.
	Handled uint64
	Failed  uint64
	// Dropped messages exceeded the pending limits.
	Dropped uint64
}

func (c *Client) subscribe(ctx context.Context, subject, queue string, h Handler, opts []SubscribeOption) (*Subscription, error) {
	const op = "subscribe"
	switch {
	case ctx == nil:
		return nil, errNilContext(op, subject)
	case h == nil:
		return nil, fail(op, subject, ErrInvalidArgument, "the handler is nil")
	}
	if err := checkSubscribeSubject(op, subject); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, wrap(op, subject, err)
	}
	var o subscribeOptions
	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}

	s := &Subscription{
		client: c, subject: subject, queue: queue, handler: h, options: o,
		quit: make(chan struct{}), done: make(chan struct{}),
	}
	s.origin = origin{client: c}
	s.origin.ctx, s.cancel = context.WithCancelCause(ctx)
	if o.concurrency > 1 {
		s.jobs = make(chan *Message)
		for range o.concurrency {
			s.workers.Go(s.work)
		}
	}
	if err := s.start(ctx); err != nil {
		s.stop()
		return nil, err
	}
	context.AfterFunc(s.origin.ctx, s.stop)
	return s, nil
}

// start makes the subscription known to the server and returns what the server says to it.
func (s *Subscription) start(ctx context.Context) error {
	const op = "subscribe"
	c := s.client
	denial := c.denials.expect(s.subject, s.queue)
	defer c.denials.forget(denial)
	before := c.nc.LastError()

	if err := c.addSubscription(s); err != nil {
		s.finish()
		return wrap(op, s.subject, err)
	}
	if _, err := s.attach(c.nc, nil); err != nil {
		s.finish()
		return wrap(op, s.subject, err)
	}
	if c.opts.background && !c.link.wasUp() {
		return nil // it takes effect with the first connection
	}
	if err := c.roundTrip(ctx, op, s.subject); err != nil {
		return err
	}
	return wrap(op, s.subject, denial.verdict(before, c.nc.LastError()))
}

func limit(n, otherwise int) int {
	if n == 0 {
		return otherwise
	}
	return n
}

// deliver is called by nats.go, for one message at a time.
func (s *Subscription) deliver(m *natsgo.Msg) {
	msg := s.origin.message(m)
	if s.jobs == nil {
		s.handle(msg)
		return
	}
	select {
	case s.jobs <- msg:
	case <-s.origin.ctx.Done():
	case <-s.quit:
	}
}

func (s *Subscription) work() {
	for {
		select {
		case msg := <-s.jobs:
			s.handle(msg)
		case <-s.quit:
			return
		}
	}
}

func (s *Subscription) handle(msg *Message) {
	s.inFlight.Add(1)
	err := callHandler(s.handler, msg)
	s.inFlight.Add(-1)
	s.handled.Add(1)
	if err != nil {
		s.failed.Add(1)
		s.client.reportHandler(err, msg.Subject, s.queue)
	}
}

// Subject returns the subject that was subscribed to.
func (s *Subscription) Subject() string { return s.subject }

// Queue returns the queue group, or "".
func (s *Subscription) Queue() string { return s.queue }

// Stats returns the subscription's counters.
func (s *Subscription) Stats() SubscriptionStats {
	stats := SubscriptionStats{
		InFlight: int(s.inFlight.Load()),
		Handled:  s.handled.Load(),
		Failed:   s.failed.Load(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.attached {
		if messages, bytes, err := a.sub.Pending(); err == nil {
			stats.Pending += messages
			stats.PendingBytes += bytes
		}
	}
	if s.jobs == nil && stats.Pending > 0 {
		stats.Pending -= stats.InFlight // upstream counts the message being handled
	}
	stats.Dropped = s.countDropped()
	return stats
}

// Err returns nil while the subscription lives, and afterwards why it ended: ErrUnsubscribed,
// ErrClosed with the client, or the cause with which its context ended.
func (s *Subscription) Err() error {
	if s.origin.ctx.Err() == nil {
		return nil
	}
	return context.Cause(s.origin.ctx)
}

// Unsubscribe ends the subscription at once: messages that wait for the handler are dropped, a
// running handler is left to end. A second call does nothing and returns nil.
func (s *Subscription) Unsubscribe() error {
	s.stop()
	return nil
}

// stop ends the subscription without waiting for handlers. Upstream then calls detach.
func (s *Subscription) stop() {
	s.cancel(s.endCause())
	for _, a := range s.attachments() {
		_ = a.sub.Unsubscribe()
	}
}

// Drain ends the subscription gracefully: no new messages come, those already received are handled,
// and Drain returns when the last handler has. When ctx ends first (without a deadline:
// Config.DrainTimeout) it drops the rest and returns ErrDrainTimeout with the numbers left.
func (s *Subscription) Drain(ctx context.Context) error {
	if ctx == nil {
		return errNilContext("drain", s.Subject())
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.client.cfg.DrainTimeout)
		defer cancel()
	}
	if left := s.drain(ctx); left.InFlight+left.Pending > 0 {
		return fail("drain", s.Subject(), ErrDrainTimeout, "%d handlers still running, %d messages not handled: %w",
			left.InFlight, left.Pending, context.Cause(ctx))
	}
	return nil
}

// drain returns what was left when ctx ended.
func (s *Subscription) drain(ctx context.Context) SubscriptionStats {
	told := false // the server and upstream, that the subscription drains
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for {
		stats := s.Stats()
		switch up, _, _ := s.client.link.state(); {
		case up && !told:
			told = true
			for _, a := range s.attachments() {
				told = a.sub.Drain() == nil && told
			}
		case !up && stats.Pending == 0 && stats.InFlight == 0:
			// No server can send more, and none has to be told.
			for _, a := range s.attachments() {
				_ = a.sub.Unsubscribe()
			}
		}
		select {
		case <-s.done:
			return SubscriptionStats{}
		case <-tick.C:
		case <-ctx.Done():
			stats = s.Stats()
			s.stop()
			return stats
		}
	}
}

// drainPoll is how often a drain looks at the connection and the queue. A subscription that drains
// on a live connection ends without waiting for it.
const drainPoll = 5 * time.Millisecond

// finish ends what the subscription holds.
func (s *Subscription) finish() {
	s.ended.Do(func() {
		close(s.quit)
		s.workers.Wait()
		s.cancel(s.endCause())
		s.endSlow()
		s.client.removeSubscription(s)
		close(s.done)
	})
}

func (s *Subscription) endCause() error {
	if s.client.isClosing() || s.client.nc.IsClosed() {
		return ErrClosed
	}
	return ErrUnsubscribed
}

func (c *Client) addSubscription(s *Subscription) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isClosing() {
		return ErrClosed
	}
	c.subs[s] = struct{}{}
	return nil
}

func (c *Client) removeSubscription(s *Subscription) {
	c.mu.Lock()
	delete(c.subs, s)
	c.mu.Unlock()
	c.dropped.Add(s.Stats().Dropped)
}

func (c *Client) subscriptions() []*Subscription {
	c.mu.Lock()
	defer c.mu.Unlock()
	subs := make([]*Subscription, 0, len(c.subs))
	for s := range c.subs {
		subs = append(subs, s)
	}
	return subs
}
