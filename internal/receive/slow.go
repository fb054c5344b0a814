package receive

import "time"

// slowInterval is how long a subscription must drop nothing for the episode to be over, and how
// often an episode's drops are reported.
const slowInterval = time.Second

// drop counts a message that is over the limits. It returns how many the begin of an episode is to be
// reported with, or 0. The caller holds the lock.
func (s *Subscription) drop() uint64 {
	s.dropped++
	if s.slow != nil {
		return 0
	}
	s.slow = time.AfterFunc(slowInterval, s.goOnSlow)
	return s.unreported()
}

// goOnSlow reports the drops of the last interval, or ends the episode when there were none.
func (s *Subscription) goOnSlow() {
	s.mu.Lock()
	n := s.unreported()
	switch {
	case s.slow == nil: // ended meanwhile
	case n > 0:
		s.slow.Reset(slowInterval)
	default:
		s.slow = nil
	}
	s.mu.Unlock()
	if n > 0 {
		s.e.reports.Slow(s, n, false)
	}
}

// endSlow ends an episode with the subscription and returns what is to be reported still.
func (s *Subscription) endSlow() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.slow != nil {
		s.slow.Stop()
		s.slow = nil
	}
	return s.unreported()
}

// unreported returns what was dropped since the last report, so that the reports add up to all that was
// dropped. The caller holds the lock.
func (s *Subscription) unreported() uint64 {
	n := s.dropped - s.reported
	s.reported = s.dropped
	return n
}
