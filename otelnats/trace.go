package otelnats

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// operation is something that takes time: a span and a measurement.
type operation struct {
	t      *telemetry
	span   trace.Span
	ctx    context.Context         //nolint:containedctx // that of the span
	into   metric.Float64Histogram // nil where it is not measured
	common []attribute.KeyValue    // of the measurement
	begun  time.Time
}

// begin starts an operation on a message.
func (t *telemetry) begin(ctx context.Context, kind trace.SpanKind, w what, msg *nats.Message, into metric.Float64Histogram, opts ...trace.SpanStartOption) *operation {
	return t.beginAt(ctx, time.Now(), kind, w, msg, into, opts...)
}

// beginAt starts an operation that has begun already, on a message unless that is nil.
func (t *telemetry) beginAt(ctx context.Context, begun time.Time, kind trace.SpanKind, w what, msg *nats.Message, into metric.Float64Histogram, opts ...trace.SpanStartOption) *operation {
	o := &operation{t: t, span: noop.Span{}, ctx: ctx, into: into, common: w.attributes(), begun: begun}
	own := slices.Clip(o.common)
	if msg != nil {
		own = append(own, semconv.MessagingMessageBodySize(len(msg.Data)))
		if id := msg.Header.Get(jetstream.MsgIDHeader); id != "" {
			own = append(own, semconv.MessagingMessageID(id))
		}
	}
	opts = append(opts, trace.WithSpanKind(kind), trace.WithTimestamp(begun), trace.WithAttributes(own...))
	handle(contained(func() { o.ctx, o.span = t.tracer.Start(ctx, w.String(), opts...) }))
	return o
}

// end ends it with what came of it.
func (o *operation) end(err error) {
	now := time.Now()
	o.t.ends.do(func() {
		if err != nil {
			o.common = append(o.common, failure(err))
			o.span.SetAttributes(failure(err))
			o.span.SetStatus(codes.Error, err.Error())
		}
		if o.into != nil {
			o.into.Record(o.ctx, now.Sub(o.begun).Seconds(), metric.WithAttributes(o.common...))
		}
		o.span.End(trace.WithTimestamp(now))
	})
}

// sendingKey is that of an operation that Stored ends.
type sendingKey struct{}

// publish implements nats.Interceptor.
func (t *telemetry) publish(ctx context.Context, msg *nats.Message, next func(context.Context, *nats.Message) error) error {
	call := msg.Call()
	if call == nats.CallRespond || t.inbox(msg.Subject) != "" || !t.isEnabled() {
		return next(ctx, msg)
	}
	template := t.template("", msg.Subject)
	if call != nats.CallPublishAsync && call != nats.CallPublishAtomic {
		sent := t.beginSend(ctx, template, msg)
		err := t.send(sent.ctx, msg, next)
		sent.end(err)
		return err
	}
	// The message has a context as soon as it is created, and is sent until Stored knows what came of it.
	created := t.begin(ctx, trace.SpanKindProducer, what{name: "create", kind: semconv.MessagingOperationTypeCreate, template: template}, msg, nil)
	err := t.send(created.ctx, msg, func(inner context.Context, msg *nats.Message) error {
		sent := t.begin(ctx, trace.SpanKindClient, what{name: "send", kind: semconv.MessagingOperationTypeSend, template: template}, msg, t.operation,
			trace.WithLinks(trace.LinkFromContext(inner)))
		return next(context.WithValue(inner, sendingKey{}, sent), msg)
	})
	created.end(err)
	return err
}

// beginSend begins what is sent while the call lasts.
func (t *telemetry) beginSend(ctx context.Context, template string, msg *nats.Message) *operation {
	var opts []trace.SpanStartOption
	name, kind, into := "send", trace.SpanKindProducer, t.operation
	switch call := msg.Call(); {
	case call == nats.CallDeadLetter:
		if last := t.failed.take(msg.Header); last.IsValid() {
			ctx = trace.ContextWithSpanContext(ctx, last)
			opts = append(opts, trace.WithLinks(trace.Link{SpanContext: last}))
		}
	case call == nats.CallRequest: // of RequestMany, which sends it later
		name, kind, into = "request", trace.SpanKindClient, nil
	case msg.Reply != "": // a request whose answer is waited for otherwise
		kind = trace.SpanKindClient
	}
	if link := t.foreign(ctx, msg.Header); link.IsValid() {
		opts = append(opts, trace.WithLinks(trace.Link{SpanContext: link}))
	}
	return t.begin(ctx, kind, what{name: name, kind: semconv.MessagingOperationTypeSend, template: template}, msg, into, opts...)
}

// request implements nats.Interceptor.
func (t *telemetry) request(ctx context.Context, msg *nats.Message, next func(context.Context, *nats.Message) (*nats.Message, error)) (*nats.Message, error) {
	if !t.isEnabled() {
		return next(ctx, msg)
	}
	var answer *nats.Message
	template := t.template("", msg.Subject)
	asked := t.begin(ctx, trace.SpanKindClient, what{name: "request", kind: semconv.MessagingOperationTypeSend, template: template}, msg, t.operation)
	err := t.send(asked.ctx, msg, func(ctx context.Context, msg *nats.Message) (err error) {
		answer, err = next(ctx, msg)
		return err
	})
	asked.end(err)
	return answer, err
}

// stored implements nats.Interceptor.
func (t *telemetry) stored(ctx context.Context, _ *nats.Message, _ *jetstream.PubAck, err error) {
	if sent, ok := ctx.Value(sendingKey{}).(*operation); ok {
		sent.end(err)
	}
}

