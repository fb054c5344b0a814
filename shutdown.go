package nats

import (
	"context"
	"fmt"
	"strings"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// ShutdownError says what Close or Shutdown left behind. It is ErrDrainTimeout when handlers,
// messages or asynchronous publishes were left, and ErrUnflushed when published bytes were.
type ShutdownError struct {
	// Handlers still running, those that others have on Conn() and the stop of a WithStart included.
	Handlers int
	// Messages received and never handed to a handler.
	Messages int
	// AsyncPublishes whose acknowledgement never came; their futures have failed.
	AsyncPublishes int
	// Bytes published and never sent, protocol included.
	Bytes int
	// Cause is why the last round trip to the server failed, if it did.
	Cause error
}

func (e *ShutdownError) Error() string {
	var left []string
	add := func(n int, what string) {
		if n > 0 {
			left = append(left, fmt.Sprintf("%d %s", n, what))
		}
	}
	add(e.Handlers, "handlers still running")
	add(e.Messages, "messages not handled")
	add(e.AsyncPublishes, "asynchronous publishes not acknowledged")
	add(e.Bytes, "published bytes not sent")
	text := "close: " + fault.Joined(e.kinds()).Error()
	if len(left) > 0 {
		text += ": " + strings.Join(left, ", ")
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

// Unwrap returns the sentinels that hold and the cause.
func (e *ShutdownError) Unwrap() []error {
	errs := e.kinds()
	if e.Cause != nil {
		errs = append(errs, e.Cause)
	}
	return errs
}

func (e *ShutdownError) kinds() []error {
	var kinds []error
	if e.Handlers+e.Messages+e.AsyncPublishes > 0 {
		kinds = append(kinds, ErrDrainTimeout)
	}
	if e.Bytes > 0 || e.Cause != nil {
		kinds = append(kinds, ErrUnflushed)
	}
	return kinds
}

// Close ends the client gracefully: it stops what WithStart has started, stops receiving, waits until the messages already received
// are handled and the asynchronous publishes acknowledged, sends what was published, and closes
// the connection. Last of the handlers, it waits for those that others have on Conn(): of micro
// services, of upstream's Consume. Calls that handlers make meanwhile go on working. It takes at most
// Config.DrainTimeout, and then returns a *ShutdownError that says what was left; it is
// ErrDrainTimeout or ErrUnflushed or both. While disconnected it waits for the connection only as
// long as there is something to send. A second call waits for the first and returns nil, or
// ErrDrainTimeout when its own time is up before. Called from a handler it would wait for itself
// until the time is up.
func (c *Client) Close() error { return c.Shutdown(context.Background()) }

// Shutdown is Close bounded by ctx; Config.DrainTimeout applies when ctx has no deadline.
func (c *Client) Shutdown(ctx context.Context) error {
	if ctx == nil {
		return errNilContext("shutdown", "")
	}
	ctx, cancel := c.drainDeadline(ctx)
	defer cancel()
	left := &ShutdownError{}
	first, err := c.life.Close(ctx, func(ctx context.Context) {
		if !c.beside.Stop(ctx) {
			left.Handlers++
		}
		c.drainHandlers(ctx, left)
	}, func(ctx context.Context) {
		left.AsyncPublishes = c.publisher.Drain(ctx)
		left.Bytes, left.Cause = c.conn.Drain(ctx)
		c.life.End()
		c.conn.Close()
	})
	switch {
	case err != nil:
		return fail("close", "", ErrDrainTimeout, "another call is closing the client: %w", err)
	case !first:
		return nil
	case len(left.kinds()) > 0:
		c.log.Error("closed with losses", "server", c.conn.Server(), "error", left)
		return left
	}
	c.log.Info("closed", "server", c.conn.Server())
	return nil
}

// drainDeadline gives ctx the configured time for a graceful end when it has none.
func (c *Client) drainDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, c.cfg.DrainTimeout)
}

// drainHandlers lets the handlers of everything received return.
func (c *Client) drainHandlers(ctx context.Context, left *ShutdownError) {
	consumptions := c.consumer.Close(ctx)
	subscriptions := c.subs.Close(ctx)
	left.Handlers += subscriptions.InFlight
	left.Messages += subscriptions.Pending
	left.Handlers += <-consumptions
	handlers, messages := c.conn.DrainForeign(ctx)
	left.Handlers += handlers
	left.Messages += messages
}
