package nats

import (
	"context"
	"errors"
	"slices"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consume"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/publish"
)

// Interceptor stands around what a client sends and handles, for what every message needs: traces, limits, checks. Fields
// that are nil cost nothing.
//
// It sees what is published, stored or not, the answers of Respond included, what is requested, and what the handlers of
// subscriptions and Consumptions get; dead letters and replays, too; and it is told of what PullMessages returns, and of
// acknowledgements. It does not see key-value, objects, the JetStream API and what is ranged over.
//
// A panic in a function is logged and becomes its error, which is ErrHandlerPanic. What an interceptor
// publishes itself passes all interceptors again.
type Interceptor struct {
	// Publish is called once for each message that a call publishes, RequestMany's included, after its message ID is
	// set, and calls next to send it. The message is a copy: its Header, which is not nil, may be changed, and its Data replaced. What is
	// invalid then is refused as by the call. Its error is that of the call. To a stream, next returns when the message
	// is stored or is not, but in PublishAsync, PublishBatch, PublishSeq and PublishAtomic when it is on its way:
	// Stored tells the rest. In RequestMany it returns before the request is sent.
	Publish func(ctx context.Context, msg *Message, next func(context.Context, *Message) error) error
	// Stored is called once for each message to a stream for which next was called, when its outcome is known, with
	// the context that next was given, and before the call or the future has it. Either ack or err is nil. The message
	// is not to be changed. The calls for different messages come at the same time.
	Stored func(ctx context.Context, msg *Message, ack *jetstream.PubAck, err error)
	// Request is called for Request and RequestMsg, within whose timeout it stays, with a copy as Publish is.
	Request func(ctx context.Context, msg *Message, next func(context.Context, *Message) (*Message, error)) (*Message, error)
	// Handle is called in the place of a handler, which is next. Its error, and a panic, mean what the handler's mean.
	// Message.WithContext gives the handler another context.
	Handle func(msg *Message, next Handler) error
	// Received is called when PullMessages returns, also without messages or with an error, but not when it refuses its
	// arguments. The messages are not to be changed.
	Received func(ctx context.Context, pull Pull)
	// Settled is called once for each final acknowledgement that was sent, or could not be, before the call for it returns:
	// Ack, AckSync, Nak, NakWithDelay, Term and AckMessage, and what a Consumption says when a handler has returned,
	// on its worker. Not for what it hands back unhandled. The context is the message's; in a handler, what WithContext
	// has made it.
	Settled func(msg *Message, s Settlement)
	// Enabled, where it is not nil, is asked before, and must not block: while no interceptor is enabled, messages pass
	// by them all at no cost.
	Enabled func() bool
}

// Pull is a call of PullMessages that has returned.
type Pull struct {
	Stream, Consumer string
	Took             time.Duration
	Messages         []*Message
	Err              error
}

// Settlement is a final acknowledgement of a message.
type Settlement struct {
	// Op is "ack", "nak" or "term".
	Op string
	// Took is how long the server's word was waited for: 0 where it is not.
	Took time.Duration
	// Err tells that the server may not have got it.
	Err error
}

// Call is the kind of call by which a message comes to an Interceptor: see Message.Call.
type Call uint8

// The calls that pass interceptors.
const (
	// CallPublish is Publish and its kin.
	CallPublish Call = iota + 1
	// CallRespond is an answer.
	CallRespond
	// CallRequest is Request, RequestMany and their kin.
	CallRequest
	// CallPublishToStream is PublishToStream and its kin.
	CallPublishToStream
	// CallPublishAsync is PublishAsync, PublishBatch and PublishSeq: Stored may come later than next returns.
	CallPublishAsync
	// CallPublishAtomic is PublishAtomic: Stored comes later than next returns.
	CallPublishAtomic
	// CallDeadLetter stores a dead letter.
	CallDeadLetter
	// CallReplay is ReplayDeadLetters.
	CallReplay
)

