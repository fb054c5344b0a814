// Taskqueue shows an asynchronous task queue: a producer submits 100 tasks, and several workers, each
// with a connection of its own as in separate processes, share them as a queue group.
//
// Core NATS delivers a task at most once: one that is submitted while no worker runs is lost, as is
// one whose worker dies. Tasks that must be done go through a stream: see ../jetstream.
//
//	go run ./examples/taskqueue
package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
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

const (
	workers = 4
	tasks   = 100
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "taskqueue:", err)
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

	results := make(chan result, tasks)
	for i := range workers {
		worker, err := startWorker(ctx, urls, fmt.Sprintf("worker-%d", i+1), results)
		if err != nil {
			return err
		}
		// Close lets the worker finish what it has received.
		defer func() { err = errors.Join(err, worker.Close()) }()
	}

	begin := time.Now()
	if err := produce(ctx, urls); err != nil {
		return err
	}
	shares, seen := map[string]int{}, map[string]bool{}
	for range tasks {
		select {
		case r := <-results:
			shares[r.worker]++
			seen[r.task] = true
		case <-ctx.Done():
			return fmt.Errorf("%d of %d tasks were handled: %w", len(seen), tasks, ctx.Err())
		}
	}

	for i := range workers {
		name := fmt.Sprintf("worker-%d", i+1)
		fmt.Printf("%s  %3d tasks  %s\n", name, shares[name], strings.Repeat("#", shares[name]))
	}
	fmt.Printf("\n%d different tasks handled in %v.\n", len(seen), time.Since(begin).Round(time.Millisecond))
	return nil
}

type result struct{ worker, task string }

// produce submits the tasks and is gone.
func produce(ctx context.Context, urls []string) (err error) {
	client, err := nats.NewClientContext(ctx, &nats.Config{URLs: urls, ClusterID: "isa-cloud-cluster", ClientID: "producer"})
	if err != nil {
		return err
	}
	// Close returns when the last task has reached the server.
	defer func() { err = errors.Join(err, client.Close()) }()
	for i := range tasks {
		if err := client.Publish(ctx, subject, fmt.Appendf(nil, "task-%d", i)); err != nil {
			return err
		}
	}
	return nil
}

// startWorker joins the queue group. WithConcurrency handles two tasks at once.
func startWorker(ctx context.Context, urls []string, name string, results chan<- result) (*nats.Client, error) {
	client, err := nats.NewClientContext(ctx, &nats.Config{URLs: urls, ClusterID: "isa-cloud-cluster", ClientID: name})
	if err != nil {
		return nil, err
	}
	if _, err := client.QueueSubscribe(ctx, subject, "task-workers", func(msg *nats.Message) error {
		work(msg.Data)
		results <- result{name, string(msg.Data)}
		return nil
	}, nats.WithConcurrency(2)); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return client, nil
}

// work keeps a processor busy for a moment.
func work(task []byte) {
	sum := sha256.Sum256(task)
	for range 5_000 {
		sum = sha256.Sum256(sum[:])
	}
}
