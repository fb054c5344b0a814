package consume

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/sentinel"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// How pulls are kept open and how their silence is judged.
const (
	pullExpires   = 30 * time.Second
	pullBeat      = 15 * time.Second       // how often the server says that it has no message
	pullQuickBeat = sentinel.Beat          // while something may be wrong
	pullYoung     = 10 * time.Second       // after the beginning and after every fault
	pullSlack     = 250 * time.Millisecond // that a heartbeat may be late
	fewWaiting    = 64                     // pulls that a consumer takes: then one at a time is asked
	floorEvery    = 5 * time.Second        // between looks at the acknowledgement floor, while it moves
	floorDenied   = time.Hour              // and where that is not allowed
	drainedMax    = 2 * time.Second        // for what is on its way when a session ends
	lastPulls     = 300 * time.Millisecond // for what is asked for when the Consumption stops
)

// pullSession is the pulls over one inbox. When anything is wrong with them, a new inbox separates
// what comes of the old ones from what is asked for next. Each pull has a subject of its own there: so that the next leader
// can tell them, the replicas of a consumer remember the subjects of the pulls that wait, and a pull that is done takes its
// subject along, whoever else has it.
type pullSession struct {
	p     *puller
	sub   *natsgo.Subscription
	fault chan error     // holds the first
	part  *sentinel.Part // in the watch over the server that leads the consumer
	deaf  func()         // ends the watch for denials

	// guarded by the Consumption's lock
	begun  time.Time
	pulls  uint64 // that were sent
	asked  wire.Pulls
	lone   bool      // since all had come, and no pull has ended without any: what was sent since may be nobody's
	signs  uint64    // of life
	seen   uint64    // of these
	heard  time.Time // when the last of the seen came, about
	probed time.Time // when a sign was asked for since

	told bool // by a leader that knew of it that it is over

	ended time.Time // the run's own
}

// open subscribes to a new inbox and asks for the first messages.
func (p *puller) open() (*pullSession, error) {
	s := p.s
	now := time.Now()
	ps := &pullSession{p: p, fault: make(chan error, 1), part: sentinel.NewPart(), begun: now, heard: now}
	var err error
	if ps.sub, ps.deaf, err = s.conn.SubscribeInbox(s.quit, ".pull.*", ps.receive, nil, ps.deny, p.subject); err != nil {
		return nil, err
	}
	_ = ps.sub.SetPendingLimits(-1, -1) // no more comes than was asked for
	server, trip := s.conn.Peer()
	s.mu.Lock()
	s.pace.trip = trip
	if p.leader != "" && p.leader != server { // else its death is the connection's
		s.e.api.Nodes().Join(ps.part, p.leader)
	}
	p.session = ps
	p.ask()
	s.mu.Unlock()
	p.firstPull.Do(func() { close(p.opened) })
	return ps, nil
}

// deny ends the session for want of a right.
func (ps *pullSession) deny(err error) {
	err = fault.Wrap("pull", target(ps.p.stream, ps.p.s.Consumer), err)
	ps.p.denied.Store(&err)
	ps.fail(err)
}

// leave ends the session's part in the watch over its server, and for denials.
func (ps *pullSession) leave() {
	ps.deaf()
	ps.part.Leave()
}

// watch returns when the session is of no more use.
func (ps *pullSession) watch(breaks uint64) error {
	p, s := ps.p, ps.p.s
	quit, over, floored := s.quit.Done(), (<-chan struct{})(nil), ps.begun
	timer := time.NewTimer(pullQuickBeat)
	defer timer.Stop()
	for {
		up, now, change := s.conn.State()
		if !up || now != breaks {
			return errPullRelinked // the server has forgotten the pulls
		}
		s.mu.Lock()
		p.ask() // what there was no room for
		next, err := ps.judge(time.Now())
		heard, busy, moved := ps.signs > 0, ps.asked.Left() == 0, p.moved
		unknown := busy && !p.healthy
		s.mu.Unlock()
		if quit == nil && busy {
			return fault.ErrStopped
		}
		if err != nil {
			return err
		}
		if heard {
			p.forget(func(ps *pullSession) bool { return ps.asked.Left() == 0 || time.Since(ps.ended) > pullExpires })
		}
		if unknown { // all workers are busy, so there is no pull to hear of
			ps.inquire()
			next = pullQuickBeat
		}
		if moved {
			next = min(next, max(time.Until(floored.Add(floorEvery)), 0))
		}
		if quit != nil {
			timer.Reset(next)
		}
		select {
		case err := <-ps.fault:
			return err
		case <-quit:
			_, trip := s.conn.Peer()
			timer.Reset(lastPulls + trip)
			quit, over = nil, s.ctx.Done()
		case <-over:
			return fault.ErrStopped
		case <-change:
		case <-ps.part.Woken():
		case <-timer.C:
			if quit == nil {
				return fault.ErrStopped
			}
			if moved && time.Since(floored) >= floorEvery {
				if floored = time.Now(); !p.noteFloor() {
					floored = floored.Add(floorDenied)
				}
			}
		}
	}
}

