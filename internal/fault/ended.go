package fault

import (
	"context"
	"errors"
	"fmt"
	"slices"

	natsgo "github.com/nats-io/nats.go"
)

// ends are the causes that the library itself ends contexts with: they say all.
var ends = []error{ErrClosed, ErrConnectionLost, ErrLockLost, natsgo.ErrPermissionViolation, context.DeadlineExceeded}

// Ended returns why ctx has ended, or nil. A cause of the caller's own is context.Canceled or
// context.DeadlineExceeded as well, so that the error sorts as that of any other context.
func Ended(ctx context.Context) error {
	err := ctx.Err()
	if err == nil {
		return nil
	}
	cause := context.Cause(ctx)
	if errors.Is(cause, err) || slices.ContainsFunc(ends, func(end error) bool { return errors.Is(cause, end) }) {
		return cause
	}
	return fmt.Errorf("%w: %w", err, cause)
}

// Because is err, with the cause of ctx's end where err only is that end: nats.go does not tell it.
func Because(ctx context.Context, err error) error {
	if ctx.Err() == nil || !errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx)) {
		return err
	}
	return Ended(ctx)
}
