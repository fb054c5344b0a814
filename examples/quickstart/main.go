// Quickstart shows what the client can do, one step after the other: events, a queue group, a
// request, a stream with a consumer, a key-value bucket and an object store.
//
//	go run ./examples/quickstart                             # localhost:4222, or an embedded server
//	go run ./examples/quickstart -url nats://other-host:4222
//
// It uses names of its own and deletes what it created, so it does no harm on a shared server.
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

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/internal/local"
)

// prefix begins every subject, stream and bucket, so that nothing of anybody else's is touched.
var prefix = "quickstart-" + strings.ToLower(rand.Text()[:6])

func main() {
	begin := time.Now()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
	fmt.Printf("\nDone in %v. What was created is deleted again, and the connection is closed.\n",
		time.Since(begin).Round(time.Millisecond))
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

	step(1, "Connect")
	client, err := nats.NewClientContext(ctx, &nats.Config{
		URLs:             urls,
		ClusterID:        "isa-cloud-cluster",
		JetStreamEnabled: true,
	})
	if err != nil {
		return err
	}
	// Close waits for handlers and sends what is still to be sent; its error says what was lost.
	defer func() { err = errors.Join(err, client.Close()) }()
	show("connected", "to server %q, %s", client.Conn().ConnectedServerName(), client.Conn().ConnectedUrlRedacted())

	t := &tour{client: client}
	// What was created is deleted at the end, also when Ctrl-C has ended ctx.
	defer func() { err = errors.Join(err, t.cleanUp(context.WithoutCancel(ctx))) }()
	for i, next := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"Publish and receive an event", t.events},
		{"Spread tasks over a queue group", t.tasks},
		{"Ask a service and get its answer", t.request},
		{"Store messages in a stream, pull and acknowledge them", t.stream},
		{"Keep configuration in a key-value bucket", t.keyValue},
		{"Distribute files by the object store", t.objects},
	} {
		step(i+2, next.title)
		if err := next.do(ctx); err != nil {
			return err
		}
	}
	return nil
}

// tour is the client that takes the steps, and how to delete what they created.
type tour struct {
	client *nats.Client
	undo   []func(context.Context) error
}

// events: every subscriber whose subject matches gets every event.
func (t *tour) events(ctx context.Context) error {
	received := make(chan *nats.Message, 1)
	sub, err := t.client.Subscribe(ctx, prefix+".events.>", func(msg *nats.Message) error {
		received <- msg
		return nil
	})
	if err != nil {
		return err
	}
	show("subscribed", "to %s", sub.Subject())

	subject := prefix + ".events.user.created"
	if err := t.client.Publish(ctx, subject, []byte(`{"user_id":"123"}`)); err != nil {
		return err
	}
	show("published", "to %s", subject)

	msg, err := receive(ctx, received)
	if err != nil {
		return err
	}
	show("received", "%s = %s", msg.Subject, msg.Data)
	return sub.Unsubscribe()
}

// tasks: each message goes to one member of the queue group.
func (t *tour) tasks(ctx context.Context) error {
	const workers, count = 3, 12
	done := make(chan int, count)
	for worker := range workers {
		if _, err := t.client.QueueSubscribe(ctx, prefix+".tasks", "workers", func(*nats.Message) error {
			done <- worker
			return nil
		}); err != nil {
			return err
		}
	}
	show("subscribed", "%d workers in the queue group %q", workers, "workers")

	for i := range count {
		if err := t.client.Publish(ctx, prefix+".tasks", fmt.Appendf(nil, "task-%d", i)); err != nil {
			return err
		}
	}
	show("published", "%d tasks", count)

	shares := make([]int, workers)
	for range count {
		worker, err := receive(ctx, done)
		if err != nil {
			return err
		}
		shares[worker]++
	}
	show("handled", "%d tasks, by worker: %v", count, shares)
	return nil
}

// request: a question with one answer, at once or not at all.
func (t *tour) request(ctx context.Context) error {
	if _, err := t.client.Subscribe(ctx, prefix+".service.ping", func(msg *nats.Message) error {
		return msg.Respond([]byte("pong"))
	}); err != nil {
		return err
	}
	show("requested", "%q", "hello")
	begin := time.Now()
	response, err := t.client.Request(ctx, prefix+".service.ping", []byte("hello"), 5*time.Second)
	if err != nil {
		return err
	}
	show("answered", "%q after %v", response.Data, time.Since(begin).Round(time.Microsecond))

	_, err = t.client.Request(ctx, prefix+".service.nobody", nil, 5*time.Second)
	if !errors.Is(err, nats.ErrNoResponders) {
		return fmt.Errorf("a request to nobody returned %v", err) //nolint:errorlint // nil is a fault, too
	}
	show("refused", "where nobody listens, at once: %v", nats.ErrNoResponders)
	return nil
}

