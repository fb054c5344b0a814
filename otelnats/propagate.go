package otelnats

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	natsgo "github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// carrier are headers whose names count as they are written, but for those of others, who may write them otherwise.
type carrier natsgo.Header

func (c carrier) Get(key string) string {
	if values, ok := c[key]; ok && len(values) > 0 {
		return values[0]
	}
	for name, values := range c {
		if strings.EqualFold(name, key) && len(values) > 0 {
			return values[0]
		}
	}
	return ""
}

func (c carrier) Set(key, value string) { c[key] = []string{value} }

func (c carrier) Keys() []string { return slices.Collect(maps.Keys(c)) }

// extract returns ctx with what the headers carry.
func (t *telemetry) extract(ctx context.Context, header natsgo.Header) context.Context {
	if len(header) == 0 {
		return ctx
	}
	p := t.propagator()
	if isTrusted(p) {
		return p.Extract(ctx, carrier(header))
	}
	var extracted context.Context
	own := maps.Clone(header) // it may be read longer than we wait
	if !t.wire.do(func() { extracted = p.Extract(ctx, carrier(own)) }) || extracted == nil {
		return ctx
	}
	return extracted
}

// foreign returns the context that the headers have and that is not of the trace of ctx: that of a message which is sent
// again, or of who created it elsewhere.
func (t *telemetry) foreign(ctx context.Context, header natsgo.Header) trace.SpanContext {
	has := trace.SpanContextFromContext(t.extract(context.Background(), header))
	if has.TraceID() == trace.SpanContextFromContext(ctx).TraceID() {
		return trace.SpanContext{}
	}
	return has
}

// inject puts the context into the headers, and returns the names of what it has added. A context that somebody else has
// put there stays, as that of a dead letter does, whose headers are the message's.
func (t *telemetry) inject(ctx context.Context, msg *nats.Message) (added []string) {
	if call := msg.Call(); call == nats.CallDeadLetter || call != nats.CallReplay && t.foreign(ctx, msg.Header).IsValid() {
		return nil
	}
	p, own := t.propagator(), carrier{}
	if isTrusted(p) {
		p.Inject(ctx, own)
	} else if !t.wire.do(func() { p.Inject(ctx, own) }) {
		return nil
	}
	for name, values := range own {
		msg.Header[name] = values
		added = append(added, name)
	}
	return added
}

// isTrusted tells whether a propagator is one of OpenTelemetry's own, which neither block nor panic.
func isTrusted(p propagation.TextMapPropagator) bool {
	v := reflect.ValueOf(p)
	if isPlaceholder(p) {
		return true
	}
	if v.Type().PkgPath() != "go.opentelemetry.io/otel/propagation" {
		return false
	}
	if v.Kind() != reflect.Slice {
		return true
	}
	for i := range v.Len() {
		if part, ok := v.Index(i).Interface().(propagation.TextMapPropagator); !ok || !isTrusted(part) {
			return false
		}
	}
	return true
}

// delivery is one of a stream's messages at a consumer.
type delivery struct {
	stream, consumer string
	sequence         uint64
}

// failures are the last deliveries of messages that failed, for those that become dead letters.
type failures struct {
	mu    sync.Mutex
	spans map[delivery]trace.SpanContext
	order []delivery // oldest first
}

func (f *failures) put(d delivery, span trace.SpanContext) {
	if !span.IsValid() {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.spans[d]; !ok {
		if len(f.order) == backlog {
			delete(f.spans, f.order[0])
			f.order = f.order[1:]
		}
		f.order = append(f.order, d)
	}
	if f.spans == nil {
		f.spans = make(map[delivery]trace.SpanContext)
	}
	f.spans[d] = span
}

// take returns the delivery after which the message that a dead letter has the headers of was given up.
func (f *failures) take(header natsgo.Header) trace.SpanContext {
	sequence, _ := strconv.ParseUint(header.Get(nats.HeaderOriginSequence), 10, 64)
	d := delivery{header.Get(nats.HeaderOriginStream), header.Get(nats.HeaderOriginConsumer), sequence}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.spans[d]
}