// judge returns when the session is to be judged again, or that it is silent: heartbeats are missing. Where
// none is due soon although they should be, one more pull asks for some. The caller holds s.mu.
func (ps *pullSession) judge(now time.Time) (next time.Duration, err error) {
	s, beat, alarmed := ps.p.s, ps.beat(now), ps.part.Alarmed()
	if ps.asked.Left() == 0 || s.stopping {
		ps.heard = now
		return beat, nil
	}
	if ps.signs != ps.seen {
		ps.seen, ps.heard, ps.probed = ps.signs, now, time.Time{}
	}
	slack := pullSlack + s.pace.trip
	late := ps.heard.Add(pullQuickBeat + slack).Sub(now)
	switch watchful := alarmed || ps.part.IsSentinel(); {
	case !ps.probed.IsZero():
		next = ps.probed.Add(pullQuickBeat + slack).Sub(now)
	case watchful && late > 0:
		return late, nil
	case watchful:
		ps.probed, next = now, pullQuickBeat+slack
		ps.asked.Doubt() // what is not heard of may be lost, and must not keep the next from being asked for
		ps.pull(1, 0, pullQuickBeat)
	default:
		next = ps.heard.Add(max(2*pullQuickBeat, beat*11/10) + slack).Sub(now)
	}
	if next <= 0 {
		return 0, errPullSilent
	}
	return next, nil
}

// beat returns how often the session should hear of the server. The caller holds s.mu.
func (ps *pullSession) beat(now time.Time) time.Duration {
	if ps.part.IsSentinel() || ps.lone || now.Sub(ps.begun) < pullYoung {
		return pullQuickBeat
	}
	return min(pullBeat, ps.p.s.rules.expires/2)
}

// inquire asks for the consumer where no pull does.
func (ps *pullSession) inquire() {
	if ps.p.findNow(apiAttempt) == nil {
		ps.p.s.mu.Lock()
		ps.alive()
		ps.p.s.mu.Unlock()
	}
}

// close ends the session. What is on its way still comes through receive, but for a connection that
// is gone.
func (ps *pullSession) close(cause error) {
	s := ps.p.s
	if errors.Is(cause, errPullRelinked) {
		s.conn.Unsubscribe(ps.sub)
		return
	}
	_, trip := s.conn.Peer()
	ctx, cancel := context.WithTimeout(s.e.life.Context(), drainedMax+2*trip)
	defer cancel()
	s.conn.Finish(ctx, ps.sub, s.quit.Err() != nil)
}

// ask asks for as many messages as there is room for, if that is worth a pull. The caller holds s.mu.
func (p *puller) ask() {
	s, session := p.s, p.session
	if session == nil || s.stopping {
		return
	}
	target := s.pace.target()
	if p.side {
		target = s.Workers // those that come back, beside the many that are new
	}
	want := target - p.active - len(p.crossing) - session.asked.Left()
	if 2*want < target && p.active+session.asked.Left() >= s.Workers {
		return // later, and more at once
	}
	if want < 1 || s.hung() || s.held.count-s.held.ready-s.stats.InFlight >= s.pace.mayWait() {
		return
	}
	if s.rules.MaxRequestBatch > 0 {
		want = min(want, s.rules.MaxRequestBatch)
	}
	if n := s.rules.MaxWaiting; n > 0 && n < fewWaiting && session.asked.Left() > 0 {
		return
	}
	bytes := wire.PullBytes(want, s.conn.MaxPayload())
	if most := s.rules.MaxRequestMaxBytes; most > 0 {
		bytes = min(bytes, most)
	}
	session.pull(want, bytes, session.beat(time.Now()))
}

