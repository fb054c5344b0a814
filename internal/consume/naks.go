package consume

import (
	"slices"
	"sync"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// naks are the messages of a Consumption that the server is to deliver again later. It hears of them in
// bursts: each one stops the timer of its consumer's redeliveries for 10 ms, so that a steady flow of them,
// of whichever instance, would stop it for good. The clock says when a burst leaves, which brings those of
// all instances together. One that is due before is sent then, without a delay, which stops nothing.
type naks struct {
	s *Consumption

	mu    sync.Mutex
	list  []nak
	timer *time.Timer // nil before the first
	armed time.Time   // when the timer fires; zero when it does not
	ended bool        // nothing waits here any more

	away   []time.Time // when those that have been sent come again
	pruned time.Time
}

// nak is one of them.
type nak struct {
	reply  string
	due    time.Time // when the message is to come again
	leaves time.Time // with the next burst, or when it is due
	moot   time.Time // from when on the server delivers it without being asked
}

// What is between two bursts: burstEvery, or this part of a shorter ack wait.
const (
	burstEvery = 250 * time.Millisecond
	burstPart  = 4
)

// NakAfter hands a message that is acknowledged on reply to the server, to be delivered again after delay. It tells
// whether it does: if not, it is for the caller to do.
func (s *Consumption) NakAfter(reply string, delay time.Duration) bool {
	return s.naks.add(reply, delay)
}

// add takes a message that is to come again after delay, and tells whether it has: not when it is for the
// caller to send now.
func (n *naks) add(reply string, delay time.Duration) bool {
	n.s.mu.Lock()
	wait := n.s.rules.shortestWait()
	n.s.mu.Unlock()
	now := time.Now()
	every := max(min(burstEvery, wait/burstPart), time.Millisecond)
	k := nak{reply: reply, due: now.Add(delay), leaves: now.Truncate(every).Add(every), moot: now.Add(wait)}
	if k.due.Before(k.leaves) {
		k.leaves = k.due
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ended || delay <= 0 {
		return false
	}
	n.list = append(n.list, k)
	n.arm(k.leaves)
	return true
}

// arm sees to it that the timer fires at that time. The caller holds n.mu.
func (n *naks) arm(at time.Time) {
	if !n.armed.IsZero() && !at.Before(n.armed) {
		return
	}
	n.armed = at
	if n.timer == nil {
		n.timer = time.AfterFunc(time.Until(at), n.fire)
	} else {
		n.timer.Reset(time.Until(at))
	}
}

// fire sends what leaves now. Without a connection, or room, it waits.
func (n *naks) fire() {
	n.s.mu.Lock()
	rules := n.s.rules
	n.s.mu.Unlock()
	up, _, _ := n.s.conn.State()
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	n.armed = time.Time{}
	n.list = slices.DeleteFunc(n.list, func(k nak) bool {
		switch {
		case now.After(k.moot):
			return true
		case k.leaves.After(now):
			n.arm(k.leaves)
			return false
		case up && n.send(k, now, &rules):
			return true
		}
		n.arm(now.Add(burstEvery))
		return false
	})
}

// end sends what waits. The caller holds the Consumption's lock.
func (n *naks) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.timer != nil {
		n.timer.Stop()
	}
	now := time.Now()
	for _, k := range n.list {
		n.send(k, now, &n.s.rules)
	}
	n.list, n.ended = nil, true
}

// waiting returns how many messages wait for their next try in the consumer's MaxAckPending.
func (n *naks) waiting() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if now := time.Now(); now.Sub(n.pruned) >= burstEvery {
		n.pruned = now
		n.away = slices.DeleteFunc(n.away, now.After)
	}
	return len(n.list) + len(n.away)
}

func (n *naks) send(k nak, now time.Time, rules *ackRules) bool {
	verb := wire.Nak
	if left := k.due.Sub(now); left > 0 {
		verb = n.s.verbNakAfter(rules, k.reply, left)
	}
	if n.s.conn.TryPublish(k.reply, "", verb) != nil {
		return false
	}
	if rules.maxAckPending > 0 && !n.s.isParked(k.reply) {
		n.away = append(n.away, k.due)
	}
	return true
}

// verbNakAfter asks for a message again after delay, by its consumer's rules: the server counts the delay from
// when the deadline of the delivery would end, which its own back-off sets. The retry stream's consumer has none.
func (s *Consumption) verbNakAfter(rules *ackRules, reply string, delay time.Duration) []byte {
	if n := len(rules.backOff); n > 0 && !s.isParked(reply) {
		deliveries, _, _, _ := wire.ParseReply(reply)
		delay -= rules.backOff[min(max(deliveries, 1), n)-1] - rules.ackWait
	}
	return wire.NakAfter(delay)
}

// isParked tells whether what is acknowledged on reply came from the retry stream.
func (s *Consumption) isParked(reply string) bool {
	stream, _, _ := wire.AckOf(reply)
	return stream == retryStreamOf(s.Stream)
}
