package nats

import (
	"errors"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// callHandler turns a panic into an error. It does not return when h ends its goroutine.
func callHandler(h Handler, msg *Message) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fault.Panicked(r)
		}
	}()
	return h(msg)
}

// reportHandler reports an error that a handler returned, or its panic with the stack.
func (c *Client) reportHandler(err error, subject, queue string) {
	attrs := []any{"subject", subject, "queue", queue, "error", err}
	var p *fault.Panic
	if errors.As(err, &p) {
		attrs = append(attrs, "stack", string(p.Stack))
	}
	c.log.Error("message handler failed", attrs...)
	c.emit(Event{Type: EventHandlerError, Subject: subject, Queue: queue, Err: err})
}
