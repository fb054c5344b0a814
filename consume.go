package nats

import (
	"context"
	"iter"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consume"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// Consumption is a running Consume. Its methods are safe for concurrent use.
type Consumption struct {
	client *Client
	inner  *consume.Consumption
}

// Consume calls h for the messages of a pull consumer, which must have explicit acknowledgements,
// until Stop, the end of ctx, or Close, all of which are a graceful end.
//
// When h returns nil the message is acknowledged. When it returns an error or panics, the message is
// delivered again after a pause that grows with its deliveries (WithBackoff), or after the one that
// RetryAfter asks for; after WithMaxDeliver deliveries, or at once for an error that is Permanent, it
// goes to the dead letters. H may also acknowledge the message itself; then its error is only
// reported.
//
// While a message is held, in a handler or in wait for one, the server is kept from delivering it to
// others (WithMaxHandling). Consumption goes on over reconnects, restarts and elections, and over a
// consumer that is deleted: with WithConsumerConfig it is made again, otherwise awaited. Meanwhile
// Healthy is false and every step of the growing pause between the attempts is logged.
//
// What waits for its next try waits in its place, where it counts against the consumer's MaxAckPending: as
// many as that stop all others, so a consumer that Consume makes has one of 20,000, or what the server allows,
// unless it is set. Health and EventRetriesCrowd tell when more than half of it waits. A MaxAckPending of
// 1 is strict order: nothing else comes until the message is handled or dead. WithRetryStream lets messages
// leave their place. The server is told of them in bursts, every 250 ms, as steady ones would stop its
// redeliveries; the delay is counted to the end all the same. Who changes the consumer's AckWait moves what
// waits by as much, for the server counts from there.
//
// Dead letters keep payload and headers byte for byte: see DeadLetter and ReplayDeadLetters. The
// stream "<stream>_DLQ" (subject "dlq.<stream>.<consumer>", in a JetStream domain
// "dlq.<domain>.<stream>.<consumer>", and so for the retry stream; limits retention, 30 days, replicas and
// storage as the original's) is made when it is first needed. A message ends in its own stream only
// after its dead letter is stored; until that succeeds it is kept and tried again.
//
// The end of ctx is a Stop bounded by Config.DrainTimeout: nothing more is fetched, what waits is handed
// back, or handled where deliveries are few, and the handlers that run go on. Message.Context has the values of ctx and lives on until they
// have returned or the time is up. A handler that fails after that, or because it uses ctx itself, has
// not had its try: its message is delivered again, whatever WithMaxDeliver says, and is a dead letter
// only where the consumer's own MaxDeliver allows no other delivery.
//
// A consumer whose configuration is changed meanwhile is handled by what it says as soon as a handler takes
// longer than 400 ms, or fails: so is an AckWait that is lowered, to a second or more.
//
// The errors are ErrStreamNotFound, ErrConsumerNotFound, ErrNotConnected, ErrClosed, ErrAlreadyExists
// when the consumer exists and differs from WithConsumerConfig's, which EnsureConsumer changes, ErrPermission, and
// ErrInvalidArgument, also for a consumer that gets the schedules of a stream that allows them as messages.
func (c *Client) Consume(ctx context.Context, stream, consumer string, h Handler, opts ...ConsumeOption) (*Consumption, error) {
	const op = "consume"
	if h == nil {
		return nil, fail(op, path(stream, consumer), ErrInvalidArgument, "the handler is nil")
	}
	if err := c.checkNamed(ctx, op, stream, consumer); err != nil {
		return nil, err
	}
	o := applied(consumeOptions{Options: consume.Options{Stream: stream, Consumer: consumer}}, opts)
	o.Keyed = o.keyOf != nil
	find, cancel := c.conn.Deadline(ctx)
	defer cancel()
	host := &consuming{handler: c.handled(h), keyOf: o.keyOf}
	_, err := c.consumer.Start(find, ctx, o.Options, func(inner *consume.Consumption) consume.Host {
		host.origin = origin{client: c, ctx: inner.Context(), consumption: inner}
		host.Consumption = Consumption{client: c, inner: inner}
		return host
	})
	if err != nil {
		return nil, wrap(op, path(stream, consumer), err)
	}
	return &host.Consumption, nil
}

// Consumptions returns those that have not ended, in no particular order.
func (c *Client) Consumptions() iter.Seq[*Consumption] {
	return func(yield func(*Consumption) bool) {
		for _, inner := range c.consumer.All() {
			if host, ok := inner.Host().(*consuming); ok && !yield(&host.Consumption) {
				return
			}
		}
	}
}

// Stream returns the name of the stream.
func (s *Consumption) Stream() string { return s.inner.Stream }

// Consumer returns the name of the consumer.
func (s *Consumption) Consumer() string { return s.inner.Consumer }

// consuming is a Consumption and what its messages share.
type consuming struct {
	Consumption
	origin  origin
	handler Handler
	keyOf   func(*Message) string
}

// consumed is a message together with its delivery.
type consumed struct {
	msg Message
	d   consume.Delivery
}

// Receive implements consume.Host.
func (h *consuming) Receive(m *natsgo.Msg) *consume.Delivery {
	h.client.totals.received.Add(1)
	c := &consumed{msg: Message{
		Subject: m.Subject, Reply: m.Reply, Header: m.Header, Data: m.Data, msg: m, origin: &h.origin,
	}}
	c.d.Message, c.d.Token = &c.msg, &c.msg.acked
	return &c.d
}

// Key implements consume.Host.
func (h *consuming) Key(d *consume.Delivery) (key string, err error) {
	err = callHandler(func(msg *Message) error { key = h.keyOf(msg); return nil }, h.message(d))
	return key, err
}

// Handle implements consume.Host.
func (h *consuming) Handle(d *consume.Delivery) error { return callHandler(h.handler, h.message(d)) }

// Settled implements consume.Host.
func (h *consuming) Settled(d *consume.Delivery, op string, took time.Duration, err error) {
	msg, _ := d.Message.(*Message)
	h.client.settled(msg, Settlement{Op: op, Took: took, Err: err})
}

func (h *consuming) message(d *consume.Delivery) *Message {
	msg, _ := d.Message.(*Message)
	if meta := d.Meta(); meta != nil {
		msg.meta = meta
	}
	return msg
}

// Stop ends the Consumption gracefully: no more messages are asked for, those that wait are handed back to
// the server at once, and Stop returns when the last handler has returned and its message is settled. To be
// handed back costs a message one of its deliveries. So where the consumer's MaxDeliver or WithMaxDeliver is 5
// or less, no more is fetched ahead than the workers handle within a second, about, or a quarter of
// Config.DrainTimeout, and that is handled. What has been asked for is waited for, for 0.3 s where none comes.
// When ctx ends first (without a deadline: Config.DrainTimeout) it ends the messages' context and returns
// ErrDrainTimeout with the number of handlers left; they are still acknowledged if they return before the
// client closes. A second call waits as well. Called from a handler it would wait for itself until the time
// is up.
func (s *Consumption) Stop(ctx context.Context) error {
	const op = "stop consuming"
	if ctx == nil {
		return errNilContext(op, s.path())
	}
	ctx, cancel := s.client.drainDeadline(ctx)
	defer cancel()
	s.inner.BeginStop(ErrStopped)
	if handlers := s.inner.AwaitStop(ctx); handlers > 0 {
		return fail(op, s.path(), ErrDrainTimeout, "%d handlers still running: %w", handlers, fault.Ended(ctx))
	}
	return nil
}

func (s *Consumption) path() string { return path(s.inner.Stream, s.inner.Consumer) }

// Done returns a channel that is closed when the Consumption has ended and its last handler has
// returned.
func (s *Consumption) Done() <-chan struct{} { return s.inner.Done() }

// Err returns nil while the Consumption lives, and afterwards why it ended: ErrStopped, ErrClosed
// with the client, or the cause with which its context ended.
func (s *Consumption) Err() error { return s.inner.Err() }

// Healthy tells whether the server was heard on the consumer's behalf of late. It is false while
// disconnected, while the consumer or its stream is gone, during an election, while acknowledgements are
// denied, and after the end, within two seconds as a rule: the death of a leader whose consumer has replicas is
// known when they elect another one, some seconds later, and a leader that is frozen, without a word, after three.
func (s *Consumption) Healthy() bool { return s.inner.Healthy() }

// Lag asks the server how many messages of the consumer are not done: those not yet delivered and
// those delivered and not yet acknowledged, to whichever instance, and those in the retry stream, where one is
// used. Without a deadline in ctx, Config.RequestTimeout applies.
func (s *Consumption) Lag(ctx context.Context) (uint64, error) {
	if ctx == nil {
		return 0, errNilContext("get consumer", s.path())
	}
	return s.inner.Lag(ctx)
}

// ConsumeStats are the counters of a Consumption.
type ConsumeStats struct {
	// InFlight handlers are running.
	InFlight int
	// Ready messages are fetched ahead and wait for a worker.
	Ready int
	// Waiting messages are held here until their next try, or behind one of their key.
	Waiting int
	// Handled messages, of which Failed ended in an error or a panic. Every try counts.
	Handled uint64
	Failed  uint64
	// Retried messages were sent away to be delivered again later, of which Parked went through the
	// retry stream.
	Retried uint64
	Parked  uint64
	// DeadLettered messages are in the dead-letter stream.
	DeadLettered uint64
	// HandedBack messages were returned to the server unhandled, by Stop or for want of a worker.
	HandedBack uint64
	// Expired messages were handled for longer than WithMaxHandling allows.
	Expired uint64
	// Unconfirmed acknowledgements got no answer from the server: see WithConfirmedAcks.
	Unconfirmed uint64
}

// Stats returns the counters.
func (s *Consumption) Stats() ConsumeStats { return ConsumeStats(s.inner.Stats()) }

// Permanent marks an error that no retry will mend: a Consumption moves the message to the dead
// letters at once. It may be wrapped further. Permanent of nil is nil.
func Permanent(err error) error { return verdict(err, -1) }

// RetryAfter marks an error that may be gone after d: a Consumption delivers the message again then,
// instead of by WithBackoff's delays. It counts for WithMaxDeliver as any other delivery. A d below 10 ms is 10 ms. It may
// be wrapped further.
// RetryAfter of nil is nil.
func RetryAfter(err error, d time.Duration) error { return verdict(err, max(d, 0)) }

func verdict(err error, after time.Duration) error {
	if err == nil {
		return nil
	}
	return &consume.RetryError{Cause: err, After: after}
}

// consumption turns what a Consumption tells into events.
type consumptionReports struct{ c *Client }

func (r consumptionReports) Available(stream, consumer string) {
	r.c.emit(Event{Type: EventConsumerAvailable, Stream: stream, Consumer: consumer})
}

func (r consumptionReports) Unavailable(stream, consumer string, err error) {
	r.c.emit(Event{Type: EventConsumerUnavailable, Stream: stream, Consumer: consumer, Err: err})
}

func (r consumptionReports) Crowded(stream, consumer string, err error) {
	r.c.emit(Event{Type: EventRetriesCrowd, Stream: stream, Consumer: consumer, Err: err})
}

func (r consumptionReports) Left(stream, consumer string, messages uint64, err error) {
	r.c.emit(Event{Type: EventRetriesLeft, Stream: stream, Consumer: consumer, Messages: messages, Err: err})
}

func (r consumptionReports) Failed(d *consume.Delivery, err error) { r.of(EventHandlerError, d, err) }
func (r consumptionReports) Died(d *consume.Delivery, err error)   { r.of(EventDeadLetter, d, err) }
func (r consumptionReports) Undead(d *consume.Delivery, err error) { r.of(EventAsyncError, d, err) }
func (r consumptionReports) Unconfirmed(d *consume.Delivery, err error) {
	r.of(EventUnconfirmedAck, d, err)
}

func (r consumptionReports) of(kind EventType, d *consume.Delivery, err error) {
	s := d.Consumption()
	r.c.emit(Event{
		Type: kind, Stream: s.Stream, Consumer: s.Consumer, Subject: d.Msg.Subject,
		Sequence: d.Sequence, Deliveries: d.Deliveries, Err: err,
	})
}