// send calls next with the context in the headers of the message; where these are what is refused, without.
func (t *telemetry) send(ctx context.Context, msg *nats.Message, next func(context.Context, *nats.Message) error) error {
	added := t.inject(ctx, msg)
	err := next(ctx, msg)
	if len(added) == 0 || !errors.Is(err, nats.ErrPayloadTooLarge) && !errors.Is(err, natsgo.ErrHeadersNotSupported) {
		return err
	}
	for _, name := range added {
		delete(msg.Header, name)
	}
	return next(ctx, msg)
}

// handlingKey is in the contexts of handlers.
type handlingKey struct{}

// handle implements nats.Interceptor.
func (t *telemetry) handle(msg *nats.Message, next nats.Handler) error {
	if !t.isEnabled() {
		return next(msg)
	}
	return t.handleSeen(msg, next)
}

func (t *telemetry) handleSeen(msg *nats.Message, next nats.Handler) (err error) {
	o, of := t.beginDelivery(msg, "process", t.process)
	returned := false
	defer func() {
		if !returned {
			err = cmp.Or(err, nats.ErrHandlerPanic)
		}
		if err != nil && of != (delivery{}) {
			t.failed.put(of, o.span.SpanContext())
		}
		o.end(err)
	}()
	err = next(msg.WithContext(context.WithValue(o.ctx, handlingKey{}, true)))
	returned = true
	return err
}

// Start begins the span of a message that was pulled or ranged over: nobody else sees how it is handled. The span is the
// caller's to end, and the context is for what is done meanwhile. The name is that of the operation, "process" if it is
// empty; as in other spans the destination follows it.
func Start(msg *nats.Message, name string) (context.Context, trace.Span) {
	if msg == nil {
		return context.Background(), noop.Span{}
	}
	t, ok := msg.Value(telemetryKey{}).(*telemetry)
	if !ok { // the client has none, or a test has made the message
		t = newTelemetry(options{linkAfter: time.Hour})
	}
	o, _ := t.beginDelivery(msg, cmp.Or(name, "process"), nil)
	return o.ctx, o.span
}

// beginDelivery begins what is done with a received message, and tells which of a stream's it is.
func (t *telemetry) beginDelivery(msg *nats.Message, name string, into metric.Float64Histogram) (o *operation, of delivery) {
	ctx, w, of, opts := t.delivered(msg)
	w.name, w.kind = name, semconv.MessagingOperationTypeProcess
	kind := trace.SpanKindConsumer
	if of == (delivery{}) && msg.Reply != "" {
		kind = trace.SpanKindServer
	}
	return t.begin(ctx, kind, w, msg, into, opts...), of
}

// delivered returns what belongs to the spans of a received message: its publish as the parent or as a link, and where it
// comes from.
func (t *telemetry) delivered(msg *nats.Message) (ctx context.Context, w what, of delivery, opts []trace.SpanStartOption) {
	ctx = msg.Context()
	if trace.SpanContextFromContext(ctx).IsValid() { // of who subscribed
		ctx = trace.ContextWithSpanContext(ctx, trace.SpanContext{})
	}
	ctx = t.extract(ctx, msg.Header)
	w.template, w.group = t.template(msg.Pattern(), msg.Subject), msg.Queue()
	opts = make([]trace.SpanStartOption, 0, 6)
	if meta, err := msg.Metadata(); err == nil {
		if meta.Consumer != "" {
			of = delivery{meta.Stream, meta.Consumer, meta.Sequence.Stream}
			w.group = meta.Consumer
			opts = append(opts, trace.WithAttributes(attribute.Int64("messaging.nats.message.delivery_count", int64(meta.NumDelivered))))
		}
		if published := trace.SpanContextFromContext(ctx); time.Since(meta.Timestamp) > t.linkAfter && published.IsValid() {
			opts = append(opts, trace.WithNewRoot(), trace.WithLinks(trace.Link{SpanContext: published}))
		}
	}
	return ctx, w, of, opts
}

// settled implements nats.Interceptor. What a handler says is part of it, and what is said for it of the message's trace.
func (t *telemetry) settled(msg *nats.Message, s nats.Settlement) {
	if !t.isEnabled() {
		return
	}
	ctx, w, _, opts := t.delivered(msg)
	if handler := msg.Context(); handler.Value(handlingKey{}) != nil {
		ctx, opts = handler, nil
	}
	w.name, w.kind = s.Op, semconv.MessagingOperationTypeSettle
	t.beginAt(ctx, time.Now().Add(-s.Took), trace.SpanKindClient, w, msg, t.operation, opts...).end(s.Err)
}

// maxLinks is how many of a pull's messages its span links to: as many as the SDK keeps.
const maxLinks = 128

// received implements nats.Interceptor. The destination is what all messages have.
func (t *telemetry) received(ctx context.Context, p nats.Pull) {
	if !t.isEnabled() {
		return
	}
	w := what{name: "receive", kind: semconv.MessagingOperationTypeReceive, group: p.Consumer}
	var links []trace.Link
	for i, msg := range p.Messages {
		template := t.template("", msg.Subject)
		if i == 0 {
			w.template = template
		} else if template != w.template {
			w.template = ""
		}
		if len(links) < maxLinks {
			if published := trace.SpanContextFromContext(t.extract(context.Background(), msg.Header)); published.IsValid() {
				links = append(links, trace.Link{SpanContext: published})
			}
		}
	}
	t.beginAt(ctx, time.Now().Add(-p.Took), trace.SpanKindClient, w, nil, t.operation,
		trace.WithLinks(links...), trace.WithAttributes(semconv.MessagingBatchMessageCount(len(p.Messages)))).end(p.Err)
}
