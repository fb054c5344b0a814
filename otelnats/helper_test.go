package otelnats_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/otelnats"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errPoison = errors.New("poison")

// seen is a client and what OpenTelemetry sees of it.
type seen struct {
	*nats.Client
	server *natstest.Server
	spans  *tracetest.InMemoryExporter
	reader *sdkmetric.ManualReader
}

// observed connects a client to a server of its own.
func observed(t *testing.T, opts ...otelnats.Option) *seen {
	t.Helper()
	s := &seen{server: natstest.RunServer(t), spans: tracetest.NewInMemoryExporter(), reader: sdkmetric.NewManualReader()}
	opts = append([]otelnats.Option{
		otelnats.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSyncer(s.spans))),
		otelnats.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(s.reader))),
		otelnats.WithPropagators(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})),
		otelnats.WithSubjectTemplate("orders.*"),
	}, opts...)
	s.Client = natstest.Connect(t, s.server, nil, otelnats.New(opts...))
	return s
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// orders makes a stream.
func (s *seen) orders(t *testing.T) context.Context {
	t.Helper()
	ctx := within(t)
	_, err := s.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, AllowAtomicPublish: true})
	require.NoError(t, err)
	return ctx
}

// consume makes a consumer and consumes it.
func (s *seen) consume(t *testing.T, h nats.Handler, opts ...nats.ConsumeOption) {
	t.Helper()
	_, err := s.CreateConsumer(t.Context(), "ORDERS", &jetstream.ConsumerConfig{Name: "worker", FilterSubject: "orders.*"})
	require.NoError(t, err)
	c, err := s.Consume(t.Context(), "ORDERS", "worker", h, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Stop(context.WithoutCancel(t.Context())) })
}

// take returns the spans since, in the order in which they began, once there are so many: without those of pulls and
// acknowledgements.
func (s *seen) take(t *testing.T, n int) tracetest.SpanStubs {
	t.Helper()
	return s.takeOf(t, n, func(kind string) bool { return kind != "settle" && kind != "receive" })
}

// takeOf is take of some types of operations.
func (s *seen) takeOf(t *testing.T, n int, of func(kind string) bool) (spans tracetest.SpanStubs) {
	t.Helper()
	eventually(t, func() bool {
		spans = slices.DeleteFunc(s.spans.GetSpans(), func(span tracetest.SpanStub) bool { return !of(attrs(span)["messaging.operation.type"]) })
		return len(spans) >= n
	})
	s.spans.Reset()
	slices.SortStableFunc(spans, func(a, b tracetest.SpanStub) int { return a.StartTime.Compare(b.StartTime) })
	require.Len(t, spans, n)
	return spans
}

func eventually(t *testing.T, f func() bool) {
	t.Helper()
	require.Eventually(t, f, time.Minute, 5*time.Millisecond)
}

// attrs are those of a span, as text.
func attrs(span tracetest.SpanStub) map[string]string {
	all := map[string]string{}
	for _, a := range span.Attributes {
		all[string(a.Key)] = a.Value.String()
	}
	return all
}

// collect returns every point by its metric and attributes: a value, or the count of a histogram.
func (s *seen) collect(t *testing.T) map[string]int64 {
	t.Helper()
	var data metricdata.ResourceMetrics
	require.NoError(t, s.reader.Collect(context.Background(), &data))
	points := map[string]int64{}
	for _, scope := range data.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch d := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range d.DataPoints {
					points[m.Name+" "+p.Attributes.Encoded(encoder)] = p.Value
				}
			case metricdata.Gauge[int64]:
				for _, p := range d.DataPoints {
					points[m.Name+" "+p.Attributes.Encoded(encoder)] = p.Value
				}
			case metricdata.Histogram[float64]:
				for _, p := range d.DataPoints {
					points[m.Name+" "+p.Attributes.Encoded(encoder)] = int64(p.Count)
				}
			default:
				t.Errorf("%s is a %T", m.Name, d)
			}
		}
	}
	return points
}

var encoder = attribute.DefaultEncoder()
