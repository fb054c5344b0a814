// Taskqueue shows a task queue that loses nothing: a producer stores 100 tasks in a stream, and several
// workers, each with a connection of its own as in separate processes, share them. Two tasks fail at
// first and are tried again, and a worker that leaves in the middle hands back what it has not begun.
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

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/internal/local"
)

// prefix keeps runs on a shared server apart.
var prefix = "example-" + strings.ToLower(rand.Text()[:6])

const (
	workers = 4
	tasks   = 100
	group   = "task-workers"
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
	client, err := connect(ctx, urls, "producer")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()

	// A service keeps its stream. The example deletes its own, also when Ctrl-C ends ctx.
	lasting := context.WithoutCancel(ctx)
	stream := prefix + "-TASKS"
	if _, err := client.CreateStream(lasting, &jetstream.StreamConfig{
		Name:      stream,
		Subjects:  []string{prefix + ".tasks"},
		Retention: jetstream.WorkQueuePolicy, // a task that is done is deleted
	}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.DeleteStream(lasting, stream)) }()
	if _, err := client.CreateConsumer(ctx, stream, &jetstream.ConsumerConfig{
		Name:      group,
		AckPolicy: jetstream.AckExplicitPolicy,
		AckWait:   5 * time.Second,
	}); err != nil {
		return err
	}

	// The tasks are stored before any worker runs, in one go.
	var batch []*nats.Message
	for i := range tasks {
		batch = append(batch, &nats.Message{Subject: prefix + ".tasks", Data: fmt.Appendf(nil, "task-%d", i)})
	}
	if _, err := client.PublishBatch(ctx, batch); err != nil {
		return err
	}
	fmt.Printf("stored    %d tasks\n", tasks)

	results := make(chan result, 2*tasks)
	begin := time.Now()
	for i := range workers {
		worker, consumption, err := startWorker(ctx, urls, stream, fmt.Sprintf("worker-%d", i+1), results)
		if err != nil {
			return err
		}
		// Close lets the worker finish what it has begun, and hands the rest back.
		defer func() { err = errors.Join(err, worker.Close()) }()
		if i == 0 {
			time.AfterFunc(20*time.Millisecond, func() { _ = consumption.Stop(lasting) }) // goes home early
		}
	}
	shares, seen := map[string]int{}, map[string]bool{}
	for len(seen) < tasks {
		select {
		case r := <-results:
			shares[r.worker]++
			seen[r.task] = true
		case <-ctx.Done():
			return fmt.Errorf("%d of %d tasks were done: %w", len(seen), tasks, ctx.Err())
		}
	}
	for i := range workers {
		name := fmt.Sprintf("worker-%d", i+1)
		fmt.Printf("%s  %3d tasks  %s\n", name, shares[name], strings.Repeat("#", shares[name]))
	}
	fmt.Printf("\n%d different tasks done in %v.\n", len(seen), time.Since(begin).Round(time.Millisecond))
	return nil
}

func connect(ctx context.Context, urls []string, name string) (*nats.Client, error) {
	return nats.NewClientContext(ctx, &nats.Config{
		URLs: urls, ClusterID: "isa-cloud-cluster", ClientID: name, JetStreamEnabled: true,
	})
}

type result struct{ worker, task string }

// startWorker does two tasks at once. A task is done when the handler returns nil; after an error it
// comes again.
func startWorker(ctx context.Context, urls []string, stream, name string, results chan<- result) (*nats.Client, *nats.Consumption, error) {
	client, err := connect(ctx, urls, name)
	if err != nil {
		return nil, nil, err
	}
	consumption, err := client.Consume(ctx, stream, group, func(msg *nats.Message) error {
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		if task := string(msg.Data); (task == "task-7" || task == "task-42") && meta.NumDelivered == 1 {
			return errors.New("the database is busy")
		}
		work(msg.Data)
		results <- result{name, string(msg.Data)}
		return nil
	}, nats.WithWorkers(2), nats.WithBackoff(100*time.Millisecond, time.Second, 10*time.Second))
	if err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	return client, consumption, nil
}

// work keeps a processor busy for a moment.
func work(task []byte) {
	sum := sha256.Sum256(task)
	for range 20_000 {
		sum = sha256.Sum256(sum[:])
	}
}
