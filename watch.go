package nats

import (
	"context"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// stride is the context of a walk. Without a deadline it ends when a single step takes longer than
// Config.RequestTimeout; what the caller does between two steps does not count.
type stride struct {
	context.Context //nolint:containedctx // it is one
	cancel          context.CancelCauseFunc
	timer           *time.Timer // nil where the caller has set a deadline
	patience        time.Duration
}

func (c *Client) stride(ctx context.Context) *stride {
	s := &stride{patience: c.cfg.RequestTimeout}
	s.Context, s.cancel = context.WithCancelCause(ctx)
	if _, ok := ctx.Deadline(); !ok {
		s.timer = time.AfterFunc(s.patience, func() { s.cancel(context.DeadlineExceeded) })
	}
	return s
}

func (s *stride) begin() {
	if s.timer != nil {
		s.timer.Reset(s.patience)
	}
}

func (s *stride) pause() {
	if s.timer != nil {
		s.timer.Stop()
	}
}

func (s *stride) end() {
	s.pause()
	s.cancel(nil)
}

// ended says why the updates of a watcher ended.
func ended(ctx context.Context) error {
	if ctx.Err() != nil {
		return fault.Ended(ctx)
	}
	return ErrClosed
}
