package states

import (
	"sync"
	"time"
)

const tick = 5 * time.Millisecond

// stalls knows when the machine was too busy to run this process: a ticker comes late then. Tests must
// not blame the library for that.
type stalls struct {
	mu   sync.Mutex
	late []stall
	stop chan struct{}
	done chan struct{}
}

type stall struct {
	end  time.Time
	took time.Duration
}

func watchStalls() *stalls {
	s := &stalls{stop: make(chan struct{}), done: make(chan struct{})}
	go s.run()
	return s
}

func (s *stalls) run() {
	defer close(s.done)
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-s.stop:
			return
		case <-ticker.C:
		}
		now := time.Now()
		if took := now.Sub(last) - tick; took > tick {
			s.mu.Lock()
			s.late = append(s.late, stall{end: now, took: took})
			s.mu.Unlock()
		}
		last = now
	}
}

func (s *stalls) close() {
	close(s.stop)
	<-s.done
}

// between returns how long in all the process was held up.
func (s *stalls) between(begin, end time.Time) (sum time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.late {
		if from := one.end.Add(-one.took); one.end.After(begin) && from.Before(end) {
			sum += min(one.took, end.Sub(begin))
		}
	}
	return sum
}
