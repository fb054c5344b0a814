package lifecycle

import (
	"context"
	"sync"
)

// Beside is what runs beside a client and is stopped before all else. The zero value is nothing.
type Beside struct {
	mu      sync.Mutex
	stops   []func()
	stopped bool
}

// Add adds what stops one of them, which is called at once when the others are stopped already.
func (b *Beside) Add(stop func()) {
	b.mu.Lock()
	late := b.stopped
	if !late {
		b.stops = append(b.stops, stop)
	}
	b.mu.Unlock()
	if late {
		stop()
	}
}

// Stop stops all, the last first, and tells whether that was done when ctx ended.
func (b *Beside) Stop(ctx context.Context) bool {
	b.mu.Lock()
	b.stopped = true
	stops := b.stops
	b.mu.Unlock()
	if len(stops) == 0 {
		return true
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, stop := range stops {
			defer stop() // whatever becomes of the others
		}
	}()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}
