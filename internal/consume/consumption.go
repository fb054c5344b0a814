package consume

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// What holds where no option says otherwise.
const (
	handlingAckWaits = 10 // times the consumer's AckWait
	minRetryDelay    = 10 * time.Millisecond
)

// Consumption is the handling of a consumer's messages.
type Consumption struct {
	Options
	e    *Engine
	conn *conn.Conn
	api  *jsapi.API
	log  *slog.Logger
	host Host

	caller context.Context // of Start
	ctx    context.Context // of the messages: over when the graceful end is, or its time
	cancel context.CancelCauseFunc

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
	naks     naks
	rules    ackRules
	ruled    time.Duration // when the rules were asked for
	looking  bool          // the extender goes off soon
	looks    time.Duration // when it does; 0: not at all
	pace     pace
	stopping bool
	sided    bool  // the retry stream is one of them
	pulling  int   // pullers that run: what is on its way comes until they end
	err      error // why it ended
	stats    Stats
	expired  int      // handlers running that took too long
	age      struct { // MaxAge of the stream
		is    time.Duration
		asked time.Time
	}
	crowd crowd
}

// Start makes sure of the consumer, as long as ctx allows, and then handles its messages until BeginStop, the end
// of life, or of the client. Host is called before the first message.
func (e *Engine) Start(ctx, life context.Context, o Options, host func(*Consumption) Host) (*Consumption, error) {
	if err := cmp.Or(o.complete(e.api), fault.Ended(life)); err != nil {
		return nil, err
	}
	s := &Consumption{
		Options: o, e: e, conn: e.api.Conn(), api: e.api, log: e.log.With("stream", o.Stream, "consumer", o.Consumer),
		caller: life, done: make(chan struct{}), begun: time.Now(),
	}
	s.extender = time.AfterFunc(time.Hour, s.extendHeld)
	s.extender.Stop()
	s.quit, s.endQuit = context.WithCancel(context.Background())
	s.changed = sync.NewCond(&s.mu)
	s.held.init()
	s.pace.workers = o.Workers
	s.main = newPuller(s, o.Stream, o.Own)
	if o.Keyed {
		s.held.lanes = make(map[string]*lane)
	}
	s.parked = newPuller(s, retryStreamOf(o.Stream), nil)
	s.parked.side = true
	s.ctx, s.cancel = context.WithCancelCause(context.WithoutCancel(life))
	s.deadLetters = s.newDeadLetters()
	s.retries = s.newRetries()
	s.host = host(s)
	if err := s.main.find(ctx); err != nil {
		return nil, err
	}
	if o.Retries {
		if err := s.retries.check(ctx); err != nil {
			return nil, err
		}
	} else if most := s.rules.MaxAckPending; most > 0 && most < crowdWorkers*o.Workers && most+o.Workers > 2 {
		s.log.Warn("the consumer's MaxAckPending is small: messages that wait for their next try may stop the others",
			"max_ack_pending", most, "workers", o.Workers)
	}
	s.main.healthy, s.parked.healthy = true, s.Retries // find and check have seen them
	s.pulling = 2
	if err := e.add(s); err != nil {
		s.cancel(err)
		return nil, err
	}
	s.start()
	if err := s.denial(ctx); err != nil {
		s.BeginStop(err)
		<-s.done
		return nil, err
	}
	return s, nil
}

// Host returns whom the messages are handled for.
func (s *Consumption) Host() Host { return s.host }

// Context returns the context of the messages, with the values of the one that ends it all.
func (s *Consumption) Context() context.Context { return s.ctx }