func callOf(op string) Call {
	switch op {
	case opRespond:
		return CallRespond
	case opRequest:
		return CallRequest
	case opPublishToStream:
		return CallPublishToStream
	case opPublishAsync, opPublishBatch:
		return CallPublishAsync
	case opPublishAtomic:
		return CallPublishAtomic
	case consume.OpDeadLetter:
		return CallDeadLetter
	case consume.OpReplay:
		return CallReplay
	default:
		return CallPublish
	}
}

// Call tells by which call the message is on its way, where an Interceptor's Publish or Request has it. Else it is 0.
func (m *Message) Call() Call { return m.call }

// WithInterceptor adds an interceptor; of several the first is outermost.
func WithInterceptor(i Interceptor) Option {
	return func(o *options) { o.interceptors = append(o.interceptors, i) }
}

// chained makes one interceptor of all but their Handle.
func (c *Client) chained(all []Interceptor) (one Interceptor) {
	var enabled []func() bool
	var always bool
	for _, outer := range slices.Backward(all) {
		if inner := one.Publish; outer.Publish != nil {
			one.Publish = outer.Publish
			if inner != nil {
				one.Publish = func(ctx context.Context, msg *Message, next func(context.Context, *Message) error) error {
					return outer.Publish(ctx, msg, func(ctx context.Context, msg *Message) error { return inner(ctx, msg, next) })
				}
			}
		}
		if inner := one.Request; outer.Request != nil {
			one.Request = outer.Request
			if inner != nil {
				one.Request = func(ctx context.Context, msg *Message, next func(context.Context, *Message) (*Message, error)) (*Message, error) {
					return outer.Request(ctx, msg, func(ctx context.Context, msg *Message) (*Message, error) { return inner(ctx, msg, next) })
				}
			}
		}
		if inner := one.Stored; outer.Stored != nil {
			one.Stored = func(ctx context.Context, msg *Message, ack *jetstream.PubAck, err error) {
				if inner != nil {
					inner(ctx, msg, ack, err)
				}
				c.contain("Interceptor.Stored", func() { outer.Stored(ctx, msg, ack, err) })
			}
		}
		one.Received = after(c, "Interceptor.Received", outer.Received, one.Received)
		one.Settled = after(c, "Interceptor.Settled", outer.Settled, one.Settled)
		always = always || outer.Enabled == nil
		enabled = append(enabled, outer.Enabled)
	}
	if len(all) > 0 && !always {
		one.Enabled = c.anyOf(enabled)
	}
	return one
}

// after calls the inner one first, as what is told on the way back.
func after[A, B any](c *Client, name string, outer, inner func(A, B)) func(A, B) {
	if outer == nil {
		return inner
	}
	return func(a A, b B) {
		if inner != nil {
			inner(a, b)
		}
		c.contain(name, func() { outer(a, b) })
	}
}

var errEnabled = errors.New("an interceptor is enabled")

// anyOf asks all in one that panics no more than they do, and allocates nothing.
func (c *Client) anyOf(enabled []func() bool) func() bool {
	ask := func(*Message) error {
		for _, is := range enabled {
			if is() {
				return errEnabled
			}
		}
		return nil
	}
	return func() bool {
		err := callHandler(ask, nil)
		is := errors.Is(err, errEnabled)
		if err != nil && !is {
			c.log.Error("a callback panicked", append(fault.Attrs(err), "callback", "Interceptor.Enabled")...)
		}
		return is
	}
}

// isIntercepted tells whether a function of the interceptors, if it is given, is to be called.
func (c *Client) isIntercepted(given bool) bool {
	return given && (c.around.Enabled == nil || c.around.Enabled())
}

// settled tells the interceptors of an acknowledgement.
func (c *Client) settled(msg *Message, s Settlement) {
	if c.isIntercepted(c.around.Settled != nil) {
		c.around.Settled(msg, s)
	}
}

