package nats

import (
	"cmp"
	"context"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/receive"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// SubscribeOption changes a subscription.
type SubscribeOption func(*subscribeOptions)

type subscribeOptions = receive.Options

// WithConcurrency runs up to n handlers at once, for handlers that wait on something. Messages are
// then handled in no particular order. The default, and the meaning of an n below 2, is one at a
// time, in order.
func WithConcurrency(n int) SubscribeOption {
	return func(o *subscribeOptions) { o.Workers = n }
}

// WithPendingLimits bounds how many messages and bytes may wait for the handlers. What comes on top
// is dropped, counted in Stats and reported as EventSlowConsumer. A negative number means no
// bound; zero means the default: 500,000 messages and 64 MiB.
func WithPendingLimits(messages, bytes int) SubscribeOption {
	return func(o *subscribeOptions) { o.Messages, o.Bytes = messages, bytes }
}

// Subscription is the interest in a subject. It is made by Subscribe and QueueSubscribe, and its
// methods are safe for concurrent use.
type Subscription struct {
	client *Client
	inner  *receive.Subscription
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
	// Dropped messages exceeded the pending limits or WithMaxInFlight.
	Dropped uint64
	// Unanswered requests are those of HandleRequests whose senders wait for no answer: they were handled, and the
	// answers dropped.
	Unanswered uint64
}

func (c *Client) subscribe(ctx context.Context, subject, queue string, h Handler, opts []SubscribeOption) (*Subscription, error) {
	const op = "subscribe"
	switch {
	case ctx == nil:
		return nil, errNilContext(op, subject)
	case h == nil:
		return nil, fail(op, subject, ErrInvalidArgument, "the handler is nil")
	}
	if fault := cmp.Or(subjects.Fault(subject, true), c.conn.LineFault(wire.SubscribeLine(len(subject), len(queue)))); fault != "" {
		return nil, fail(op, subject, ErrInvalidSubject, "%s", fault)
	}
	if err := fault.Ended(ctx); err != nil {
		return nil, wrap(op, subject, err)
	}
	// A handler goes on when the subscription's context has ended: so does the context of its message.
	messages := &origin{client: c, pattern: subject}
	var cancel context.CancelCauseFunc
	messages.ctx, cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	o := applied(subscribeOptions{
		DrainTimeout: c.cfg.DrainTimeout,
		Handle:       func(m *natsgo.Msg) error { return callHandler(h, messages.message(m)) },
		Ended:        cancel,
	}, opts)
	if o.InFlight != 0 && o.Refuse == nil {
		return nil, fail(op, subject, ErrInvalidArgument, "WithMaxInFlight is for requests, whose senders are told: HandleRequests")
	}
	lazily := c.opts.background && !c.conn.WasUp() // it takes effect with the first connection
	s, err := c.subs.Subscribe(ctx, subject, queue, o, lazily)
	if err != nil {
		return nil, wrap(op, subject, err)
	}
	return &Subscription{client: c, inner: s}, nil
}

// Subject returns the subject that was subscribed to.
func (s *Subscription) Subject() string { return s.inner.Subject }

// Queue returns the queue group, or "".
func (s *Subscription) Queue() string { return s.inner.Queue }

// Stats returns the subscription's counters.
func (s *Subscription) Stats() SubscriptionStats { return SubscriptionStats(s.inner.Stats()) }

// Err returns nil while the subscription lives, and once it ends, why: ErrUnsubscribed, ErrClosed with
// the client, or the cause with which its context ended. A subscription that lives and gets nothing,
// because the server denies what it permitted before, returns ErrPermission until it is permitted again,
// which is tried every few seconds.
func (s *Subscription) Err() error { return s.inner.Err() }

// Done returns a channel that is closed when the subscription has ended and its last handler has
// returned.
func (s *Subscription) Done() <-chan struct{} { return s.inner.Done() }

// Unsubscribe ends the subscription at once: messages that wait for the handler are dropped, and a
// running handler is left to end, with its message's context at its end. A second call does nothing
// and returns nil.
func (s *Subscription) Unsubscribe() error {
	s.inner.Stop(ErrUnsubscribed)
	return nil
}

// Drain ends the subscription gracefully: no new messages come, those already received are handled,
// and Drain returns when the last handler has. When ctx ends first (without a deadline:
// Config.DrainTimeout) it drops the rest and returns ErrDrainTimeout with the numbers left. A handler
// of the subscription that calls it would wait for itself: it calls Drain on another goroutine, or
// Unsubscribe.
func (s *Subscription) Drain(ctx context.Context) error {
	if ctx == nil {
		return errNilContext("drain", s.Subject())
	}
	ctx, cancel := s.client.drainDeadline(ctx)
	defer cancel()
	return s.inner.Drain(ctx, ErrUnsubscribed)
}

// receiving turns what subscriptions tell into log lines and events.
type receiving struct{ c *Client }

func (r receiving) Failed(subject, queue string, err error) { r.c.reportHandler(err, subject, queue) }

func (r receiving) Lost(subject, queue string, err error) {
	r.c.log.Error("messages are lost", "subject", subject, "queue", queue, "error", err)
	r.c.emit(Event{Type: EventAsyncError, Subject: subject, Queue: queue, Err: err})
}

func (r receiving) Slow(s *receive.Subscription, dropped uint64, first bool) {
	c := r.c
	if first {
		stats := s.Stats()
		c.log.Warn(slowText, "subject", s.Subject, "queue", s.Queue, "pending", stats.Pending, "dropped", stats.Dropped)
		c.tellUser(s.Upstream(), natsgo.ErrSlowConsumer)
	}
	c.reportSlow(s.Subject, s.Queue, dropped)
}

const slowText = "slow consumer: messages are being dropped"

func (c *Client) reportSlow(subject, queue string, dropped uint64) {
	c.emit(Event{
		Type: EventSlowConsumer, Subject: subject, Queue: queue, Messages: dropped,
		Err: wrap("subscription", subject, natsgo.ErrSlowConsumer),
	})
}

// callHandler turns a panic into an error. It does not return when h ends its goroutine.
func callHandler(h Handler, msg *Message) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fault.Panicked(r)
		}
	}()
	return h(msg)
}

// contain calls a callback of the user's whose panic is to harm nothing, and reports that.
func (c *Client) contain(name string, callback func()) {
	if err := callHandler(func(*Message) error { callback(); return nil }, nil); err != nil {
		c.log.Error("a callback panicked", append(fault.Attrs(err), "callback", name)...)
	}
}

const handlerFailed = "message handler failed"

// reportHandler reports an error that a handler of a subscription returned, or its panic.
func (c *Client) reportHandler(err error, subject, queue string) {
	c.log.Error(handlerFailed, append(fault.Attrs(err), "subject", subject, "queue", queue)...)
	c.emit(Event{Type: EventHandlerError, Subject: subject, Queue: queue, Err: err})
}
