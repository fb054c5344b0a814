package conn

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// gate holds back who wants to send, while nobody may.
type gate struct {
	mu   sync.Mutex
	shut int
	wait atomic.Pointer[chan struct{}] // closed when it opens; nil while it is open
}

// close shuts the gate until the returned function is called.
func (g *gate) close() (open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut++; g.shut == 1 {
		wait := make(chan struct{})
		g.wait.Store(&wait)
	}
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.shut--; g.shut == 0 {
			close(*g.wait.Swap(nil))
		}
	})
}

// pass waits while the gate is shut.
func (g *gate) pass(ctx context.Context) error {
	for {
		wait := g.wait.Load()
		if wait == nil {
			return nil
		}
		select {
		case <-*wait:
		case <-ctx.Done():
			return fault.Ended(ctx)
		}
	}
}
