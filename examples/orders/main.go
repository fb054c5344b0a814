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

func run(ctx context.Context, role string) error {
	cfg, err := nats.LoadConfig("")
	if err != nil {
		return err
	}
	flush, err := telemetry.Start(ctx, "orders-"+role)
	if err != nil {
		return err
	}
	// The probes answer before there is a connection: who waits for the server is alive, and not ready.
	client, err := nats.NewClientContext(ctx, cfg, nats.WithBackgroundConnect(), nats.WithLogger(slog.Default()),
		otelnats.New(otelnats.WithSubjectTemplate(order.Placed)))
	if err != nil {
		return err
	}
	failed, probes := make(chan error, 2), http.NewServeMux()
	probes.Handle("/livez", client.HealthHandler())
	probes.Handle("/metrics", promhttp.Handler())
	ops, err := serve(cmp.Or(os.Getenv("ORDERS_OPS_ADDR"), ":9090"), probes, failed)
	if err != nil {
		return err
	}
	start, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	bus, err := order.Declare(start, client)
	if err != nil {
		return err
	}
	var stop func(context.Context) error // takes no more, and finishes what was taken
	var ready []nats.HealthOption
	if role == "api" {
		front, err := serve(cmp.Or(os.Getenv("ORDERS_ADDR"), ":8080"), otelhttp.NewHandler(api.Handler(bus), role), failed)
		if err != nil {
			return err
		}
		stop = front.Shutdown
	} else {
		consumption, err := worker.Start(ctx, bus)
		if err != nil {
			return err
		}
		stop, ready = consumption.Stop, append(ready, nats.WithRequired(worker.Consumer))
	}
	probes.Handle("/readyz", client.HealthHandler(ready...))

	select { // until SIGTERM
	case <-ctx.Done():
	case err = <-failed:
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.DrainTimeout)
	defer cancel()
	return errors.Join(err,
		stop(end),            // requests in flight are answered, orders in hand are handled
		client.Shutdown(end), // not ready from here on; what was acknowledged and published is sent
		flush(end),           // the spans of all that
		ops.Shutdown(end),    // the probes, last
	)
}

// serve serves h at an address, and tells when it does no more.
func serve(address string, h http.Handler, failed chan<- error) (*http.Server, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	slog.Info("listening", "address", listener.Addr().String())
	server := &http.Server{Handler: h, ReadTimeout: 10 * time.Second}
	go func() { failed <- server.Serve(listener) }()
	return server, nil
}
