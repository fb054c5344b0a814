// Package otelnats lets OpenTelemetry see what a client of NATS does. One option switches it on:
//
//	client, err := nats.NewClient(cfg, otelnats.New())
//
// Spans follow the conventions for messaging: a publish is "send orders.*", its handling "process orders.*" in the same
// trace, a request one span of a client and one of a server, and pulls and acknowledgements have theirs. Metrics are durations, and the counters of nats.Stats;
// their labels come from closed sets, however many subjects there are.
//
// Providers and propagator are those of the process (package otel) unless others are given; they may be set later than
// the client is made, and until then the client works as without this package. What they do wrong stays theirs: a
// propagator or exporter that panics or blocks fails no call, and holds up none for longer than 200 ms, once.
//
// The conventions are in development, and so is this module: names of spans, metrics and attributes may change with
// them.
package otelnats

import (
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

// WithPropagators carries traces in the headers of messages by p, in the place of the process's propagator. Baggage
// travels only where p carries it.
func WithPropagators(p propagation.TextMapPropagator) Option {
	return func(o *options) { o.propagators = p }
}

// WithLinkAfter sets for how long after its publish the delivery of a stream's message belongs to the same trace. A later
// one begins a trace of its own, with a link. The default is an hour; with 0 every delivery has its own.
func WithLinkAfter(d time.Duration) Option { return func(o *options) { o.linkAfter = d } }

// WithSubjectTemplate names the subjects of messages by patterns, such as orders.*: the first that fits is the
// destination in spans and metrics. Others are not named, unless what the message was subscribed by does, so that there
// are no more series than patterns. It may be given several times.
func WithSubjectTemplate(patterns ...string) Option {
	return func(o *options) { o.templates = append(o.templates, patterns...) }
}

// New returns an option that lets OpenTelemetry see the client. Clients may share it; then their counters add up, and go on
// when one of them is closed.
func New(opts ...Option) nats.Option {
	o := options{linkAfter: time.Hour}
	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}
	t := newTelemetry(o)
	t.durations()
	return nats.WithOptions(
		nats.WithInterceptor(nats.Interceptor{
			Publish: t.publish, Stored: t.stored, Request: t.request, Handle: t.handle,
			Received: t.received, Settled: t.settled, Enabled: t.isEnabled,
		}),
		nats.WithValue(telemetryKey{}, t),
		nats.WithStart(t.start),
	)
}
