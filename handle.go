package nats

import (
	"errors"
	"fmt"
	"runtime/debug"
)

// panicError is what a handler's panic becomes.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("%v: %v", ErrHandlerPanic, e.value) }

func (e *panicError) Unwrap() error { return ErrHandlerPanic }

// handlerExited is the error of a handler that ended its goroutine, as testing's FailNow does. No
// call returns from that: it is made in a deferred function, and another goroutine goes on.
func handlerExited() error {
	return &panicError{value: "it ended its goroutine (runtime.Goexit)", stack: debug.Stack()}
}

// callHandler turns a panic into an error. It does not return when h ends its goroutine.
func callHandler(h Handler, msg *Message) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &panicError{value: r, stack: debug.Stack()}
		}
	}()
	return h(msg)
}

// reportHandler reports an error that a handler returned, or its panic with the stack.
func (c *Client) reportHandler(err error, subject, queue string) {
	attrs := []any{"subject", subject, "queue", queue, "error", err}
	var p *panicError
	if errors.As(err, &p) {
		attrs = append(attrs, "stack", string(p.stack))
	}
	c.log.Error("message handler failed", attrs...)
	c.emit(Event{Type: EventHandlerError, Subject: subject, Queue: queue, Err: err})
}
