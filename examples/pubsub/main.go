// Pubsub shows publish/subscribe with wildcards: every subscription whose subject matches gets its
// own copy of an event. A * stands for one token, a > for one or more at the end.
//
//	go run ./examples/pubsub
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/internal/local"
)

// prefix keeps runs on a shared server apart, and away from real events.
var prefix = "example-" + strings.ToLower(rand.Text()[:6]) + "."

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "pubsub:", err)
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
	client, err := nats.NewClientContext(ctx, &nats.Config{URLs: urls, ClusterID: "isa-cloud-cluster"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()

	// A handler runs for one message at a time. An error it returns goes to the client's logger and
	// event handler, and the subscription lives on.
	patterns := []string{"events.>", "events.*.created", "events.order.*", "events.order.created"}
	type delivery struct{ pattern, subject string }
	deliveries := make(chan delivery, 16) // room for all: a handler that waits for a reader holds Close up
	for _, pattern := range patterns {
		if _, err := client.Subscribe(ctx, prefix+pattern, func(msg *nats.Message) error {
			deliveries <- delivery{pattern, strings.TrimPrefix(msg.Subject, prefix)}
			return nil
		}); err != nil {
			return err
		}
	}

	subjects := []string{"events.user.created", "events.order.created", "events.order.shipped", "events.order.shipped.confirmed"}
	for _, subject := range subjects {
		if err := client.PublishJSON(ctx, prefix+subject, map[string]any{"id": "123", "time": time.Now()}); err != nil {
			return err
		}
	}

	const expected = 4 + 2 + 2 + 1
	got := map[string][]string{}
	for range expected {
		select {
		case d := <-deliveries:
			got[d.pattern] = append(got[d.pattern], d.subject)
		case <-ctx.Done():
			return fmt.Errorf("waiting for %d deliveries, got %v: %w", expected, got, ctx.Err())
		}
	}

	fmt.Printf("Published %d events. The subscriptions got:\n\n", len(subjects))
	for _, subject := range subjects {
		fmt.Println(subject)
		for _, pattern := range patterns {
			if slices.Contains(got[pattern], subject) {
				fmt.Println("    ->", pattern)
			}
		}
	}
	return nil
}
