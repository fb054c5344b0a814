package lease

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/kv"
)

// Lead runs run while it holds the key, and again when the lease was lost, until run returns by itself, or ctx or the
// client ends.
func (s *Leases) Lead(ctx context.Context, b *kv.Bucket, key string, ttl time.Duration, run func(ctx context.Context, token uint64) error) error {
	const op = "elect"
	ended, err := s.life.Begin()
	if err != nil {
		return b.Wrap(op, key, err)
	}
	defer ended()
	for {
		l, err := s.acquire(ctx, op, b, key, ttl)
		if err != nil {
			return err
		}
		failure, lost := l.lead(ctx, run)
		switch {
		case ctx.Err() != nil:
			return b.Wrap(op, key, errors.Join(fault.Ended(ctx), other(failure, ctx)))
		case errors.Is(l.lost(), fault.ErrClosed):
			return b.Wrap(op, key, errors.Join(l.lost(), other(failure, l.ctx)))
		case !errors.Is(lost, fault.ErrLockLost):
			return failure
		case failure != nil:
			lost = fmt.Errorf("%w; %w", lost, failure)
		}
		s.reports.Deposed(l.target(), lost)
	}
}

// lead runs run, and gives the lease up.
func (l *Lease) lead(ctx context.Context, run func(ctx context.Context, token uint64) error) (failure, lost error) {
	leading, cancel := context.WithCancelCause(l.ctx)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })()
	defer func() { // also when run panics
		releasing, give := context.WithCancel(context.WithoutCancel(ctx))
		defer give()
		defer context.AfterFunc(ctx, func() { time.AfterFunc(farewell, give) })()
		lost = l.Release(releasing)
	}()
	return run(clocked{leading, l}, l.token), nil
}

// other returns err unless it only says that ctx has ended.
func other(err error, ctx context.Context) error { //nolint:revive // err is what it is about
	if errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx)) {
		return nil
	}
	return err
}
