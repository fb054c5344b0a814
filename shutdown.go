package nats

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// ShutdownError says what Close or Shutdown left behind. It is ErrDrainTimeout when handlers,
// messages or asynchronous publishes were left, and ErrUnflushed when published bytes were.
type ShutdownError struct {
	// Handlers still running.
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

// Close ends the client gracefully: it stops receiving, waits until the messages already received
// are handled and the asynchronous publishes acknowledged, sends what was published, and closes
// the connection. It takes at most Config.DrainTimeout, and then returns a *ShutdownError that
// says what was left; it is ErrDrainTimeout or ErrUnflushed or both. While disconnected it waits
// for the connection only as long as there is something to send. A second call waits for the first
// and returns nil. Called from a handler it would wait for itself until the time is up.
func (c *Client) Close() error { return c.Shutdown(context.Background()) }

// Shutdown is Close bounded by ctx; Config.DrainTimeout applies when ctx has no deadline.
func (c *Client) Shutdown(ctx context.Context) error {
	if ctx == nil {
		return errNilContext("shutdown", "")
	}
	c.mu.Lock()
	if c.isClosing() {
		c.mu.Unlock()
		<-c.closed
		return nil
	}
	close(c.closing)
	c.mu.Unlock()
	defer close(c.closed)

	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.DrainTimeout)
		defer cancel()
	}
	stop := context.AfterFunc(ctx, func() {
		if !c.IsConnected() {
			c.dialer.interrupt()
		}
	})
	defer stop()
	left := c.drain(ctx)
	c.cancel(ErrClosed)
	c.nc.Close()
	c.link.close()
	if left != nil {
		c.log.Error("closed with losses", "error", left)
		return left
	}
	c.log.Info("closed")
	return nil
}

// drain empties the client in the order in which work flows: messages to handlers, handlers to
// publishes, publishes to the server.
func (c *Client) drain(ctx context.Context) error {
	left := &ShutdownError{}
	consumptions := c.stopConsumptions(ctx)
	for _, one := range c.drainSubscriptions(ctx) {
		left.Handlers += one.InFlight
		left.Messages += one.Pending
	}
	left.Handlers += <-consumptions
	c.closeAll()
	c.drainWork(ctx)
	left.AsyncPublishes = c.drainAsyncPublishes(ctx)
	left.Bytes, left.Cause = c.drainBuffer(ctx)
	if len(left.kinds()) > 0 {
		return left
	}
	return nil
}

// drainSubscriptions drains all subscriptions at once and returns what each of them left.
func (c *Client) drainSubscriptions(ctx context.Context) []SubscriptionStats {
	subs := c.subscriptions()
	left := make([]SubscriptionStats, len(subs))
	var wg sync.WaitGroup
	for i, sub := range subs {
		wg.Go(func() { left[i] = sub.drain(ctx) })
	}
	wg.Wait()
	return left
}

// stopConsumptions hands back at once what no worker has begun, and tells on the channel how many
// handlers run on when ctx ends.
func (c *Client) stopConsumptions(ctx context.Context) <-chan int {
	all := c.runningConsumptions()
	for _, s := range all {
		s.beginStop(ErrClosed)
	}
	left := make(chan int, 1)
	go func() {
		handlers := 0
		for _, s := range all {
			handlers += s.awaitStop(ctx)
		}
		left <- handlers
	}()
	return left
}

// drainAsyncPublishes waits for the acknowledgements and returns how many never came. Upstream
// leaves the futures of those unresolved for ever; here they fail, the client's own and upstream's.
func (c *Client) drainAsyncPublishes(ctx context.Context) int {
	if c.js == nil {
		return 0
	}
	left := c.async.shutdown(ctx)
	if c.js.PublishAsyncPending() > 0 {
		select {
		case <-c.js.PublishAsyncComplete():
		case <-ctx.Done():
		case <-c.ctx.Done():
		}
	}
	pending := c.js.PublishAsyncPending()
	c.js.CleanupPublisher()
	return left + pending
}

// drainBuffer sends what was published and returns how many bytes it could not.
func (c *Client) drainBuffer(ctx context.Context) (int, error) {
	up, _, _ := c.link.state()
	if c.nc.IsClosed() || c.allConfirmed() || (!up && c.unsent() == 0) {
		return 0, nil
	}
	if up && ctx.Err() != nil {
		// Handlers took all the time; what they published deserves a moment still.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), flushGrace)
		defer cancel()
	}
	before := c.unsent()
	if err := c.roundTrip(ctx, "flush", ""); err != nil {
		return min(before, c.unsent()), err // without the flush's own PING
	}
	return 0, nil
}

// unsent returns how many bytes wait for the connection. The buffer may hold no more than the
// client's own PINGs: then the server has confirmed every message.
func (c *Client) unsent() int {
	n, err := c.nc.Buffered()
	if err != nil || c.allConfirmed() {
		return 0
	}
	return n
}

// allConfirmed tells whether the server has answered a PING that followed every message.
func (c *Client) allConfirmed() bool { return c.sent.allConfirmed(c.nc.Stats()) }

// beginWork registers a call that Shutdown lets end, which is told by work.Done. It returns
// ErrClosed when Shutdown has begun.
func (c *Client) beginWork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isClosing() {
		return ErrClosed
	}
	c.work.Add(1)
	return nil
}

// drainWork waits for the calls that beginWork registered: they end by themselves soon.
func (c *Client) drainWork(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		c.work.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// closer is something that ends with the client: a watcher, a download.
type closer struct{ close func() }

// onClose registers f to be called by Shutdown and returns a function that takes it back. It
// returns ErrClosed when Shutdown has begun.
func (c *Client) onClose(f func()) (forget func(), err error) {
	entry := &closer{close: f}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isClosing() {
		return nil, ErrClosed
	}
	c.closers[entry] = struct{}{}
	return func() {
		c.mu.Lock()
		delete(c.closers, entry)
		c.mu.Unlock()
	}, nil
}

func (c *Client) closeAll() {
	c.mu.Lock()
	closers := c.closers
	c.closers = nil
	c.mu.Unlock()
	for entry := range closers {
		entry.close()
	}
}

// isClosing tells whether Shutdown has begun.
func (c *Client) isClosing() bool {
	select {
	case <-c.closing:
		return true
	default:
		return false
	}
}

// flushGrace is what the last flush gets when the handlers have used the time up.
const flushGrace = 25 * time.Millisecond
