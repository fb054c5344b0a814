// Package telemetry sends spans away and has metrics collected.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
)

// Start sets the process's providers. Spans go where OTEL_TRACES_EXPORTER says, "otlp", "console" or "none", which is
// the default; the other variables of OpenTelemetry hold, too. Metrics wait for Prometheus in its default registry.
// What it returns sends what is left.
func Start(ctx context.Context, service string) (shutdown func(context.Context) error, err error) {
	res, err := resource.New(ctx, resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", service)), resource.WithFromEnv())
	if err != nil {
		return nil, err
	}
	options := []trace.TracerProviderOption{trace.WithResource(res)}
	switch exporter := os.Getenv("OTEL_TRACES_EXPORTER"); exporter {
	case "otlp":
		otlp, err := otlptracehttp.New(ctx)
		if err != nil {
			return nil, err
		}
		options = append(options, trace.WithBatcher(otlp))
	case "console":
		console, err := stdouttrace.New()
		if err != nil {
			return nil, err
		}
		options = append(options, trace.WithSyncer(console))
	case "", "none":
	default:
		return nil, fmt.Errorf("OTEL_TRACES_EXPORTER is %q and not otlp, console or none", exporter)
	}
	scraped, err := prometheus.New()
	if err != nil {
		return nil, err
	}
	traces := trace.NewTracerProvider(options...)
	metrics := metric.NewMeterProvider(metric.WithResource(res), metric.WithReader(scraped))
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { slog.Error("telemetry", "error", err) }))
	otel.SetTextMapPropagator(propagation.TraceContext{})
	otel.SetTracerProvider(traces)
	otel.SetMeterProvider(metrics)
	return func(ctx context.Context) error { return errors.Join(traces.Shutdown(ctx), metrics.Shutdown(ctx)) }, nil
}
