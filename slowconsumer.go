package nats

import (
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// slowInterval is how long a subscription must drop nothing for the episode to be over, and how
// often an episode's drops are reported.
const slowInterval = time.Second

// onSlowConsumer runs at the first message that a subscription drops after it had room.
func (c *Client) onSlowConsumer(sub *natsgo.Subscription) {
	for _, s := range c.subscriptions() {
		if s.has(sub) {
			s.beginSlow()
			return
		}
	}
	// One of upstream's own: a watcher's or of the user's.
	dropped, _ := sub.Dropped()
	c.reportSlow(sub.Subject, sub.Queue, uint64(dropped))
	c.log.Warn(slowText, "subject", sub.Subject, "queue", sub.Queue, "dropped", dropped)
}

const slowText = "slow consumer: messages are being dropped"

func (c *Client) reportSlow(subject, queue string, dropped uint64) {
	c.emit(Event{
		Type: EventSlowConsumer, Subject: subject, Queue: queue, Messages: dropped,
		Err: wrap("subscription", subject, natsgo.ErrSlowConsumer),
	})
}

// beginSlow reports the first drops of an episode. Upstream calls again whenever there was room for
// a message in between, which for a handler that is too slow is at every one.
func (s *Subscription) beginSlow() {
	s.mu.Lock()
	if s.slow != nil {
		s.mu.Unlock()
		return
	}
	s.reportDropped()
	s.slow = time.AfterFunc(slowInterval, s.goOnSlow)
	s.mu.Unlock()
	stats := s.Stats()
	s.client.log.Warn(slowText, "subject", s.subject, "queue", s.queue,
		"pending", stats.Pending, "dropped", stats.Dropped)
}

// goOnSlow reports the drops of the last interval, or ends the episode when there were none.
func (s *Subscription) goOnSlow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.slow == nil: // ended meanwhile
	case s.reportDropped():
		s.slow.Reset(slowInterval)
	default:
		s.slow = nil
	}
}

// endSlow reports what no report has had, when the subscription ends.
func (s *Subscription) endSlow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.slow != nil {
		s.slow.Stop()
		s.slow = nil
	}
	s.reportDropped()
}

// reportDropped reports what was dropped since the last report, so that the reports add up to all
// that was dropped, and tells whether there was anything. It is called with the lock held.
func (s *Subscription) reportDropped() bool {
	total := s.countDropped()
	n := total - s.reported
	s.reported = total
	if n > 0 {
		s.client.reportSlow(s.subject, s.queue, n)
	}
	return n > 0
}

// countDropped returns how many messages were dropped so far. It is called with the lock held.
func (s *Subscription) countDropped() uint64 {
	total := s.dropped
	for _, a := range s.attached {
		if n, err := a.sub.Dropped(); err == nil {
			a.dropped = uint64(n)
		}
		total += a.dropped
	}
	return total
}
