// Queue shows a queue group: of several workers that subscribe with the same queue name, one gets
// each message. A subscription without the name, here an audit log, still gets them all.
//
//	go run ./examples/queue
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/internal/local"
)

// subject keeps runs on a shared server apart.
var subject = "example-" + strings.ToLower(rand.Text()[:6]) + ".work.tasks"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "queue:", err)
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

	const tasks = 8
	handled := make(chan string, tasks)
	for _, worker := range []string{"worker 1", "worker 2"} {
		if _, err := client.QueueSubscribe(ctx, subject, "workers", func(msg *nats.Message) error {
			handled <- fmt.Sprintf("%s  %s", worker, msg.Data)
			return nil
		}); err != nil {
			return err
		}
	}
	audited := make(chan string, tasks)
	if _, err := client.Subscribe(ctx, subject, func(msg *nats.Message) error {
		audited <- string(msg.Data)
		return nil
	}); err != nil {
		return err
	}

	for i := range tasks {
		if err := client.Publish(ctx, subject, fmt.Appendf(nil, "task-%d", i+1)); err != nil {
			return err
		}
	}

	// Both channels end up with every task: one handling each, and one record each.
	for range tasks {
		select {
		case line := <-handled:
			fmt.Println(line)
		case <-ctx.Done():
			return fmt.Errorf("waiting for the workers: %w", ctx.Err())
		}
	}
	for range tasks {
		select {
		case <-audited:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the audit log: %w", ctx.Err())
		}
	}
	fmt.Printf("\n%d tasks, each handled by one worker; the audit log saw all %d.\n", tasks, tasks)
	return nil
}
