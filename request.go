package nats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// Request publishes data to subject and returns the first answer. It waits no longer than timeout
// and ctx allow, whichever is earlier; a timeout of zero means Config.RequestTimeout.
//
// When nobody listens on the subject it returns ErrNoResponders at once, and when nobody answers
// in time ErrTimeout. While disconnected it waits for the connection and then returns
// ErrNotConnected: nothing was sent. When the connection breaks while the request is in flight it
// waits on, since the answer may still come after a quick reconnect, and then returns
// ErrConnectionLost: the request may have been handled, and the caller decides whether to repeat
// it. An answer that is the error of a service is returned beside a *ServiceError. The other errors are those of
// Publish.
func (c *Client) Request(ctx context.Context, subject string, data []byte, timeout time.Duration) (*Message, error) {
	return c.requestChecked(ctx, subject, nil, data, timeout)
}

// RequestMsg is Request with headers. It ignores msg.Reply, and neither changes nor keeps msg.
func (c *Client) RequestMsg(ctx context.Context, msg *Message, timeout time.Duration) (*Message, error) {
	if msg == nil {
		return nil, fail("request", "", ErrInvalidArgument, "the message is nil")
	}
	return c.requestChecked(ctx, msg.Subject, msg.Header, msg.Data, timeout)
}

const opRequest = "request"

func (c *Client) requestChecked(ctx context.Context, subject string, header natsgo.Header, data []byte, timeout time.Duration) (*Message, error) {
	const op = opRequest
	if ctx == nil {
		return nil, errNilContext(op, subject)
	}
	if err := c.checkMessage(op, subject, c.conn.LineRoom(), header, data); err != nil {
		return nil, err
	}
	if !c.isIntercepted(c.around.Request != nil) {
		return c.sendRequest(ctx, op, subject, header, data, timeout)
	}
	if timeout >= 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cmp.Or(timeout, c.cfg.RequestTimeout))
		defer cancel()
	}
	msg := Message{Subject: subject, Header: header, Data: data}
	return c.interceptRequest(ctx, op, msg, func(ctx context.Context, msg *Message) (*Message, error) {
		if err := c.checkMessage(op, msg.Subject, c.conn.LineRoom(), msg.Header, msg.Data); err != nil {
			return nil, err
		}
		return c.sendRequest(ctx, op, msg.Subject, msg.Header, msg.Data, timeout)
	})
}

func (c *Client) sendRequest(ctx context.Context, op, subject string, header natsgo.Header, data []byte, timeout time.Duration) (*Message, error) {
	m, err := c.conn.Request(ctx, op, subject, header, data, timeout)
	if c.sentRequest(err); err != nil {
		return nil, err
	}
	return c.pulled.message(m), wrap(op, subject, serviceErrorOf(m))
}

// RequestMany publishes data to subject and returns the answers that come within the time of ctx, which is
// Config.RequestTimeout when it has no deadline: the end of that time is a regular end. WithMaxReplies, WithStall and
// WithSentinel end the sequence earlier. The request is sent when the sequence is ranged over.
//
// An answer that is the error of a service comes beside a *ServiceError, and others may follow. An error without an
// answer is the last: ErrTimeout when there was none, ErrConnectionLost when the connection broke, so that answers may
// be missing, ErrSlowConsumer when more than 64 MiB of them waited for the loop, and otherwise those of Request.
func (c *Client) RequestMany(ctx context.Context, subject string, data []byte, opts ...RequestManyOption) iter.Seq2[*Message, error] {
	const op = opRequest
	return func(yield func(*Message, error) bool) {
		if ctx == nil {
			yield(nil, errNilContext(op, subject))
			return
		}
		m, err := c.requestOfMany(ctx, op, &Message{Subject: subject, Data: data})
		if err == nil {
			o := applied(requestManyOptions{}, opts)
			answers := 0
			err = c.conn.RequestMany(ctx, op, m, o.stall, func(m *natsgo.Msg) bool {
				msg := c.pulled.message(m)
				if o.isLast != nil && o.isLast(msg) {
					return false
				}
				answers++
				return yield(msg, wrap(op, subject, serviceErrorOf(m))) && answers != o.most
			})
			c.sentRequest(err)
		}
		if err != nil {
			yield(nil, err)
		}
	}
}

// requestOfMany returns what is to be sent: what the interceptors make of msg.
func (c *Client) requestOfMany(ctx context.Context, op string, msg *Message) (m *natsgo.Msg, err error) {
	intercepted := c.isIntercepted(c.around.Publish != nil)
	check := func(_ context.Context, msg *Message) error {
		m = &natsgo.Msg{Subject: msg.Subject, Header: msg.Header, Data: msg.Data}
		if intercepted {
			m.Data = slices.Clone(msg.Data) // which may be a buffer of the interceptor's
		}
		return c.checkMessage(op, msg.Subject, c.conn.LineRoom(), msg.Header, msg.Data)
	}
	if err = check(ctx, msg); err != nil || !intercepted {
		return m, err
	}
	m = nil
	if err = c.intercept(ctx, op, *msg, check); err == nil && m == nil {
		err = fail(op, msg.Subject, ErrInvalidArgument, "the interceptor has neither called next nor returned an error")
	}
	return m, err
}

// RequestManyOption says when RequestMany has enough.
type RequestManyOption func(*requestManyOptions)

type requestManyOptions struct {
	most   int
	stall  time.Duration
	isLast func(*Message) bool
}

// WithMaxReplies ends RequestMany after n answers. Zero is no limit.
func WithMaxReplies(n int) RequestManyOption { return func(o *requestManyOptions) { o.most = n } }

// WithStall ends RequestMany when nothing has come for d since the last answer; the first one has all the time. Zero
// is no limit.
func WithStall(d time.Duration) RequestManyOption { return func(o *requestManyOptions) { o.stall = d } }

// WithSentinel ends RequestMany with the answer for which isLast is true, which is not part of the sequence.
func WithSentinel(isLast func(*Message) bool) RequestManyOption {
	return func(o *requestManyOptions) { o.isLast = isLast }
}

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
		if err := checkQueue(subject, queue); err != nil {
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
	if e, _ := errors.AsType[*ServiceError](err); e != nil {
		return e
	}
	if own, ok := errors.AsType[*fault.Error](err); ok && own.Op == opRespond && errors.Is(own, ErrPayloadTooLarge) {
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
