package nats

import (
	"context"
	"errors"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// How a puller asks and how long it waits.
const (
	pullExpires      = 30 * time.Second       // of one pull
	pullHeartbeat    = 500 * time.Millisecond // of the server while it has no message
	pullSilent       = 3                      // heartbeats missed before the pull is given up
	pullPauseMin     = 50 * time.Millisecond  // before the second attempt; it doubles
	pullPauseMax     = time.Second            // so that consumption is back 2 s after the server is
	pullPauseDeleted = 100 * time.Millisecond
	pullWarnEvery    = 60              // attempts at the longest pause
	optionalPause    = 5 * time.Second // between looks for a consumer that need not exist
	floorChecks      = 10              // heartbeats between looks at the acknowledgement floor
	apiAttempt       = time.Second     // of one question to the server
	blockedMax       = 1000            // messages that wait here before no more are asked for
	drainedMax       = 2 * time.Second // for what is on its way when a puller ends
)

var (
	errPullSilent   = errors.New("the server is silent")
	errPullRelinked = errors.New("the connection changed")
)

// puller keeps pulls for messages open on one consumer (ADR-37), whatever happens to the consumer,
// its stream, the server and the connection. Its fields are guarded by the Consumption's lock.
type puller struct {
	s                *Consumption
	stream, consumer string
	own              *jetstream.ConsumerConfig // to create it again from
	optional         bool                      // nobody minds when it does not exist
	subject          string                    // of pulls
	poke             chan struct{}             // an optional consumer has come into being

	session *pullSession // nil between two
	healthy bool
	active  int // messages from here that are ready or running

	// Of its own consumer, to begin it anew after what is known to be done.
	floor   uint64
	created time.Time // of the stream
}

// pullSession is the pulls over one inbox. When anything is wrong with them, a new inbox separates
// what comes of the old ones from what is asked for next.
type pullSession struct {
	p      *puller
	inbox  string
	sub    *natsgo.Subscription
	fault  chan error // holds the first
	closed chan struct{}

	// guarded by the Consumption's lock
	asked int    // messages asked for and not yet received
	signs uint64 // of life
}

func newPuller(s *Consumption, stream, consumer string, own *jetstream.ConsumerConfig) *puller {
	return &puller{
		s: s, stream: stream, consumer: consumer, own: own, poke: make(chan struct{}, 1),
		subject: s.client.api.Subject("CONSUMER.MSG.NEXT." + stream + "." + consumer),
	}
}

// run pulls until the Consumption stops.
func (p *puller) run() {
	var pause time.Duration
	missing := p.optional
	for attempt := 1; ; attempt++ {
		heard, err := p.pull(missing)
		switch {
		case p.s.quit.Err() != nil:
			return
		case errors.Is(err, ErrClosed):
			<-p.s.quit.Done() // it follows
			return
		case errors.Is(err, errPullRelinked):
			attempt, pause, missing = 0, 0, p.optional && missing
			continue
		case heard:
			attempt, pause = 1, 0
		}
		// Silence is looked into only when it follows silence.
		missing = !errors.Is(err, wire.ErrPullAgain) && (!heard || !errors.Is(err, errPullSilent))
		before := pause
		pause = p.failed(attempt, before, err)
		select {
		case <-time.After(pause):
		case <-p.poke:
		case <-p.s.quit.Done():
			return
		}
	}
}

// failed reports a failed attempt and returns the pause before the next. The first comes at once, for
// mostly the server has only moved the consumer, unless the consumer was deleted: one that is made
// again while the server still removes the files of the old one loses its own.
func (p *puller) failed(attempt int, before time.Duration, err error) time.Duration {
	if p.optional {
		return optionalPause
	}
	pause := time.Duration(0)
	switch {
	case attempt > 1:
		pause = min(max(2*before, pullPauseMin), pullPauseMax)
	case errors.Is(err, jetstream.ErrConsumerDeleted):
		pause = pullPauseDeleted
	}
	s := p.s
	s.mu.Lock()
	wasHealthy := p.healthy
	p.healthy = false
	s.mu.Unlock()
	if wasHealthy {
		s.client.emit(Event{Type: EventConsumerUnavailable, Stream: p.stream, Consumer: p.consumer, Err: err})
	}
	if pause != before || attempt == 1 || attempt%pullWarnEvery == 0 {
		s.client.log.Warn("consumer is not available; trying again",
			"stream", p.stream, "consumer", p.consumer, "attempt", attempt, "pause", pause, "error", err)
	}
	return pause
}

// pull holds one session. It returns why it ended, and whether the server was heard in it.
func (p *puller) pull(missing bool) (heard bool, err error) {
	s := p.s
	if err := s.client.conn.Wait(s.quit); err != nil {
		return false, err
	}
	_, breaks, _ := s.client.conn.State()
	if missing {
		ctx, cancel := context.WithTimeout(s.quit, apiAttempt)
		err := p.find(ctx)
		cancel()
		if err != nil {
			return false, err
		}
	}
	if !p.optional {
		s.measureTrip()
	}
	session, err := p.open()
	if err != nil {
		return false, err
	}
	err = session.watch(breaks)
	s.mu.Lock()
	p.session = nil
	heard = session.signs > 0
	if errors.Is(err, errPullRelinked) {
		p.healthy = false
	}
	s.mu.Unlock()
	session.close(err)
	return heard, err
}

// measureTrip finds out how far the server is.
func (s *Consumption) measureTrip() {
	ctx, cancel := context.WithTimeout(s.quit, apiAttempt)
	defer cancel()
	begin := time.Now()
	if s.client.conn.Flush(ctx) != nil {
		return // the pull will tell
	}
	took := time.Since(begin)
	s.mu.Lock()
	s.pace.observeTrip(took)
	s.mu.Unlock()
}

// open subscribes to a new inbox and asks for the first messages.
func (p *puller) open() (*pullSession, error) {
	c := p.s.client
	session := &pullSession{p: p, inbox: c.nc.NewInbox(), fault: make(chan error, 1), closed: make(chan struct{})}
	sub, err := c.conn.Subscribe(p.s.quit, session.inbox, session.receive, nil)
	if err != nil {
		return nil, err
	}
	_ = sub.SetPendingLimits(-1, -1) // no more comes than was asked for
	sub.SetClosedHandler(func(string) { close(session.closed) })
	session.sub = sub
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.session = session
	p.ask()
	return session, nil
}

// watch returns when the session is of no more use.
func (ps *pullSession) watch(breaks uint64) error {
	s := ps.p.s
	check := time.NewTicker(pullHeartbeat)
	defer check.Stop()
	var signs uint64
	for silent, checks := 0, 1; ; {
		up, now, change := s.client.conn.State()
		if !up || now != breaks {
			return errPullRelinked // the server has forgotten the pulls
		}
		s.mu.Lock()
		ps.p.ask() // what there was no room for
		s.mu.Unlock()
		select {
		case err := <-ps.fault:
			return err
		case <-s.quit.Done():
			return ErrStopped
		case <-change:
		case <-check.C:
			s.mu.Lock()
			if ps.asked > 0 && ps.signs == signs {
				silent++
			} else {
				silent = 0
			}
			signs = ps.signs
			unknown := ps.asked == 0 && !ps.p.healthy && !ps.p.optional
			s.mu.Unlock()
			if silent >= pullSilent {
				return errPullSilent
			}
			if unknown { // all workers are busy, so there is no pull to hear of
				ps.inquire()
			}
			if checks++; checks%floorChecks == 0 {
				ps.p.noteFloor()
			}
		}
	}
}

// inquire asks for the consumer where no pull does.
func (ps *pullSession) inquire() {
	s := ps.p.s
	ctx, cancel := context.WithTimeout(s.quit, apiAttempt)
	defer cancel()
	if ps.p.find(ctx) == nil {
		s.mu.Lock()
		ps.alive()
		s.mu.Unlock()
	}
}

// close ends the session. What is on its way still comes through receive, but for a connection that
// is gone.
func (ps *pullSession) close(cause error) {
	c := ps.p.s.client
	if errors.Is(cause, errPullRelinked) || !ps.drain() {
		c.conn.Unsubscribe(ps.sub)
		return
	}
	if ps.p.s.quit.Err() == nil {
		return
	}
	select {
	case <-ps.closed:
	case <-time.After(drainedMax):
		c.conn.Unsubscribe(ps.sub)
	case <-c.life.Context().Done():
	}
}

// drain begins to end the subscription gracefully, if there is room to tell the server.
func (ps *pullSession) drain() bool {
	ctx, cancel := context.WithTimeout(ps.p.s.client.life.Context(), drainedMax)
	defer cancel()
	pass, err := ps.p.s.client.conn.Enter(ctx, 0)
	if err != nil {
		return false
	}
	defer pass.Leave()
	return ps.sub.Drain() == nil
}

// ask asks for as many messages as there is room for, if that is worth a pull. The caller holds s.mu.
func (p *puller) ask() {
	s, session := p.s, p.session
	if session == nil || s.stopping {
		return
	}
	target := s.pace.target()
	if p.optional {
		target = s.opts.workers // those that come back, beside the many that are new
	}
	want := target - p.active - session.asked
	if 2*want < target && p.active+session.asked >= s.opts.workers {
		return // later, and more at once
	}
	if want < 1 || s.hung() || s.held.count-s.held.ready-s.stats.InFlight >= blockedMax {
		return
	}
	if s.rules.maxBatch > 0 {
		want = min(want, s.rules.maxBatch)
	}
	if s.client.conn.TryPublish(p.subject, session.inbox, wire.Pull(want, s.rules.expires, min(pullHeartbeat, s.rules.expires/2), false)) == nil {
		session.asked += want
	} // else it shows as a change of the link
}

// receive is called by nats.go for everything that comes to the inbox, one at a time.
func (ps *pullSession) receive(m *natsgo.Msg) {
	p := ps.p
	s := p.s
	if m.Reply == "" { // a message of the stream has its acknowledgement subject there
		ps.onStatus(m)
		return
	}
	d := &delivery{msg: Message{
		Subject: m.Subject, Reply: m.Reply, Header: m.Header, Data: m.Data, msg: m, origin: &s.origin,
	}, from: p}
	var ok bool
	d.deliveries, d.seq, d.stored, ok = wire.ParseReply(m.Reply)
	wanted := ok && (!p.optional || s.unpark(d))
	if wanted && s.opts.keyOf != nil {
		ps.setKey(d)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ps.asked--
	ps.alive()
	if !wanted {
		p.ask()
		return
	}
	s.take(d)
}

// fail ends the session.
func (ps *pullSession) fail(err error) {
	select {
	case ps.fault <- err:
	default: // the first is being taken care of
	}
}

// alive notes a sign of life. The caller holds s.mu.
func (ps *pullSession) alive() {
	ps.signs++
	p := ps.p
	if p.healthy || p.session != ps {
		return
	}
	p.healthy = true
	if !p.optional {
		p.s.client.log.Info("consumer is available", "stream", p.stream, "consumer", p.consumer)
		p.s.client.emit(Event{Type: EventConsumerAvailable, Stream: p.stream, Consumer: p.consumer})
	}
}

// onStatus takes the server's word on a pull.
func (ps *pullSession) onStatus(m *natsgo.Msg) {
	s := ps.p.s
	status, description := wire.Status(m)
	left, ended := wire.PullEnded(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case status == wire.StatusHeartbeat:
		ps.alive()
	case ended:
		ps.asked -= min(ps.asked, left)
		ps.alive()
		if ps.p.session == ps {
			ps.p.ask()
		}
	default:
		err := wire.PullError(status, description)
		if err == nil {
			err = wire.Unexpected(status, description)
		}
		ps.fail(err)
	}
}
