package nats

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"sync/atomic"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// RequestHandler handles one request and returns the answer, which is sent unless the handler has called Respond
// or its kin. An error is answered at once: a *ServiceError in its chain as it is, and any other as code 500 with a
// text that tells nothing, while the logger and the event handler get what the caller does not learn. So is a
// panic. An answer over the server's max_payload is answered with code 413.
type RequestHandler func(msg *Message) ([]byte, error)

// ServiceError is an answer that is an error, in the convention of NATS services (ADR-32). A RequestHandler returns
// it to have it sent, and Request returns it, beside the answer, when it was received. It compares by errors.Is with
// one of an equal Code that has no Description or the same.
type ServiceError struct {
	// Code is the service's own, often an HTTP status. Zero is sent as 500, and a received code that is no number
	// is zero.
	Code int
	// Description is for people. An empty one is sent as what the code stands for, and a line break as a space.
	Description string
	// Data is the payload of the answer. It is not sent when it is over the server's max_payload.
	Data []byte
	// Header holds further headers of the answer, and of a received one all.
	Header natsgo.Header
}

func (e *ServiceError) Error() string {
	if e == nil {
		e = &ServiceError{}
	}
	text := fmt.Sprintf("service error %d", e.Code)
	if e.Description != "" {
		text += ": " + e.Description
	}
	return text
}

// Is tells whether target is a *ServiceError of the same Code and, unless it has none, Description.
func (e *ServiceError) Is(target error) bool {
	t, ok := target.(*ServiceError)
	return ok && e != nil && t != nil && e.Code == t.Code && (t.Description == "" || t.Description == e.Description)
}

// serviceErrorOf returns the error that an answer is, or nil.
func serviceErrorOf(m *natsgo.Msg) error {
	code, description, is := wire.ReadServiceError(m.Header)
	if !is {
		return nil
	}
	return &ServiceError{Code: code, Description: description, Data: m.Data, Header: m.Header}
}

// HandleRequests calls h for every request on subject and answers it, whatever h does: the caller never waits in vain.
// It is QueueSubscribe, or Subscribe when queue is empty, in everything else. A request that is dropped, for the pending
// limits, WithMaxInFlight, or the end of the subscription, is answered with code 503. One that asks for no answer is
// handled and counted as Unanswered.
func (c *Client) HandleRequests(ctx context.Context, subject, queue string, h RequestHandler, opts ...SubscribeOption) (*Subscription, error) {
	if h == nil {
		return nil, fail("subscribe", subject, ErrInvalidArgument, "the handler is nil")
	}
	var settled atomic.Int64
	opts = append([]SubscribeOption{func(o *subscribeOptions) { o.Settled = &settled }}, opts...)
	return c.subscribeTold(ctx, subject, queue, func(msg *Message) error { return serve(h, msg, &settled) }, opts)
}

// subscribeTold is subscribe for an h that answers. What does not get as far is refused.
func (c *Client) subscribeTold(ctx context.Context, subject, queue string, h Handler, opts []SubscribeOption) (*Subscription, error) {
	if queue != "" {
		if err := checkQueue("subscribe", subject, queue); err != nil {
			return nil, err
		}
	}
	return c.subscribe(ctx, subject, queue, h, append([]SubscribeOption{func(o *subscribeOptions) { o.Refuse = c.refuse }}, opts...))
}

// WithMaxInFlight bounds how many requests of HandleRequests, or of a service's endpoint, are handled or wait for it.
// More are answered with code 503, counted as Dropped and reported as EventSlowConsumer, for a queue group goes on
// giving them to an instance that is busy. Zero, the default, is no limit.
func WithMaxInFlight(n int) SubscribeOption {
	return func(o *subscribeOptions) { o.InFlight = n }
}

// refuse answers a request that is dropped. It is called by nats.go, and so does not wait for the line to have room.
func (c *Client) refuse(m *natsgo.Msg) {
	if m.Reply == "" {
		return
	}
	now, cancel := context.WithCancel(context.Background())
	cancel()
	header := make(natsgo.Header, 2)
	wire.ServiceError(header, http.StatusServiceUnavailable, "")
	if err := c.conn.Publish(now, m.Reply, "", header, nil); err != nil {
		c.log.Debug("a dropped request is not answered", "subject", m.Subject, "error", err)
	}
}

// serve calls h and answers, whatever h does. Before, the request is settled: whoever has the answer may ask again.
func serve(h RequestHandler, msg *Message, settled *atomic.Int64) error {
	returned := false
	defer func() {
		if !returned {
			settled.Add(1)
			_ = msg.answer(nil, fault.Exited()) // nobody hears of it: the goroutine ends
		}
	}()
	data, err := msg.origin.client.call(h, msg)
	returned = true
	settled.Add(1)
	return msg.answer(data, err)
}

// call calls h, with the interceptors around it.
func (c *Client) call(h RequestHandler, msg *Message) (data []byte, err error) {
	if !c.isIntercepted(len(c.opts.interceptors) > 0) {
		err = callHandler(func(msg *Message) (err error) { data, err = h(msg); return err }, msg)
		return data, err
	}
	var answer []byte // which is allocated, unlike data
	err = callHandler(c.handled(func(msg *Message) (err error) { answer, err = h(msg); return err }), msg)
	return answer, err
}

// answer sends what a handler has returned, unless it has answered itself, and returns what is to be counted and told.
func (m *Message) answer(data []byte, err error) error {
	open := m.Reply != "" && !m.isJetStream() && !m.delivered().acked.Taken()
	if err == nil && open {
		err = m.Respond(data)
	}
	if err == nil {
		return nil
	}
	e := answerTo(err)
	code, description := wire.ServiceError(natsgo.Header{}, e.Code, e.Description)
	answered := &fault.Answered{Told: fmt.Sprintf("%d:%s", code, description)}
	if err != error(e) { //nolint:errorlint // what wraps it is not sent
		answered.Cause = err
	}
	if !open {
		return answered
	}
	if unsent := m.respondError(e, m.respond); unsent != nil && !errors.Is(err, unsent) {
		answered.Cause = fault.Joined{err, unsent}
	}
	return answered
}

// answerTo returns what a caller is told of a handler's error.
func answerTo(err error) *ServiceError {
	var e *ServiceError
	if errors.As(err, &e) && e != nil {
		return e
	}
	var own *fault.Error
	if errors.As(err, &own) && own.Op == opRespond && errors.Is(own, ErrPayloadTooLarge) {
		return &ServiceError{Code: http.StatusRequestEntityTooLarge, Description: "the answer is too large"}
	}
	return &ServiceError{Code: http.StatusInternalServerError}
}

// respondError answers with e, and with less of it where that cannot be sent.
func (m *Message) respondError(e *ServiceError, respond func(*Message) error) (err error) {
	for _, e := range []ServiceError{*e, {e.Code, e.Description, nil, e.Header}, {e.Code, e.Description, nil, nil}, {Code: e.Code}} {
		header := maps.Clone(e.Header)
		if header == nil {
			header = make(natsgo.Header, 2)
		}
		wire.ServiceError(header, e.Code, e.Description)
		err = respond(&Message{Header: header, Data: e.Data})
		if !errors.Is(err, ErrPayloadTooLarge) && !errors.Is(err, ErrInvalidHeader) {
			return err
		}
	}
	return err
}