// handled puts the interceptors around a handler.
func (c *Client) handled(h Handler) Handler {
	plain := h
	for _, i := range slices.Backward(c.opts.interceptors) {
		if inner := h; h != nil && i.Handle != nil {
			h = func(msg *Message) error { return i.Handle(msg, inner) }
		}
	}
	if around := h; h != nil && c.around.Enabled != nil {
		h = func(msg *Message) error {
			if c.around.Enabled() {
				return around(msg)
			}
			return plain(msg)
		}
	}
	return h
}

var errNotPassed = errors.New("the interceptor has called next without a context or a message")

// intercept takes a message through the interceptors to send.
func (c *Client) intercept(ctx context.Context, op string, msg Message, send func(context.Context, *Message) error) error {
	subject := msg.Subject
	msg.Header, msg.call = cloned(msg.Header), callOf(op)
	return c.intercepted(op, subject, callHandler(func(msg *Message) error {
		return c.around.Publish(ctx, msg, func(ctx context.Context, msg *Message) error {
			if ctx == nil || msg == nil {
				return fail(op, subject, ErrInvalidArgument, "%w", errNotPassed)
			}
			return send(ctx, msg)
		})
	}, &msg))
}

// interceptRequest does the same with a request.
func (c *Client) interceptRequest(ctx context.Context, op string, msg Message, send func(context.Context, *Message) (*Message, error)) (answer *Message, err error) {
	subject := msg.Subject
	msg.Header, msg.call = cloned(msg.Header), callOf(op)
	err = callHandler(func(msg *Message) (err error) {
		answer, err = c.around.Request(ctx, msg, func(ctx context.Context, msg *Message) (*Message, error) {
			if ctx == nil || msg == nil {
				return nil, fail(op, subject, ErrInvalidArgument, "%w", errNotPassed)
			}
			return send(ctx, msg)
		})
		return err
	}, &msg)
	if err == nil && answer == nil {
		err = fail(op, subject, ErrInvalidArgument, "the interceptor has returned neither an answer nor an error")
	}
	return answer, c.intercepted(op, subject, err)
}

// intercepted returns the error of a call that interceptors stand around. Their panics are logged, for the caller may not
// print where they were.
func (c *Client) intercepted(op, subject string, err error) error {
	if errors.Is(err, ErrHandlerPanic) {
		c.log.Error("an interceptor panicked", append(fault.Attrs(err), "subject", subject)...)
	}
	return wrap(op, subject, err)
}

// cloned returns a copy that shares nothing, and is not nil.
func cloned(header natsgo.Header) natsgo.Header {
	own := make(natsgo.Header, len(header)+1)
	for name, values := range header {
		own[name] = slices.Clone(values)
	}
	return own
}

// hooks are the interceptors as those of what is stored in streams.
func (c *Client) hooks() (h publish.Hooks) {
	h.Enabled = c.around.Enabled
	if c.around.Publish != nil {
		h.Publish = c.interceptStored
	}
	if stored := c.around.Stored; stored != nil {
		h.Stored = func(ctx context.Context, m *natsgo.Msg, ack *jetstream.PubAck, err error) {
			stored(ctx, &Message{Subject: m.Subject, Header: m.Header, Data: m.Data}, ack, err)
		}
	}
	return h
}

// interceptStored checks what the interceptors have made of a message as the call has checked it: they command the
// server no more than it did.
func (c *Client) interceptStored(ctx context.Context, op string, m *natsgo.Msg, next publish.Next) error {
	return c.intercept(ctx, op, Message{Subject: m.Subject, Header: m.Header, Data: m.Data}, func(ctx context.Context, msg *Message) error {
		made := &natsgo.Msg{Subject: msg.Subject, Header: msg.Header, Data: msg.Data}
		return next(ctx, made, c.checkToStream(op, msg, m.Header)) // they had a copy of it
	})
}
