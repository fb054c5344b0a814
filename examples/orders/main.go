// Orders is a service to copy: orders come over HTTP, wait in a stream, and are handled by workers.
//
//	orders api      takes orders
//	orders worker   handles them
//
// README.md tells the rest.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/orders/internal/api"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/orders/internal/order"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/orders/internal/telemetry"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/orders/internal/worker"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/otelnats"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, nil)))
	if len(os.Args) != 2 || os.Args[1] != "api" && os.Args[1] != "worker" {
		fmt.Fprintln(os.Stderr, "usage: orders api|worker")
		os.Exit(2)
	}
	if err := run(ctx, os.Args[1]); err != nil {
		slog.Error("failed", "error", err)
		os.Exit(1)
	}
}

func run(signalled context.Context, role string) error {
	ctx, fail := context.WithCancelCause(signalled) // ends at a signal, or when a part of the service fails
	defer fail(nil)
	cfg, err := nats.LoadConfig("")
	if err != nil {
		return err
	}
	flush, err := telemetry.Start(ctx, "orders-"+role)
	if err != nil {
		return err
	}
	// The probes answer before there is a connection, so that a broker that is down restarts nobody.
	client, err := nats.NewClientContext(ctx, cfg, nats.WithBackgroundConnect(), nats.WithLogger(slog.Default()),
		otelnats.New(otelnats.WithSubjectTemplate(order.Placed)))
	if err != nil {
		return err
	}
	probes, required := http.NewServeMux(), []nats.HealthOption{}
	probes.Handle("/livez", client.HealthHandler())
	probes.Handle("/metrics", promhttp.Handler())
	ops, err := serve(cmp.Or(os.Getenv("ORDERS_OPS_ADDR"), ":9090"), probes, fail)
	if err != nil {
		return err
	}
	start, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	bus, err := order.Declare(start, client)
	if err != nil {
		return err
	}
	front := &http.Server{ReadHeaderTimeout: time.Second}
	if role == "api" {
		handler := otelhttp.NewHandler(api.Handler(bus), role)
		if front, err = serve(cmp.Or(os.Getenv("ORDERS_ADDR"), ":8080"), handler, fail); err != nil {
			return err
		}
	} else {
		consumption, err := worker.Start(ctx, bus)
		if err != nil {
			return err
		}
		go func() { <-consumption.Done(); fail(consumption.Err()) }()
		required = append(required, nats.WithRequired(worker.Consumer))
	}
	probes.Handle("/readyz", client.HealthHandler(required...))

	<-ctx.Done() // the worker fetches no more
	failure := context.Cause(ctx)
	slog.Info("ending", "cause", failure)
	if signalled.Err() != nil {
		failure = nil
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.DrainTimeout)
	defer cancel()
	return errors.Join(failure,
		front.Shutdown(end),  // requests in flight are answered
		client.Shutdown(end), // not ready from here on; handlers return, and their acknowledgements are sent
		flush(end),           // the spans of all that
		ops.Shutdown(end),    // the probes, last
	)
}

// serve serves h at an address, and tells when it cannot any more.
func serve(address string, h http.Handler, fail context.CancelCauseFunc) (*http.Server, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	slog.Info("listening", "address", listener.Addr().String())
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	go func() { fail(server.Serve(listener)) }()
	return server, nil
}
