package otelnats

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

const scope = "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/otelnats"

// telemetry is what the clients with one option share.
type telemetry struct {
	options
	tracer  trace.Tracer
	meter   metric.Meter
	enabled atomic.Bool // for good
	ends    guard       // of spans
	wire    guard       // around propagators

	operation, process metric.Float64Histogram

	failed  failures
	clients clients

	mu      sync.RWMutex
	inboxes []string // the prefixes of the clients, each with its dot
}

type telemetryKey struct{}

func newTelemetry(o options) *telemetry {
	t := &telemetry{options: o, inboxes: []string{"_INBOX."}}
	tracers, meters := o.tracers, o.meters
	if tracers == nil {
		tracers = otel.GetTracerProvider()
	}
	if meters == nil {
		meters = otel.GetMeterProvider()
	}
	t.tracer = tracers.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL))
	t.meter = meters.Meter(scope, metric.WithSchemaURL(semconv.SchemaURL))
	t.enabled.Store(o.tracers != nil || o.meters != nil || o.propagators != nil)
	return t
}

// isEnabled tells whether there is anybody to see something. The providers of the process begin as placeholders.
func (t *telemetry) isEnabled() bool {
	if t.enabled.Load() {
		return true
	}
	if isPlaceholder(otel.GetTracerProvider()) && isPlaceholder(otel.GetMeterProvider()) && isPlaceholder(otel.GetTextMapPropagator()) {
		return false
	}
	t.enabled.Store(true)
	return true
}

// isPlaceholder tells whether v is what package otel has before anything is set.
func isPlaceholder(v any) bool {
	t := reflect.TypeOf(v)
	return t.Kind() == reflect.Pointer && t.Elem().PkgPath() == "go.opentelemetry.io/otel/internal/global"
}

func (t *telemetry) propagator() propagation.TextMapPropagator {
	if t.propagators != nil {
		return t.propagators
	}
	return otel.GetTextMapPropagator()
}

// template returns the name of a message's destination, or "".
func (t *telemetry) template(pattern, subject string) string {
	name := cmp.Or(pattern, subject)
	if inbox := t.inbox(name); inbox != "" {
		return inbox + ">"
	}
	if pattern != "" {
		return pattern
	}
	if i := slices.IndexFunc(t.templates, func(p string) bool { return matches(p, subject) }); i >= 0 {
		return t.templates[i]
	}
	return ""
}

// inbox returns the prefix, with its dot, of a subject that answers come on, or "".
func (t *telemetry) inbox(subject string) string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, prefix := range t.inboxes {
		if strings.HasPrefix(subject, prefix) {
			return prefix
		}
	}
	return ""
}

// matches tells whether a subject fits a pattern.
func matches(pattern, subject string) bool {
	for {
		want, moreWanted, wants := strings.Cut(pattern, ".")
		have, more, has := strings.Cut(subject, ".")
		switch {
		case want == ">":
			return true
		case want != "*" && want != have || wants != has:
			return false
		case !wants:
			return true
		}
		pattern, subject = moreWanted, more
	}
}

// what is the part of an operation that its measurement has as well: all of it comes from closed sets.
type what struct {
	name     string
	kind     attribute.KeyValue // the conventions' type
	template string
	group    string
}

func (w what) String() string { return strings.TrimRight(w.name+" "+w.template, " ") }

func (w what) attributes() []attribute.KeyValue {
	all := make([]attribute.KeyValue, 0, 8)
	all = append(all, system, semconv.MessagingOperationName(w.name), w.kind)
	if w.template != "" {
		all = append(all, semconv.MessagingDestinationTemplate(w.template))
	}
	if w.group != "" {
		all = append(all, semconv.MessagingConsumerGroupName(w.group))
	}
	return all
}

var system = semconv.MessagingSystemKey.String("nats")

// failure is the attribute of an error: its family, of which there are few.
func failure(err error) attribute.KeyValue {
	if kind := nats.KindOf(err); kind != nats.KindUnknown {
		return semconv.ErrorTypeKey.String(string(kind))
	}
	return semconv.ErrorTypeOther
}
