package nats

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
)

// denials are the server's refusals, which come without a reference to what caused them. The server
// answers what it refuses before the PING that follows it, and nats.go records the error
// (Conn.LastError) before the PONG; the error handler gets it on another goroutine, in order.
type denials struct {
	handled   atomic.Pointer[error] // what the error handler had last
	published atomic.Pointer[error] // a denied publish that nobody has returned
}

// How often, and for how long, confirmed looks for the error handler, which lags behind the reader.
const (
	denialPoll = time.Millisecond
	denialWait = 2 * time.Second
)

// confirmed is roundTrip that returns when the error handler has had what came before the PONG.
func (c *Client) confirmed(ctx context.Context, op, target string) error {
	if err := c.roundTrip(ctx, op, target); err != nil {
		return err
	}
	last := c.nc.LastError()
	if !errors.Is(last, natsgo.ErrPermissionViolation) && !errors.Is(last, natsgo.ErrMaxSubscriptionsExceeded) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, denialWait)
	defer cancel()
	for {
		if had := c.denials.handled.Load(); had != nil && *had == last { //nolint:errorlint // the very same value is meant
			return nil
		}
		if !pause.Sleep(ctx, denialPoll) {
			return nil
		}
	}
}

// deniedPublish returns a denied publish that no call has returned yet.
func (c *Client) deniedPublish() error {
	err := c.denials.published.Swap(nil)
	if err == nil {
		return nil
	}
	return wrap("publish", fault.DeniedBy(*err).Subject, *err)
}