// stream: messages outlast the server and wait for their consumers. What is created is created in
// full, whatever Ctrl-C says meanwhile, so that it is known what to delete.
func (t *tour) stream(ctx context.Context) error {
	name := prefix + "-orders"
	if _, err := t.client.CreateStream(context.WithoutCancel(ctx), &jetstream.StreamConfig{
		Name:     name,
		Subjects: []string{prefix + ".orders.>"},
		MaxAge:   30 * 24 * time.Hour,
	}); err != nil {
		return err
	}
	t.undo = append(t.undo, func(ctx context.Context) error { return t.client.DeleteStream(ctx, name) })
	show("created", "stream %s", name)

	for i := range 3 {
		ack, err := t.client.PublishToStream(ctx, prefix+".orders.created", fmt.Appendf(nil, `{"order_id":"%d"}`, 100+i))
		if err != nil {
			return err
		}
		show("stored", "as sequence %d", ack.Sequence)
	}

	if _, err := t.client.CreateConsumer(ctx, name, &jetstream.ConsumerConfig{
		Name:      "order-processor",
		AckPolicy: jetstream.AckExplicitPolicy,
	}); err != nil {
		return err
	}
	messages, err := t.client.PullMessages(ctx, name, "order-processor", 10)
	if err != nil {
		return err
	}
	for _, msg := range messages {
		if err := t.client.AckMessage(ctx, msg); err != nil {
			return err
		}
		show("pulled", "and acknowledged %s", msg.Data)
	}
	info, err := t.client.GetConsumerInfo(ctx, name, "order-processor")
	if err != nil {
		return err
	}
	show("left", "%d to pull, %d to acknowledge", info.NumPending, info.NumAckPending)
	return nil
}

// keyValue: the latest value of every key, and news of every change.
func (t *tour) keyValue(ctx context.Context) error {
	name := prefix + "-config"
	kv, err := t.client.CreateKeyValue(context.WithoutCancel(ctx), name)
	if err != nil {
		return err
	}
	t.undo = append(t.undo, func(ctx context.Context) error { return t.client.DeleteKeyValue(ctx, name) })
	show("created", "bucket %s", name)

	revision, err := kv.Put(ctx, "feature.flag", []byte("enabled"))
	if err != nil {
		return err
	}
	show("put", "feature.flag, revision %d", revision)
	entry, err := kv.Get(ctx, "feature.flag")
	if err != nil {
		return err
	}
	show("got", "%s = %s, revision %d", entry.Key(), entry.Value(), entry.Revision())

	watcher, err := kv.Watch(ctx, "feature.>", jetstream.UpdatesOnly())
	if err != nil {
		return err
	}
	if _, err := kv.Put(ctx, "feature.flag", []byte("disabled")); err != nil {
		return err
	}
	if entry, err = receive(ctx, watcher.Updates()); err != nil {
		return err
	}
	show("watched", "%s = %s, revision %d", entry.Key(), entry.Value(), entry.Revision())
	return watcher.Stop()
}

// objects: content of any size, checked against its digest.
func (t *tour) objects(ctx context.Context) error {
	name := prefix + "-artifacts"
	store, err := t.client.CreateObjectStore(context.WithoutCancel(ctx), name)
	if err != nil {
		return err
	}
	t.undo = append(t.undo, func(ctx context.Context) error { return t.client.DeleteObjectStore(ctx, name) })
	show("created", "bucket %s", name)

	report := slices.Repeat([]byte("NATS "), 100_000)
	if _, err := store.PutBytes(ctx, "report.pdf", report); err != nil {
		return err
	}
	show("uploaded", "report.pdf, %d bytes", len(report))
	data, err := store.GetBytes(ctx, "report.pdf")
	if err != nil {
		return err
	}
	show("downloaded", "report.pdf, the bytes uploaded: %t", slices.Equal(data, report))

	list, err := store.List(ctx)
	if err != nil {
		return err
	}
	for object := range list {
		show("listed", "%s, %d bytes in %d chunks", object.Name, object.Size, object.Chunks)
	}
	return nil
}

// receive waits for the next value of a channel, but no longer than ctx.
func receive[T any](ctx context.Context, values <-chan T) (T, error) {
	select {
	case value, ok := <-values:
		if !ok { // a watcher's channel ends with its context
			return value, errors.New("nothing received: the channel is closed")
		}
		return value, nil
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("nothing received: %w", context.Cause(ctx))
	}
}

// cleanUp deletes what was created, the last first.
func (t *tour) cleanUp(ctx context.Context) error {
	var errs []error
	for _, undo := range slices.Backward(t.undo) {
		errs = append(errs, undo(ctx))
	}
	return errors.Join(errs...)
}

func step(n int, title string) { fmt.Printf("%d. %s\n", n, title) }

func show(what, format string, args ...any) {
	fmt.Printf("   %-11s %s\n", what, fmt.Sprintf(format, args...))
}
