package conntest

import (
	"sync"
	"time"
)

// Stalls knows when the machine held this process up: a ticker comes late then. What has a bound in time is measured
// without it. It is safe for concurrent use.
type Stalls struct {
	mu   sync.Mutex
	last time.Time // when the ticker came last
	late [][2]time.Time
}

const tick = 5 * time.Millisecond

// WatchStalls begins to watch, until stop is called.
func WatchStalls() (s *Stalls, stop func()) {
	ticker, done := time.NewTicker(tick), make(chan struct{})
	s = &Stalls{last: time.Now()}
	go func() {
		for {
			select {
			case <-ticker.C:
				s.tick(time.Now())
			case <-done:
				return
			}
		}
	}()
	return s, func() { ticker.Stop(); close(done) }
}

func (s *Stalls) tick(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.last) > 2*tick {
		s.late = append(s.late, [2]time.Time{s.last.Add(tick), now})
	}
	if now.After(s.last) {
		s.last = now
	}
}

// Between returns how long in all the process was held up.
func (s *Stalls) Between(begin, end time.Time) time.Duration {
	_, sum := s.between(begin, end)
	return sum
}

// Worst returns for how long at most it was held up at a time.
func (s *Stalls) Worst(begin, end time.Time) time.Duration {
	worst, _ := s.between(begin, end)
	return worst
}

func (s *Stalls) between(begin, end time.Time) (worst, sum time.Duration) {
	s.tick(end) // what woke up first asks before the ticker comes
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.late) - 1; i >= 0 && s.late[i][1].After(begin); i-- {
		from, to := s.late[i][0], s.late[i][1]
		if from.Before(begin) {
			from = begin
		}
		if to.After(end) {
			to = end
		}
		worst = max(worst, to.Sub(from))
		sum += max(0, to.Sub(from))
	}
	return worst, sum
}

// Since returns how long ago begin is, but for what the process was held up since.
func (s *Stalls) Since(begin time.Time) time.Duration {
	now := time.Now()
	return now.Sub(begin) - s.Between(begin, now)
}
