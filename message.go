package nats

import (
	"cmp"
	"context"
	"encoding/json"
	"strings"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consume"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/delivery"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// Message is a message received or to be published, of core NATS and of JetStream alike. To
// publish one, fill in the exported fields; the client neither changes nor keeps it. A received
// message belongs to its handler, which may keep it. Its methods are safe for concurrent use; its
// fields are not to be changed while another goroutine uses it.
type Message struct {
	// Subject is where the message was, or is to be, published.
	Subject string
	// Reply is the subject on which the publisher waits for an answer, empty when it does not. On a
	// JetStream message it is the server's acknowledgement subject, as upstream has it.
	Reply string
	// Header is upstream's map of texts, whose names are case-sensitive. It may be nil: make one before Set.
	Header natsgo.Header
	// Data is the payload; it may be nil.
	Data []byte

	msg     *natsgo.Msg            // as received; nil on a message that the caller made
	origin  *origin                // nil on a message that the caller made, unless by WithContext
	meta    *jetstream.MsgMetadata // where Reply does not say it: see Consume and GetMessage; else nil
	acked   wire.Token             // taken once a final acknowledgement, or an answer, was sent
	call    Call                   // of a message that an interceptor gets
	with    *messageOptions        // what With said; else nil
	renewed int64                  // when InProgress was called last, in Unix nanoseconds; 0 for never
}

// origin is what all the messages of one subscription, or of one client's pulls, share.
type origin struct {
	client      *Client // nil on a message that the caller made
	ctx         context.Context
	pattern     string               // of a subscription
	received    time.Time            // of the messages of a pull; else zero
	consumption *consume.Consumption // whose they are; else nil
	of          *Message             // what WithContext has copied; else nil
	record      *delivery.Record     // of a message of natstest.NewMessage; else nil
}

// Handler handles one received message. An error it returns, or a panic, is reported to the logger
// and the event handler.
type Handler func(msg *Message) error

func (o *origin) message(m *natsgo.Msg) *Message {
	o.client.totals.received.Add(1)
	return &Message{Subject: m.Subject, Reply: m.Reply, Header: m.Header, Data: m.Data, msg: m, origin: o}
}

// Context returns a context with the values of the one given to Subscribe or Consume, and without its
// end and deadline: it ends when the graceful end of the subscription or client is over, or its time is
// up. On a message that the caller made it is context.Background(). WithContext changes it.
func (m *Message) Context() context.Context {
	if m.origin == nil {
		return context.Background()
	}
	return m.origin.ctx
}

// WithContext returns a shallow copy of m whose Context is ctx, for an Interceptor to hand on to the handler. Both are
// the same delivery, which is acknowledged once, by either.
func (m *Message) WithContext(ctx context.Context) *Message {
	o := origin{of: m}
	if m.origin != nil {
		o = *m.origin
		o.of = m.delivered()
	}
	if ctx != nil {
		o.ctx = ctx
	} else if o.ctx == nil {
		o.ctx = context.Background()
	}
	copied := &Message{
		Subject: m.Subject, Reply: m.Reply, Header: m.Header, Data: m.Data,
		msg: m.msg, origin: &o, meta: m.meta, with: m.with,
	}
	if o.client == nil {
		if o.record = cmp.Or(o.record, delivery.RecordOf(o.ctx)); o.record != nil {
			o.ctx, copied.msg = o.record.Context(o.ctx), o.record.Msg
		}
	}
	return copied
}

// delivered returns the message that WithContext copied first, which has the state of the delivery.
func (m *Message) delivered() *Message {
	if m.origin != nil && m.origin.of != nil {
		return m.origin.of
	}
	return m
}

// Pattern returns what was subscribed to, wildcards included, and of a message of a Consumption the only filter of its
// consumer: a name for what the handler does, as that of a route. It is empty when there is none.
func (m *Message) Pattern() string {
	switch o := m.origin; {
	case o == nil:
		return ""
	case o.consumption != nil:
		return o.consumption.Filter()
	default:
		return o.pattern
	}
}

// Queue returns the queue group to whose member the message came, or "".
func (m *Message) Queue() string {
	if m.msg == nil || m.msg.Sub == nil {
		return ""
	}
	return m.msg.Sub.Queue
}

// Value returns what WithValue has put beside the client that received the message, or nil.
func (m *Message) Value(key any) any {
	if m.origin == nil || m.origin.client == nil {
		return nil
	}
	return m.origin.client.opts.values[key]
}

type messageKey struct{}

// MessageFrom returns the message that a handler of a decoded value, such as one of JSON, is called for: ctx is the
// handler's context or derived from it. Else it returns nil.
func MessageFrom(ctx context.Context) *Message {
	msg, _ := ctx.Value(messageKey{}).(*Message)
	return msg
}

// carried returns the message's context with the message in it.
func (m *Message) carried() context.Context { return context.WithValue(m.Context(), messageKey{}, m) }

// Respond publishes data to the message's reply subject. It returns ErrNoReply when the sender
// waits for no answer, as on every JetStream message, and otherwise what Client.Publish returns.
func (m *Message) Respond(data []byte) error {
	return m.RespondMsg(&Message{Data: data})
}

// RespondMsg is Respond with headers: it publishes resp's Header and Data to the message's reply
// subject and ignores resp's Subject. It returns ErrInvalidArgument when resp is nil.
func (m *Message) RespondMsg(resp *Message) error {
	switch {
	case resp == nil:
		return fail(opRespond, m.Subject, ErrInvalidArgument, "the response is nil")
	case m.Reply == "" || m.origin == nil || m.origin.client == nil:
		return fail(opRespond, m.Subject, ErrNoReply, "")
	case m.isJetStream():
		return fail(opRespond, m.Subject, ErrNoReply, "a stream's message is acknowledged, not answered")
	}
	c := m.origin.client
	if !c.isIntercepted(c.around.Publish != nil) {
		return m.respond(resp)
	}
	values := context.WithoutCancel(m.Context())
	return m.answered(c.publish(values, opRespond, m.Reply, resp.Reply, resp.Header, resp.Data))
}

// respond answers past the interceptors, which must not keep a caller waiting.
func (m *Message) respond(resp *Message) error {
	c := m.origin.client
	if err := c.checkPublish(opRespond, m.Reply, resp.Reply, resp.Header, resp.Data); err != nil {
		return err
	}
	return m.answered(c.send(context.Background(), opRespond, m.Reply, resp.Reply, resp.Header, resp.Data))
}

// answered takes note that an answer was sent.
func (m *Message) answered(err error) error {
	if err == nil {
		m.delivered().acked.Take()
	}
	return err
}

const opRespond = "respond"

// RespondError answers with an error, as a RequestHandler does that returns a *ServiceError with the code and the
// description. It returns what Respond returns.
func (m *Message) RespondError(code int, description string) error {
	return m.respondError(&ServiceError{Code: code, Description: description}, m.RespondMsg)
}

// DecodeJSON unmarshals the payload into v, a pointer. A handler of Consume returns its error as a Permanent one, as
// JSON does, for no other try will mend it.
func (m *Message) DecodeJSON(v any) error {
	if err := json.Unmarshal(m.Data, v); err != nil {
		return &fault.Error{Op: "decode JSON of", Target: m.Subject, Cause: err}
	}
	return nil
}

// Ack tells the server that the message is handled. It does not wait for the server; see AckSync.
// Like every acknowledgement it returns ErrNotJetStream on a message that is not a JetStream
// consumer's, and ErrAlreadyAcked after a final acknowledgement: Ack, AckSync, Nak, NakWithDelay
// or Term.
func (m *Message) Ack() error { return m.ack("ack", wire.Ack) }

// AckSync is Ack confirmed by the server: when it returns nil the message will not be delivered
// again, but for a server that loses its disk. It asks again over lost answers, broken connections and elections.
// Without a deadline in ctx, Config.RequestTimeout applies; then it returns ErrTimeout and may be called again. A
// consumer that is gone is ErrNoResponders: nobody has noted that the message is done.
func (m *Message) AckSync(ctx context.Context) error {
	if ctx == nil {
		return errNilContext("ack", m.Subject)
	}
	if err := m.startAck("ack"); err != nil {
		return err
	}
	if r := m.origin.record; r != nil {
		r.Add(wire.Ack, true)
		return nil
	}
	begun := time.Now()
	err := m.origin.client.api.Confirm(ctx, m.msg.Reply, wire.Ack)
	return m.endAck("ack", time.Since(begun), err)
}

// Nak asks the server to deliver the message again at once. A message that always fails then comes
// back thousands of times a second: prefer NakWithDelay.
func (m *Message) Nak() error { return m.ack("nak", wire.Nak) }

// NakWithDelay asks the server to deliver the message again after delay; zero means at once. Each such
// request stops the redeliveries of the consumer for 10 ms, on the server. So those of the handlers of a
// Consumption leave together, within 250 ms and with the rest of the delay; all others leave at once, and
// must not be more than some 50 a second.
func (m *Message) NakWithDelay(delay time.Duration) error {
	const op = "nak"
	if delay < 0 {
		return fail(op, m.Subject, ErrInvalidArgument, "the delay must not be negative, got %v", delay)
	}
	if err := m.startAck(op); err != nil {
		return err
	}
	if s := m.origin.consumption; s != nil && s.NakAfter(m.msg.Reply, delay) {
		return m.endAck(op, 0, nil)
	}
	return m.endAck(op, 0, m.tell(wire.NakAfter(delay)))
}

// Term tells the server never to deliver the message again, although it was not handled. The
// reason, which may be empty, goes into the server's advisory.
func (m *Message) Term(reason string) error {
	return m.ack("term", wire.Term(reason))
}

// InProgress restarts the consumer's ack wait for this message. It may be called any number of
// times before the final acknowledgement.
func (m *Message) InProgress() error {
	if err := m.checkAck("in progress"); err != nil {
		return err
	}
	atomic.StoreInt64(&m.delivered().renewed, time.Now().UnixNano())
	return wrap("in progress", m.Subject, m.tell(wire.Progress))
}

// held returns for how long the consumer's ack wait has been running, or 0 when that is not known.
func (m *Message) held() time.Duration {
	if renewed := atomic.LoadInt64(&m.delivered().renewed); renewed != 0 {
		return time.Since(time.Unix(0, renewed))
	}
	if m.origin == nil || m.origin.received.IsZero() {
		return 0
	}
	return time.Since(m.origin.received)
}

// Metadata tells the message's stream, consumer, sequences, deliveries and time, and of a message that
// no consumer delivered its stream, sequence and time. It returns ErrNotJetStream on one that is not a stream's.
func (m *Message) Metadata() (*jetstream.MsgMetadata, error) {
	if m.meta != nil {
		meta := *m.meta
		return &meta, nil
	}
	if !m.isJetStream() {
		return nil, fail("metadata", m.Subject, ErrNotJetStream, "")
	}
	meta, err := wire.Metadata(m.msg)
	return meta, wrap("metadata", m.Subject, err)
}

func (m *Message) isJetStream() bool {
	return m.msg != nil && strings.HasPrefix(m.msg.Reply, wire.AckPrefix)
}

// ack sends a final acknowledgement without waiting for the server.
func (m *Message) ack(op string, verb []byte) error {
	if err := m.startAck(op); err != nil {
		return err
	}
	return m.endAck(op, 0, m.tell(verb))
}

func (m *Message) tell(verb []byte) error {
	if r := m.origin.record; r != nil {
		r.Add(verb, false)
		return nil
	}
	return m.origin.client.conn.Publish(context.Background(), m.msg.Reply, "", nil, verb)
}

func (m *Message) checkAck(op string) error {
	if !m.isJetStream() {
		return fail(op, m.Subject, ErrNotJetStream, "only what Consume or PullMessages brings is acknowledged")
	}
	if m.delivered().acked.Taken() {
		return fail(op, m.Subject, ErrAlreadyAcked, "")
	}
	return nil
}

// startAck claims the message's one final acknowledgement.
func (m *Message) startAck(op string) error {
	if err := m.checkAck(op); err != nil {
		return err
	}
	if !m.delivered().acked.Take() {
		return fail(op, m.Subject, ErrAlreadyAcked, "")
	}
	return nil
}

// endAck gives the claim back when the acknowledgement did not get through.
func (m *Message) endAck(op string, took time.Duration, err error) error {
	if err != nil {
		m.delivered().acked.GiveBack()
		err = wrap(op, m.Subject, err)
	}
	if c := m.origin.client; c != nil {
		c.settled(m, Settlement{Op: op, Took: took, Err: err})
	}
	return err
}
