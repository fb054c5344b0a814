package nats

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// Consumption is a running Consume. Its methods are safe for concurrent use.
type Consumption struct {
	client           *Client
	stream, consumer string
	handler          Handler
	caller           context.Context // of Consume
	opts             consumeOptions
	origin           origin // of the messages; its context is over when the graceful end is, or its time
	cancel           context.CancelCauseFunc

	main        *puller // from the consumer
	parked      *puller // from the retry stream
	retries     *sideStream
	deadLetters *sideStream

	quit    context.Context // ends when no more messages are wanted
	endQuit context.CancelFunc
	running sync.WaitGroup
	done    chan struct{} // closed when the last handler has returned

	handled, failures atomic.Uint64
	denied            atomic.Bool // acknowledgements are, until one is confirmed
	scheduled         atomic.Bool // the stream may hold schedules

	begun    time.Time   // from when its clock runs
	extender *time.Timer // for what is held here

	mu       sync.Mutex
	changed  *sync.Cond // a message became ready, or no more will
	held     heldList
	waiting  waitList
	naks     naks // has a lock of its own
	rules    ackRules
	ruled    time.Duration // when the rules were asked for
	looking  bool          // the extender goes off soon
	pace     pace
	stopping bool
	sided    bool  // the retry stream is one of them
	pulling  int   // pullers that run: what is on its way comes until they end
	err      error // why it ended
	stats    ConsumeStats
	expired  int      // handlers running that took too long
	age      struct { // MaxAge of the stream
		is    time.Duration
		asked time.Time
	}
	crowd crowd
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
// when the consumer exists and differs from WithConsumerConfig's, ErrPermission, and ErrInvalidArgument, also
// for a consumer that gets the schedules of a stream that allows them as messages.
func (c *Client) Consume(ctx context.Context, stream, consumer string, h Handler, opts ...ConsumeOption) (*Consumption, error) {
	const op = "consume"
	if h == nil {
		return nil, fail(op, path(stream, consumer), ErrInvalidArgument, "the handler is nil")
	}
	if err := checkName(op, "consumer", consumer); err != nil {
		return nil, err
	}
	if err := c.checkCall(ctx, op, stream, consumer); err != nil {
		return nil, err
	}
	o, err := c.newConsumeOptions(op, stream, consumer, opts)
	if err != nil {
		return nil, err
	}
	if err := fault.Ended(ctx); err != nil {
		return nil, wrap(op, path(stream, consumer), err)
	}
	s := &Consumption{
		client: c, stream: stream, consumer: consumer, handler: h, opts: o, caller: ctx, done: make(chan struct{}),
		begun: time.Now(),
	}
	s.extender = time.AfterFunc(time.Hour, s.extendHeld)
	s.extender.Stop()
	s.quit, s.endQuit = context.WithCancel(context.Background())
	s.changed = sync.NewCond(&s.mu)
	s.held.init()
	s.pace.workers = o.workers
	s.main = newPuller(s, stream, consumer, o.own)
	if o.keyOf != nil {
		s.held.lanes = make(map[string]*lane)
	}
	s.parked = newPuller(s, retryStreamOf(stream), consumer, nil)
	s.parked.side = true
	s.naks.s = s
	s.origin = origin{client: c, naks: &s.naks}
	s.origin.ctx, s.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	s.deadLetters = s.newDeadLetters()
	s.retries = s.newRetries()
	find, cancel := c.deadline(ctx)
	defer cancel()
	if err := s.main.find(find); err != nil {
		return nil, wrap(op, path(stream, consumer), err)
	}
	if o.retries {
		if err := s.retries.check(find); err != nil {
			return nil, wrap(op, path(stream, consumer), err)
		}
	} else if most := s.rules.maxAckPending; most > 0 && most < crowdWorkers*o.workers && most+o.workers > 2 {
		c.log.Warn("the consumer's MaxAckPending is small: messages that wait for their next try may stop the others",
			"stream", stream, "consumer", consumer, "max_ack_pending", most, "workers", o.workers)
	}
	if err := c.addConsumption(s); err != nil {
		s.cancel(ErrClosed)
		return nil, wrap(op, path(stream, consumer), err)
	}
	s.start()
	if err := s.denial(find); err != nil {
		s.beginStop(err)
		<-s.done
		return nil, wrap(op, path(stream, consumer), err)
	}
	return s, nil
}

// denial tells whether the server denies the first pull. Its word is there when it answers what follows.
func (s *Consumption) denial(ctx context.Context) error {
	select {
	case <-s.main.opened:
		_ = s.client.conn.Flush(ctx) // when there is no answer, the pulls go on
	case <-s.done:
	case <-ctx.Done():
	}
	if err := s.main.denied.Load(); err != nil {
		return *err
	}
	return nil
}

// start runs the workers and everything around them.
func (s *Consumption) start() {
	s.main.healthy, s.parked.healthy = true, s.opts.retries // find and check have seen them
	stopWithContext := context.AfterFunc(s.caller, func() { s.endWith(s.caller) })
	stopWithClient := context.AfterFunc(s.client.life.Context(), func() { s.endWith(s.client.life.Context()) })

	s.pulling = 2
	for _, run := range []func(){s.main.run, s.runParked} {
		s.running.Go(func() {
			run()
			s.mu.Lock()
			s.pulling--
			s.mu.Unlock()
			s.changed.Broadcast()
		})
	}
	for range s.opts.workers {
		s.running.Go(s.work)
	}
	go func() {
		s.running.Wait()
		s.extender.Stop()
		stopWithContext()
		stopWithClient()
		s.crowd.looks.Wait()
		s.mu.Lock()
		s.naks.end()
		s.mu.Unlock()
		s.flush()
		s.cancel(s.Err())
		s.client.removeConsumption(s)
		close(s.done)
	}()
}

// take adds a message to those that are held. The caller holds s.mu.
func (s *Consumption) take(d *delivery) {
	switch {
	case s.stopping && !s.mustHandle(d):
		s.handBack(d)
		return
	case d.deliveries > 1:
		if twin := s.held.twin(d); twin != nil {
			if twin.state != stateRunning { // else its worker reads them
				twin.deliveries = max(twin.deliveries, d.deliveries)
			}
			d.from.ask()
			return
		}
	}
	s.noteHeld()
	if s.held.add(d) {
		s.changed.Signal()
	} else {
		d.from.ask() // it waits behind another one of its key, not for a worker
	}
}

// work handles one message after the other until no more will come.
func (s *Consumption) work() {
	var d *delivery // nil but while its handler runs
	defer func() {
		if d != nil {
			s.running.Go(s.work)
			kept := s.conclude(d, fault.Exited())
			s.mu.Lock()
			s.noteHandled(d, 0, kept)
			s.mu.Unlock()
		}
	}()
	s.mu.Lock()
	for {
		d = s.held.next()
		switch {
		case d != nil:
			s.stats.InFlight++
			s.noteHeld()
			timed, reason := s.pace.sample(), s.doomed(d)
			s.mu.Unlock()
			took, kept := s.handle(d, timed, reason)
			s.mu.Lock()
			s.noteHandled(d, took, kept)
		case s.stopping && s.pulling == 0:
			s.mu.Unlock()
			return
		default:
			s.changed.Wait()
		}
	}
}

// noteHandled takes note of what handle returned. The caller holds s.mu.
func (s *Consumption) noteHandled(d *delivery, took time.Duration, kept bool) {
	s.stats.InFlight--
	s.pace.observe(took)
	if !kept {
		s.drop(d)
	}
}

// handle runs the handler, unless the message is doomed for a reason, and settles the message. It
// returns how long the handler took, if timed, and whether the message is kept for another try.
func (s *Consumption) handle(d *delivery, timed bool, doomed string) (took time.Duration, kept bool) {
	if doomed != "" {
		return 0, s.bury(d, doomed)
	}
	if d.from == s.parked {
		if admitted, kept := s.admit(d); !admitted {
			return 0, kept
		}
	}
	var start time.Time
	if timed {
		start = time.Now()
	}
	err := callHandler(s.handler, &d.msg)
	if timed {
		took = time.Since(start)
	}
	return took, s.conclude(d, err)
}

// conclude acknowledges a message or refuses it, as its handler said, and tells whether it is kept for
// another try.
func (s *Consumption) conclude(d *delivery, err error) (kept bool) {
	s.handled.Add(1)
	if err != nil {
		s.failures.Add(1)
	}
	switch {
	case err != nil:
		s.freshenRules()
		kept = s.failed(d, err)
	case s.opts.confirmed || s.denied.Load():
		s.ackConfirmed(d)
	default:
		d.finish(wire.Ack)
	}
	return kept
}

// drop ends the care for a message and asks for more. The caller holds s.mu.
func (s *Consumption) drop(d *delivery) {
	if d.expired {
		s.expired--
	}
	if s.held.remove(d) {
		s.changed.Signal()
	}
	if p := d.from; p.own != nil && !p.moved {
		p.moved = true
		if p.session != nil {
			p.session.wake()
		}
	}
	d.from.ask()
}

// ackConfirmed acknowledges and waits for the server's word, for as long as the server would wait
// for ours.
func (s *Consumption) ackConfirmed(d *delivery) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.origin.ctx), s.ackWait())
	defer cancel()
	var err error
	for wait := retryPauseMin; ; wait = min(2*wait, retryPauseMax) {
		attempt, cancel := context.WithTimeout(ctx, s.patience())
		err = d.msg.AckSync(attempt)
		cancel()
		switch {
		case err == nil:
			s.denied.Store(false)
			return
		case errors.Is(err, ErrAlreadyAcked):
			return
		case errors.Is(err, ErrPermission):
			s.denied.Store(true)
		case ctx.Err() == nil && !errors.Is(err, ErrClosed):
			pause.Sleep(ctx, wait)
			continue
		}
		break
	}
	s.count(&s.stats.Unconfirmed)
	s.unconfirmed(d, err)
}

func (s *Consumption) count(counter *uint64) {
	s.mu.Lock()
	*counter++
	s.mu.Unlock()
}

func (s *Consumption) ackWait() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rules.ackWait
}
