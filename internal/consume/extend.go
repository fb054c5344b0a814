package consume

import (
	"cmp"
	"log/slog"
	"math"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// How the server is kept from delivering to others what is held here. The times are of the Consumption's
// own clock, which begins with it.
const (
	extendAfter = 400 * time.Millisecond // of a message here, at the latest: what leaves sooner costs nothing
	extendLeast = 5 * time.Millisecond   // between looks
)

// now reads the Consumption's clock.
func (s *Consumption) now() time.Duration { return time.Since(s.begun) }

// extendLook returns how long a message may be here before it is seen. The caller holds s.mu.
func (s *Consumption) extendLook() time.Duration {
	return max(min(extendAfter/2, s.rules.shortest/6), extendLeast)
}

// noteHeld sees to it that a message that has just come is seen in time. The caller holds s.mu.
func (s *Consumption) noteHeld() {
	if !s.looking {
		s.looking = true
		s.lookBy(s.now() + s.extendLook())
	}
}

// lookBy sees to it that the timer goes off at that time, or before. The caller holds s.mu.
func (s *Consumption) lookBy(at time.Duration) {
	if s.looks == 0 || at < s.looks {
		s.looks = at
		s.extender.Reset(max(at-s.now(), extendLeast))
	}
}

// extendHeld is called by the timer while anything is held or to be sent. A message is seen when it has been here for a
// moment, extended for the first time at the next look, and then three times within the server's wait. One whose
// wait for its next try is over becomes ready.
func (s *Consumption) extendHeld() {
	s.mu.Lock()
	defer s.mu.Unlock()
	look, now, up := s.extendLook(), s.now(), s.conn.IsUp()
	limit := cmp.Or(s.MaxHandling, handlingAckWaits*s.rules.AckWait)
	next, slow := time.Duration(math.MaxInt64), false
	s.held.all(func(d *Delivery) {
		if d.state == stateWaiting {
			if d.trial.until > now {
				next = min(next, d.trial.until)
			} else {
				s.held.makeReady(d)
				s.changed.Signal()
			}
		}
		if d.Token.Taken() || d.expired {
			return
		}
		if d.since == 0 {
			d.since = now
		}
		if d.due == 0 {
			d.due = now + look
		}
		due := d.due
		if d.state == stateRunning || d.state == stateReady {
			due = min(due, d.since+limit+1)
		}
		switch {
		case due > now:
		case d.state == stateRunning && now-d.since > limit:
			s.expire(d, limit)
			return
		case d.state == stateReady && now-d.since > limit:
			s.handBack(d) // all workers hang; others may not
			return
		case up && s.conn.TryPublish(d.Msg.Reply, "", wire.Progress) == nil:
			d.due = now + max(s.rules.shortest/3, look)
			due, slow = d.due, true
		default:
			due = now + look
		}
		next = min(next, due)
	})
	next = min(next, s.sendNaks(now, up))
	switch fresh := s.ruled + rulesFresh; {
	case !slow && !s.crowd.unseen || s.stopping && s.held.count == 0:
	case now <= fresh && s.crowd.unseen:
		next = min(next, fresh+1)
	case now > fresh:
		s.ruled, s.crowd.unseen = now, false
		s.running.Go(s.learnRules) // a worker runs
	}
	s.looks, s.looking = 0, next-now <= look
	if next < math.MaxInt64 {
		s.lookBy(next)
	}
}

// expire gives a message up whose handler takes too long. The caller holds s.mu.
func (s *Consumption) expire(d *Delivery, limit time.Duration) {
	d.expired = true
	s.expired++
	s.stats.Expired++
	s.noteLocked(slog.LevelWarn, "a handler runs for too long; the server will deliver its message again", d,
		nextAfter(s.rules.AckWait), "limit", limit)
}

// hung tells whether every worker is in a handler that takes too long. The caller holds s.mu.
func (s *Consumption) hung() bool { return s.expired >= s.Workers }
