package nats

import (
	"log/slog"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// extend keeps the server from delivering to others what is held here, with one timer for all
// messages, until nothing is held any more. A message that leaves soon is spared: it is extended
// when it has been here for two ticks, which is a third of its time.
func (s *Consumption) extend(idle <-chan struct{}) {
	timer := time.NewTimer(s.extendEvery())
	defer timer.Stop()
	up, _, change := s.client.conn.State()
	for {
		fresh := uint64(2)
		select {
		case <-timer.C:
		case <-change:
			var now bool
			if now, _, change = s.client.conn.State(); now && !up {
				fresh = 0 // nobody has heard of us for a while
			}
			up = now
		case <-idle:
			return
		case <-s.client.life.Context().Done():
			return
		}
		every := s.extendEvery()
		if up {
			s.extendHeld(every, fresh)
		}
		timer.Reset(every)
	}
}

// extendEvery returns the length of a tick: six of them fit into the server's wait.
func (s *Consumption) extendEvery() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(s.rules.shortestWait()/6, 5*time.Millisecond)
}

// extendHeld extends what has been here for at least as many ticks as fresh says.
func (s *Consumption) extendHeld(every time.Duration, fresh uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pace.tick++
	tick := s.pace.tick
	limit := s.opts.maxHandling
	if limit == 0 {
		limit = defaultHandlingAckWaits * s.rules.ackWait
	}
	age := func(since uint64) time.Duration { return time.Duration(tick-since) * every }
	s.held.all(func(d *delivery) {
		switch {
		case d.finished() || d.expired || tick-d.arrived < fresh:
		case d.state == stateRunning && age(d.started) > limit:
			s.expire(d, limit)
		case d.state == stateReady && age(d.arrived) > limit:
			s.handBack(d) // all workers hang; others may not
		default:
			_ = s.client.conn.TryPublish(d.msg.msg.Reply, "", wire.Progress)
		}
	})
}

// expire gives a message up whose handler takes too long. The caller holds s.mu.
func (s *Consumption) expire(d *delivery, limit time.Duration) {
	d.expired = true
	s.expired++
	s.stats.Expired++
	s.note(slog.LevelWarn, "a handler runs for too long; the server will deliver its message again", d,
		nextAfter(s.rules.ackWait), "limit", limit)
}

// hung tells whether every worker is in a handler that takes too long. The caller holds s.mu.
func (s *Consumption) hung() bool { return s.expired >= s.opts.workers }
