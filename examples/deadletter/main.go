// Deadletter shows what becomes of messages that cannot be handled: they are tried again with growing
// pauses, then moved to a stream of dead letters with the reason, inspected there, and replayed when
// the fault is mended.
//
//	go run ./examples/deadletter
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/internal/local"
)

// prefix keeps runs on a shared server apart.
var prefix = "example-" + strings.ToLower(rand.Text()[:6])

const consumer = "billing"

// taxKnown is what is mended before the replay.
var taxKnown atomic.Bool

type order struct {
	ID      string `json:"id"`
	Country string `json:"country"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "deadletter:", err)
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
	died := make(chan struct{}, 10)
	client, err := nats.NewClientContext(ctx, &nats.Config{URLs: urls, ClusterID: "isa-cloud-cluster", JetStreamEnabled: true},
		nats.WithEventHandler(func(e nats.Event) {
			if e.Type == nats.EventDeadLetter { // the place for an alert
				died <- struct{}{}
			}
		}))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()

	// A service keeps its streams. The example deletes its own, also when Ctrl-C ends ctx.
	lasting := context.WithoutCancel(ctx)
	stream := prefix + "-ORDERS"
	if _, err := client.CreateStream(lasting, &jetstream.StreamConfig{Name: stream, Subjects: []string{prefix + ".orders.*"}}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.DeleteStream(lasting, stream)) }()
	if _, err := client.CreateConsumer(ctx, stream, &jetstream.ConsumerConfig{Name: consumer, AckPolicy: jetstream.AckExplicitPolicy}); err != nil {
		return err
	}
	for _, data := range []string{`{"id":"1","country":"DE"}`, `{"id":"2","country":"Atlantis"}`, `{"id":`, `{"id":"4","country":"FR"}`} {
		if _, err := client.PublishToStream(ctx, prefix+".orders.created", []byte(data)); err != nil {
			return err
		}
	}

	letters := stream + "_DLQ" // made by the first dead letter
	defer func() {
		if deleted := client.DeleteStream(lasting, letters); !errors.Is(deleted, nats.ErrStreamNotFound) {
			err = errors.Join(err, deleted)
		}
	}()

	// JSON makes a payload that does not decode a permanent error: no retry will mend it. Every other
	// error is tried again, here three times in all.
	billed := make(chan string, 10)
	consumption, err := client.Consume(ctx, stream, consumer, nats.JSON(func(_ context.Context, o order) error {
		if o.Country == "Atlantis" && !taxKnown.Load() {
			fmt.Printf("failed    order %s\n", o.ID)
			return fmt.Errorf("no tax rate for %s", o.Country)
		}
		fmt.Printf("billed    order %s\n", o.ID)
		billed <- o.ID
		return nil
	}), nats.WithMaxDeliver(3), nats.WithBackoff(100*time.Millisecond, 200*time.Millisecond))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, consumption.Stop(lasting)) }()
	for range 2 {
		if err := wait(ctx, died); err != nil {
			return err
		}
	}

	// The dead letters are an ordinary stream, to be read like any other.
	for msg, err := range client.ReadStream(ctx, letters) {
		if err != nil {
			return err
		}
		letter, err := nats.ReadDeadLetter(msg)
		if err != nil {
			return err
		}
		fmt.Printf("dead      %s after %d deliveries: %s\n", letter.Data, letter.Deliveries, letter.Reason)
	}

	taxKnown.Store(true)
	fmt.Println("mended    the tax rates")
	taxes := nats.WithReplayFilter(func(l *nats.DeadLetter) bool { return strings.Contains(l.Reason, "tax rate") })
	count, err := client.ReplayDeadLetters(ctx, stream, taxes, nats.WithReplayDryRun())
	if err != nil {
		return err
	}
	fmt.Printf("would     replay %d\n", count)
	if count, err = client.ReplayDeadLetters(ctx, stream, taxes, nats.WithReplayRate(10)); err != nil {
		return err
	}
	fmt.Printf("replayed  %d\n", count)
	for id := ""; id != "2"; {
		if id, err = receive(ctx, billed); err != nil {
			return err
		}
	}
	info, err := client.GetStreamInfo(ctx, letters)
	if err != nil {
		return err
	}
	fmt.Printf("left      %d dead letter, which nothing will mend\n", info.State.Msgs)
	return nil
}

func wait(ctx context.Context, c <-chan struct{}) error {
	_, err := receive(ctx, c)
	return err
}

func receive[T any](ctx context.Context, c <-chan T) (v T, err error) {
	select {
	case v = <-c:
		return v, nil
	case <-ctx.Done():
		return v, ctx.Err()
	}
}
