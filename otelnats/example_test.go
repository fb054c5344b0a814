package otelnats_test

import (
	"context"
	"fmt"

	"github.com/nats-io/nats-server/v2/server"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/otelnats"
)

// A message and its handling are one trace.
func ExampleNew() {
	embedded, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT})
	if err != nil {
		fmt.Println(err)
		return
	}
	embedded.Start()
	defer embedded.WaitForShutdown()
	defer embedded.Shutdown()

	exporter := tracetest.NewInMemoryExporter() // a service has one of OTLP, and sets both for the process
	client, err := nats.NewClient(&nats.Config{URLs: []string{embedded.ClientURL()}}, otelnats.New(
		otelnats.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))),
		otelnats.WithPropagators(propagation.TraceContext{}),
		otelnats.WithSubjectTemplate("orders.*"),
	))
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	_, err = client.Subscribe(ctx, "orders.*", func(*nats.Message) error { return nil })
	if err == nil {
		err = client.Publish(ctx, "orders.4711", []byte("an espresso"))
	}
	if err == nil {
		err = client.Close() // the handler has returned then
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	names := map[string]sdktrace.ReadOnlySpan{}
	for _, span := range exporter.GetSpans().Snapshots() {
		names[span.Name()] = span
	}
	fmt.Println(names["process orders.*"].Parent().SpanID() == names["send orders.*"].SpanContext().SpanID())
	// Output: true
}