// pull asks for messages. The caller holds s.mu.
func (ps *pullSession) pull(batch, bytes int, beat time.Duration) {
	s := ps.p.s
	if ps.asked.Left() == 0 {
		ps.heard = time.Now() // none was to be heard before
	}
	expires := s.rules.expires
	if beat < pullBeat && !ps.part.IsSentinel() {
		expires = min(expires, pullYoung) // the next one has slower heartbeats
	}
	ps.pulls++
	reply := strings.TrimSuffix(ps.sub.Subject, "*") + strconv.FormatUint(ps.pulls, 10)
	if s.conn.TryPublish(ps.p.subject, reply, wire.Pull(batch, bytes, expires, min(beat, expires/2), false)) != nil {
		return // it shows as a change of the link
	}
	ps.asked.Add(batch, bytes)
}

// receive is called by nats.go for everything that comes to the inbox, one at a time.
func (ps *pullSession) receive(m *natsgo.Msg) {
	p := ps.p
	s := p.s
	if m.Reply == "" { // a message of the stream has its acknowledgement subject there
		ps.onStatus(m)
		return
	}
	var letter *wire.Letter
	if p.side {
		letter = unwrap(m)
	}
	d := s.host.Receive(m)
	d.Msg, d.from = m, p
	delivery, ok := wire.ParseReply(m.Reply)
	d.Deliveries, d.Sequence, d.stored = delivery.Count, delivery.Sequence, delivery.Stored
	key := ""
	wanted := ok && (!p.side || s.unpark(d, letter)) && !s.passOver(d)
	if wanted && s.Keyed {
		key = ps.key(d)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ps.asked.Came(m)
	ps.answered()
	if ps.asked.Left() == 0 && !ps.lone {
		ps.lone = true
		ps.part.Wake() // to be judged sooner
	}
	ps.alive()
	if !wanted {
		p.ask()
		return
	}
	if !ps.crosses(d, key) {
		s.take(d, key)
	}
}

// answered ends the session of a Consumption that stops when nothing more comes. The caller holds s.mu.
func (ps *pullSession) answered() {
	if ps.asked.Left() == 0 && ps.p.s.stopping {
		ps.fail(fault.ErrStopped)
	}
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
	p.healthy, p.failure = true, nil
	p.s.e.said.Push(func() { p.s.e.log.Info("consumer is available", "stream", p.stream, "consumer", p.s.Consumer) })
	p.s.e.reports.Available(p.stream, p.s.Consumer)
}

// onStatus takes the server's word on a pull.
func (ps *pullSession) onStatus(m *natsgo.Msg) {
	p, s := ps.p, ps.p.s
	status, description := wire.Status(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case status == wire.StatusHeartbeat:
		ps.alive()
		ps.part.Sign()
		ps.seen, ps.heard, ps.probed = ps.signs, time.Now(), time.Time{}
	case wire.PullEnded(m):
		left := ps.asked.End(m)
		ps.answered()
		ps.lone = ps.lone && (ps.asked.Left() > 0 || left == 0)
		ps.alive()
		ps.part.Sign()
		if p.session == ps {
			if wire.PullFull(m) && !s.stopping {
				large := wire.AnyBytes
				if s.rules.MaxRequestMaxBytes > 0 {
					large = 0
				}
				ps.pull(1, large, ps.beat(time.Now()))
			}
			p.ask()
		}
	case p.session != ps && (ps.told || description == wire.ServerShutdown): // each pull is told
	case p.session != ps: // what was asked for before: there is another leader
		ps.told = true
		if p.session != nil {
			p.session.fail(wire.ErrPullAgain)
		}
		select {
		case p.poke <- struct{}{}:
		default:
		}
	default:
		err := wire.PullError(status, description)
		if err == nil {
			err = wire.Unexpected(status, description)
		}
		ps.told = description != wire.ServerShutdown // after it the next leader speaks
		ps.fail(err)
	}
}
