package consume

import (
	"math"
	"slices"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// naks are the messages of a Consumption that the server is to deliver again later. It hears of them in
// bursts: each one stops the timer of its consumer's redeliveries for 10 ms, so that a steady flow of them,
// of whichever instance, would stop it for good. The wall clock says when a burst leaves, which brings those of
// all instances together. One that is due before is sent then, without a delay, which stops nothing.
//
// Times are of the Consumption's clock, and its lock guards them.
type naks struct {
	list   []nak
	ended  bool            // nothing waits here any more
	away   []time.Duration // when those that have been sent come again
	pruned time.Duration
}

// nak is one of them.
type nak struct {
	reply  string
	due    time.Duration // when the message is to come again
	leaves time.Duration // with the next burst, or when it is due
	moot   time.Duration // from when on the server delivers it without being asked
}

// What is between two bursts: burstEvery, or this part of a shorter ack wait.
const (
	burstEvery = 250 * time.Millisecond
	burstPart  = 4
)

// NakAfter hands a message that is acknowledged on reply to the server, to be delivered again after delay. It tells
// whether it does: if not, it is for the caller to do now.
func (s *Consumption) NakAfter(reply string, delay time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nakLater(reply, delay)
}

// nakLater is NakAfter for the holder of s.mu.
func (s *Consumption) nakLater(reply string, delay time.Duration) bool {
	if s.naks.ended || delay <= 0 {
		return false
	}
	every := max(min(burstEvery, s.rules.shortest/burstPart), time.Millisecond)
	now, wall := s.now(), time.Now()
	k := nak{reply: reply, due: now + delay, leaves: now + every - wall.Sub(wall.Truncate(every)), moot: now + s.rules.shortest}
	k.leaves = min(k.leaves, k.due)
	s.naks.list = append(s.naks.list, k)
	s.lookBy(k.leaves)
	return true
}

// sendNaks sends what leaves now and returns when the next one does. Without a connection, or room, it waits. The
// caller holds s.mu.
func (s *Consumption) sendNaks(now time.Duration, up bool) (next time.Duration) {
	next = math.MaxInt64
	s.naks.list = slices.DeleteFunc(s.naks.list, func(k nak) bool {
		at := k.leaves
		if at <= now {
			if now > k.moot || up && s.sendNak(k, now) {
				return true
			}
			at = now + burstEvery
		}
		next = min(next, at)
		return false
	})
	return next
}

func (s *Consumption) sendNak(k nak, now time.Duration) bool {
	verb := wire.Nak
	if left := k.due - now; left > 0 {
		verb = s.verbNakAfter(k.reply, left)
	}
	if s.conn.TryPublish(k.reply, "", verb) != nil {
		return false
	}
	if s.rules.MaxAckPending > 0 && !s.isParked(k.reply) {
		s.naks.away = append(s.naks.away, k.due)
	}
	return true
}

// endNaks sends what waits. The caller holds s.mu.
func (s *Consumption) endNaks() {
	unsent := 0
	for _, k := range s.naks.list {
		if !s.sendNak(k, s.now()) {
			unsent++
		}
	}
	s.naks.list, s.naks.ended = nil, true
	if wait := s.rules.AckWait; unsent > 0 {
		s.e.said.Push(func() {
			s.log.Warn("the server could not be told when messages are to come again; they do after the ack wait",
				"messages", unsent, "ack_wait", wait)
		})
	}
}

// asked returns how many messages wait for their next try in the consumer's MaxAckPending. The caller holds s.mu.
func (s *Consumption) asked() int {
	n := &s.naks
	if now := s.now(); now-n.pruned >= burstEvery {
		n.pruned = now
		n.away = slices.DeleteFunc(n.away, func(due time.Duration) bool { return now > due })
	}
	return len(n.list) + len(n.away)
}

// verbNakAfter asks for a message again after delay, by its consumer's rules: the server counts the delay from
// when the deadline of the delivery would end, which its own back-off sets. The retry stream's consumer has none.
// The caller holds s.mu.
func (s *Consumption) verbNakAfter(reply string, delay time.Duration) []byte {
	if n := len(s.rules.BackOff); n > 0 && !s.isParked(reply) {
		delivery, _ := wire.ParseReply(reply)
		delay -= s.rules.BackOff[min(max(delivery.Count, 1), n)-1] - s.rules.AckWait
	}
	return wire.NakAfter(delay)
}

// isParked tells whether what is acknowledged on reply came from the retry stream.
func (s *Consumption) isParked(reply string) bool {
	stream, _, _ := wire.AckOf(reply)
	return stream == retryStreamOf(s.Stream)
}
