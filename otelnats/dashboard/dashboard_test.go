// Package dashboard has a dashboard for Grafana, nats.json, and the tests of its queries.
package dashboard

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/otlptranslator"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/otelnats"
)

// queries returns those of the dashboard, with values in the place of Grafana's variables.
func queries(t *testing.T) (all []string) {
	t.Helper()
	data, err := os.ReadFile("nats.json")
	require.NoError(t, err)
	var board struct {
		Panels []struct {
			Targets []struct{ Expr string }
		}
	}
	require.NoError(t, json.Unmarshal(data, &board))
	values := strings.NewReplacer("$job", ".*", "$__rate_interval", "1m")
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			all = append(all, values.Replace(target.Expr))
		}
	}
	require.Greater(t, len(all), 10)
	return all
}

// service is one whose handlers and calls fail now and then. It returns the URL of its metrics.
func service(t *testing.T) string {
	t.Helper()
	registry := prometheus.NewRegistry()
	reader, err := exporter.New(exporter.WithRegisterer(registry), exporter.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes))
	require.NoError(t, err)
	client := natstest.Connect(t, natstest.RunServer(t), nil, otelnats.New(
		otelnats.WithMeterProvider(metric.NewMeterProvider(metric.WithReader(reader))), otelnats.WithSubjectTemplate("orders.*")))
	ctx, cancel := context.WithCancel(context.Background())
	_, err = client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.*"}})
	require.NoError(t, err)
	_, err = client.CreateConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{Name: "worker"})
	require.NoError(t, err)
	_, err = client.Consume(ctx, "ORDERS", "worker", func(*nats.Message) error { return errors.New("out of stock") }, nats.WithBackoff(time.Second))
	require.NoError(t, err)
	over := make(chan struct{})
	go func() {
		defer close(over)
		for tick := time.Tick(50 * time.Millisecond); ctx.Err() == nil; <-tick {
			_, _ = client.PublishToStream(ctx, "orders.1", nil)
			_, _ = client.Request(ctx, "nobody", nil, time.Second)
		}
	}()
	web := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	t.Cleanup(func() {
		cancel()
		<-over
		web.Close()
	})
	return web.URL
}

var metricName = regexp.MustCompile(`\b(?:nats_client|messaging)_[a-z_]+\{`)

// Every metric that the dashboard asks for is one of a service.
func TestDashboardNames(t *testing.T) {
	t.Parallel()
	metrics := service(t)
	var names []string
	for _, query := range queries(t) {
		found := metricName.FindAllString(query, -1)
		require.NotEmpty(t, found, query)
		names = append(names, found...)
	}
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		text, err := get(metrics)
		require.NoError(t, err)
		for _, name := range names {
			assert.Regexp(t, "(?m)^"+strings.TrimSuffix(name, "{")+`[{ ]`, text)
		}
	}, time.Minute, 100*time.Millisecond)
}

func get(address string) (string, error) {
	resp, err := http.Get(address)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}