// denial tells whether the server denies the first pull. Its word is there when it answers what follows.
func (s *Consumption) denial(ctx context.Context) error {
	select {
	case <-s.main.opened:
		_ = s.conn.Flush(ctx) // when there is no answer, the pulls go on
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
	stopWithContext := context.AfterFunc(s.caller, func() { s.endWith(s.caller) })
	stopWithClient := context.AfterFunc(s.e.life.Context(), func() { s.endWith(s.e.life.Context()) })

	run := func(pull func()) {
		pull()
		s.mu.Lock()
		s.pulling--
		s.mu.Unlock()
		s.changed.Broadcast()
	}
	s.running.Go(func() { run(s.runParked) })
	for range s.Workers {
		s.running.Go(s.work)
	}
	go func() { // it has nothing else to do then but to wait for the others
		run(s.main.run)
		s.running.Wait()
		stopWithContext()
		stopWithClient()
		s.mu.Lock()
		s.endNaks()
		s.extender.Stop()
		s.mu.Unlock()
		s.flush()
		s.cancel(s.Err())
		s.e.remove(s)
		close(s.done)
	}()
}

// take adds a message to those that are held. The caller holds s.mu.
func (s *Consumption) take(d *Delivery, key string) {
	switch {
	case s.stopping && !s.mustHandle(d):
		s.handBack(d)
		return
	case d.Deliveries > 1, d.Sequence <= s.held.highest:
		if twin := s.held.twin(d); twin != nil {
			if twin.state != stateRunning { // else its worker reads them
				twin.Deliveries = max(twin.Deliveries, d.Deliveries)
			}
			if twin.from == d.from {
				twin.reply = d.Msg.Reply
			}
			d.from.ask()
			return
		}
	}
	s.noteHeld()
	if s.held.add(d, key) {
		s.changed.Signal()
	} else {
		d.from.ask() // it waits behind another one of its key, not for a worker
	}
}

// work handles one message after the other until no more will come.
func (s *Consumption) work() {
	var d *Delivery // nil but while its handler runs
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
func (s *Consumption) noteHandled(d *Delivery, took time.Duration, kept bool) {
	s.stats.InFlight--
	s.pace.observe(took)
	if !kept {
		s.drop(d)
	}
}

// handle runs the handler, unless the message is doomed for a reason, and settles the message. It
// returns how long the handler took, if timed, and whether the message is kept for another try.
func (s *Consumption) handle(d *Delivery, timed bool, doomed string) (took time.Duration, kept bool) {
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
	err := s.host.Handle(d)
	if timed {
		took = time.Since(start)
	}
	return took, s.conclude(d, err)
}

// conclude acknowledges a message or refuses it, as its handler said, and tells whether it is kept for
// another try.
func (s *Consumption) conclude(d *Delivery, err error) (kept bool) {
	s.handled.Add(1)
	if err != nil {
		s.failures.Add(1)
	}
	switch {
	case err != nil:
		s.freshenRules()
		kept = s.failed(d, err)
	case s.Confirmed || s.denied.Load():
		s.ackConfirmed(d)
	default:
		d.finishAck()
	}
	return kept
}

// drop ends the care for a message and asks for more. The caller holds s.mu.
func (s *Consumption) drop(d *Delivery) {
	if d.expired {
		s.expired--
	}
	if s.held.remove(d) {
		s.changed.Signal()
	}
	if p := d.from; p.own != nil && !p.moved {
		p.moved = true
		if p.session != nil {
			p.session.part.Wake()
		}
	}
	d.from.ask()
}

// ackConfirmed acknowledges and waits for the server's word, for as long as the server would wait
// for ours.
func (s *Consumption) ackConfirmed(d *Delivery) {
	if !d.Token.Take() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.ackWait())
	defer cancel()
	begun := time.Now()
	err := fault.Wrap(opAck, d.Msg.Subject, s.api.Confirm(ctx, d.Msg.Reply, wire.Ack))
	s.host.Settled(d, opAck, time.Since(begun), err)
	if err == nil {
		s.denied.Store(false)
		return
	}
	if errors.Is(err, fault.ErrPermission) {
		s.denied.Store(true)
	}
	d.Token.GiveBack()
	s.count(&s.stats.Unconfirmed)
	s.noteSent(d, err)
}

func (s *Consumption) count(counter *uint64) {
	s.mu.Lock()
	*counter++
	s.mu.Unlock()
}

func (s *Consumption) ackWait() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rules.AckWait
}
