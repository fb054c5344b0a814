package nats

import (
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

// contain calls a callback of the user's whose panic is to harm nothing, and reports that.
func (c *Client) contain(name string, callback func()) {
	if err := callHandler(func(*Message) error { callback(); return nil }, nil); err != nil {
		c.log.Error("a callback panicked", append(fault.Attrs(err), "callback", name)...)
	}
}

const handlerFailed = "message handler failed"

// reportHandler reports an error that a handler of a subscription returned, or its panic.
func (c *Client) reportHandler(err error, subject, queue string) {
	c.log.Error(handlerFailed, append(fault.Attrs(err), "subject", subject, "queue", queue)...)
	c.emit(Event{Type: EventHandlerError, Subject: subject, Queue: queue, Err: err})
}
