// Consul shows service discovery: the client asks Consul for the NATS servers and falls back to its
// URLs when Consul is absent or knows none.
//
//	go run ./examples/consul                  # with $CONSUL_HTTP_ADDR, or an agent at 127.0.0.1:8500
//
// To see it find a server, start both and register the one with the other:
//
//	nats-server --port 4333 &
//	consul agent -dev &
//	consul services register -name nats-service -address 127.0.0.1 -port 4333
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/internal/local"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "consul:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	urls, stopServer, err := local.Server()
	if err != nil {
		return err
	}
	defer stopServer()

	cfg := &nats.Config{
		URLs:        urls, // the fallback
		ClusterID:   "isa-cloud-cluster",
		UseConsul:   true,
		ServiceName: "nats-service",
		Consul:      nats.ConsulConfig{Timeout: time.Second}, // Address is empty: $CONSUL_HTTP_ADDR holds
	}
	agent := cmp.Or(os.Getenv("CONSUL_HTTP_ADDR"), "127.0.0.1:8500")
	fmt.Printf("Asking Consul at %s for the service %q.\n", agent, cfg.ServiceName)

	// The logger warns of a fallback and of instances that were skipped. The event handler is for
	// code that wants to know: a fallback comes before the connection that it led to.
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelWarn}))
	events := make(chan nats.Event, 16)
	client, err := nats.NewClientContext(ctx, cfg, nats.WithLogger(log), nats.WithEventHandler(func(e nats.Event) {
		select {
		case events <- e:
		default: // only the first events matter here
		}
	}))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()

	source := "which Consul named"
	for connected := false; !connected; {
		select {
		case e := <-events:
			switch e.Type {
			case nats.EventServersFallback:
				source = "one of the configured URLs"
				fmt.Println("Falling back to the configured URLs:", e.Err)
			case nats.EventConnected:
				connected = true
				fmt.Printf("Connected to %s, %s.\n", e.Server, source)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}

	begin := time.Now()
	if err := client.Ping(ctx); err != nil {
		return err
	}
	fmt.Printf("A round trip takes %v.\n", time.Since(begin).Round(time.Microsecond))
	return nil
}
