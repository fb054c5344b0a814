package consume

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// How a puller asks again.
const (
	pullPauseMin     = 50 * time.Millisecond // before the second attempt; it doubles
	pullPauseMax     = time.Second           // so that consumption is back 2 s after the server is
	pullPauseDeleted = 100 * time.Millisecond
	pullPauseDenied  = 5 * time.Second
	pullWarnings     = 7           // while the pauses grow, and then one
	pullWarnEvery    = 60          // attempts
	apiAttempt       = time.Second // of one question to the server, beside the way there and back
	silentAttempt    = 500 * time.Millisecond
	findTrips        = 4 // of what it takes to make a consumer again
	findAttempts     = 3 // up to which each has more time, for a server that is slow
)

var (
	errPullSilent   = errors.New("the server is silent")
	errPullRelinked = errors.New("the connection changed")
)

// puller keeps pulls for messages open on one consumer (ADR-37), whatever happens to the consumer,
// its stream, the server and the connection. Its fields are guarded by the Consumption's lock.
type puller struct {
	s       *Consumption
	stream  string
	own     *jetstream.ConsumerConfig // to create it again from
	side    bool                      // it is the one in the retry stream
	subject string                    // of pulls
	poke    chan struct{}             // ends a pause

	firstPull sync.Once
	opened    chan struct{}         // closed when the first pull is sent
	denied    atomic.Pointer[error] // why the last one was

	session *pullSession   // nil between two
	retired []*pullSession // that something may still come to
	healthy bool
	failure error // since when it is not, the last one
	active  int   // messages from here that are ready or running

	crossing []arrival // what came by two inboxes at once

	leader  string // the node whose death nobody else would tell of; empty where somebody does
	crowded bool   // as many pulls as the consumer takes are open

	// Of its own consumer, to begin it anew after what is known to be done.
	floor   uint64
	moved   bool      // since the floor was asked for
	created time.Time // of the stream
	born    time.Time // when the consumer was created; the run's own
}

func newPuller(s *Consumption, stream string, own *jetstream.ConsumerConfig) *puller {
	return &puller{
		s: s, stream: stream, own: own, poke: make(chan struct{}, 1), opened: make(chan struct{}),
		subject: s.api.Subject("CONSUMER.MSG.NEXT." + stream + "." + s.Consumer),
	}
}

// run pulls until the Consumption stops.
func (p *puller) run() {
	defer p.end()
	missing := false
	for attempt := 1; ; attempt++ {
		heard, err := p.pull(missing, apiAttempt*time.Duration(min(attempt, findAttempts)))
		switch {
		case p.s.quit.Err() != nil:
			return
		case errors.Is(err, fault.ErrClosed):
			<-p.s.quit.Done() // it follows
			return
		case p.side && !p.s.Retries && (errors.Is(err, fault.ErrStreamNotFound) || errors.Is(err, fault.ErrConsumerNotFound)):
			return // nothing is left
		case errors.Is(err, errPullRelinked):
			attempt, missing = 0, p.holds()
			continue
		case errors.Is(err, errPullSilent) && p.findNow(silentAttempt) == nil: // the pull got lost, or found no room
			attempt, missing = 0, false
			if p.crowded {
				p.pause(pullPauseMax)
			}
			continue
		case heard:
			attempt = 1
		}
		missing = !errors.Is(err, wire.ErrPullAgain)
		p.pause(p.failed(attempt, err))
	}
}

// holds tells whether messages are held that may be of another stream than the one that there is after an outage.
func (p *puller) holds() bool {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	return !p.side && p.s.held.count > 0
}

// end lets all sessions go. What has come is for the workers, or handed back.
func (p *puller) end() {
	p.forget(nil)
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.takeCrossing()
}

func (p *puller) pause(d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-time.After(d):
	case <-p.poke:
	case <-p.s.quit.Done():
	}
}

// findNow is find within a time, beside what the way takes.
func (p *puller) findNow(within time.Duration) error {
	_, trip := p.s.conn.Peer()
	ctx, cancel := context.WithTimeout(p.s.quit, within+findTrips*trip)
	defer cancel()
	return p.find(ctx)
}

// failed reports a failed attempt and returns the pause before the next. The first comes at once, for
// mostly the server has only moved the consumer, unless the consumer was deleted: one that is made
// again while the server still removes the files of the old one loses its own.
func (p *puller) failed(attempt int, err error) time.Duration {
	wait := time.Duration(0)
	switch {
	case errors.Is(err, fault.ErrPermission):
		wait = pullPauseDenied
	case attempt > 1:
		wait = pause.Backoff(attempt-1, pullPauseMin, pullPauseMax)
	case errors.Is(err, jetstream.ErrConsumerDeleted):
		wait = pullPauseDeleted
	}
	s := p.s
	s.mu.Lock()
	wasHealthy := p.healthy
	p.healthy, p.failure = false, err
	s.mu.Unlock()
	if wasHealthy {
		s.e.reports.Unavailable(p.stream, s.Consumer, err)
	}
	if attempt <= pullWarnings || attempt%pullWarnEvery == 0 {
		s.e.log.Warn("consumer is not available; trying again",
			"stream", p.stream, "consumer", s.Consumer, "attempt", attempt, "pause", wait, "error", err)
	}
	return wait
}

// pull holds one session, for which a consumer that is missing must be found in time. It returns why it ended, and
// whether the server was heard in it.
func (p *puller) pull(missing bool, find time.Duration) (heard bool, err error) {
	s := p.s
	if err := s.conn.Wait(s.quit); err != nil {
		return false, err
	}
	_, breaks, _ := s.conn.State()
	if missing {
		if err := p.findNow(find); err != nil {
			return false, err
		}
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
	session.leave()
	p.retire(session, err)
	return heard, err
}

// retire ends a session. Where that is no more than a change of the consumer's leader, or a suspicion, its
// inbox is kept for as long as its pulls last: whoever leads tells those that it knows of, while a pull that was
// sent into the change may be nobody's, and what is sent to an inbox that is gone has cost a delivery.
func (p *puller) retire(session *pullSession, cause error) {
	switch {
	case errors.Is(cause, errPullSilent), errors.Is(cause, wire.ErrPullAgain):
		session.ended = time.Now()
		p.s.mu.Lock()
		p.retired = append(p.retired, session)
		p.s.mu.Unlock()
		return
	case errors.Is(cause, errPullRelinked):
		p.forget(nil)
	}
	session.close(cause)
}

// forget ends those of the retired sessions that are over, or all.
func (p *puller) forget(over func(*pullSession) bool) {
	if len(p.retired) == 0 {
		return
	}
	p.s.mu.Lock()
	var ended []*pullSession
	p.retired = slices.DeleteFunc(p.retired, func(ps *pullSession) bool {
		if over == nil || over(ps) {
			ended = append(ended, ps)
			return true
		}
		return false
	})
	p.s.mu.Unlock()
	for _, ps := range ended {
		p.s.conn.Unsubscribe(ps.sub)
	}
}
