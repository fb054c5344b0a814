package nats_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// exampleOrders is exampleClient with a stream, and a consumer of it.
func exampleOrders(opts ...nats.Option) (client *nats.Client, done func()) {
	client, done = exampleClient(opts...)
	ctx := context.Background()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, AllowAtomicPublish: true})
	if err == nil {
		_, err = client.CreateConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{Name: "billing", AckPolicy: jetstream.AckExplicitPolicy})
	}
	if err != nil {
		panic(err)
	}
	return client, done
}

func exampleStore(client *nats.Client, subject string, payloads ...string) {
	for _, payload := range payloads {
		if _, err := client.PublishToStream(context.Background(), subject, []byte(payload)); err != nil {
			panic(err)
		}
	}
}

// EnsureStream adapts what is there, and deletes nothing.
func ExampleClient_EnsureStream() {
	client, done := exampleClient()
	defer done()
	ctx := context.Background()

	cfg := &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, MaxMsgs: 1000}
	for _, most := range []int64{1000, 2000, 500} {
		cfg.MaxMsgs = most
		_, err := client.EnsureStream(ctx, cfg)
		var drift *nats.DriftError
		if errors.As(err, &drift) {
			fmt.Println(drift.Drifts[0])
			continue
		}
		fmt.Println(most, err)
	}
	// Output:
	// 1000 <nil>
	// 2000 <nil>
	// MaxMsgs 2000 -> 500 (deletes messages sooner)
}

// A nil error means stored, once: the second publish of an ID stores nothing.
func ExampleClient_PublishToStream() {
	client, done := exampleOrders()
	defer done()
	ctx := context.Background()

	for range 2 {
		ack, err := client.PublishToStream(ctx, "orders.created", []byte("123"), jetstream.WithMsgID("order-123"))
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("sequence %d of %s, known before: %t\n", ack.Sequence, ack.Stream, ack.Duplicate)
	}
	_, err := client.PublishToStream(ctx, "invoices.created", nil)
	fmt.Println(errors.Is(err, nats.ErrNoStream))
	// Output:
	// sequence 1 of ORDERS, known before: false
	// sequence 1 of ORDERS, known before: true
	// true
}

func ExampleClient_PublishAsync() {
	client, done := exampleOrders()
	defer done()
	ctx := context.Background()

	future, err := client.PublishAsync(ctx, &nats.Message{Subject: "orders.created", Data: []byte("123")})
	if err != nil {
		fmt.Println(err)
		return
	}
	select { // it resolves in any case
	case ack := <-future.Ok():
		fmt.Println("stored with sequence", ack.Sequence)
	case err := <-future.Err():
		fmt.Println(err)
	}
	// Output:
	// stored with sequence 1
}

// One that fails does not stop the others.
func ExampleClient_PublishBatch() {
	client, done := exampleOrders()
	defer done()

	acks, err := client.PublishBatch(context.Background(), []*nats.Message{
		{Subject: "orders.created", Data: []byte("1")},
		(&nats.Message{Subject: "orders.created", Data: []byte("2")}).With(jetstream.WithExpectLastSequence(77)),
		{Subject: "orders.created", Data: []byte("3")},
	})
	var failed *nats.BatchError
	if errors.As(err, &failed) {
		fmt.Printf("message %d: %t\n", failed.Failed[0].Index, errors.Is(failed.Failed[0].Err, nats.ErrConflict))
	}
	fmt.Println(acks[0].Sequence, acks[1], acks[2].Sequence)
	// Output:
	// message 1: true
	// 1 <nil> 2
}

func ExampleClient_PublishSeq() {
	client, done := exampleOrders()
	defer done()

	lines := func(yield func(*nats.Message) bool) { // of a file, say
		for _, line := range []string{"a", "b", "c"} {
			if !yield(&nats.Message{Subject: "orders.created", Data: []byte(line)}) {
				return
			}
		}
	}
	for ack, err := range client.PublishSeq(context.Background(), lines) {
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println("stored", ack.Sequence)
	}
	// Output:
	// stored 1
	// stored 2
	// stored 3
}

// All or none, next to each other.
func ExampleClient_PublishAtomic() {
	client, done := exampleOrders()
	defer done()

	ack, err := client.PublishAtomic(context.Background(), []*nats.Message{
		{Subject: "orders.created", Data: []byte("123")},
		{Subject: "orders.paid", Data: []byte("123")},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%d messages, the last one with sequence %d\n", ack.Size, ack.Sequence)
	// Output:
	// 2 messages, the last one with sequence 2
}

// PullMessages waits for the first message and takes what is there.
func ExampleClient_PullMessages() {
	client, done := exampleOrders()
	defer done()
	ctx := context.Background()
	exampleStore(client, "orders.created", "1", "2")

	messages, err := client.PullMessages(ctx, "ORDERS", "billing", 100)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, msg := range messages {
		if err := client.AckMessage(ctx, msg); err != nil { // confirmed by the server
			fmt.Println(err)
			return
		}
		fmt.Printf("billed %s\n", msg.Data)
	}
	// Output:
	// billed 1
	// billed 2
}

// What fails comes back, after pauses that grow, until it succeeds.
func ExampleClient_Consume() {
	client, done := exampleOrders()
	defer done()
	ctx := context.Background()
	exampleStore(client, "orders.created", "1")

	handled := make(chan struct{})
	consumption, err := client.Consume(ctx, "ORDERS", "billing", func(msg *nats.Message) error {
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		if meta.NumDelivered == 1 {
			fmt.Println("the tax office is closed")
			return errors.New("closed")
		}
		fmt.Printf("billed %s at delivery %d\n", msg.Data, meta.NumDelivered)
		close(handled)
		return nil
	}, nats.WithBackoff(10*time.Millisecond))
	if err != nil {
		fmt.Println(err)
		return
	}
	<-handled
	if err := consumption.Stop(ctx); err != nil { // the handler's message is acknowledged
		fmt.Println(err)
	}
	lag, err := consumption.Lag(ctx)
	fmt.Println(lag, "left", err)
	// Output:
	// the tax office is closed
	// billed 1 at delivery 2
	// 0 left <nil>
}

// What no retry will mend is put aside with its reason, and published again when the reason is gone.
func ExampleClient_ReplayDeadLetters() {
	dead := make(chan struct{}, 1)
	client, done := exampleOrders(nats.WithEventHandler(func(e nats.Event) {
		if e.Type == nats.EventDeadLetter {
			dead <- struct{}{}
		}
	}))
	defer done()
	ctx := context.Background()
	exampleStore(client, "orders.created", "to Atlantis")

	_, err := client.Consume(ctx, "ORDERS", "billing", func(*nats.Message) error {
		return nats.Permanent(errors.New("no tax rate for Atlantis"))
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	<-dead
	for msg, err := range client.ReadStream(ctx, "ORDERS_DLQ") {
		if err != nil {
			fmt.Println(err)
			return
		}
		letter, err := nats.ReadDeadLetter(msg)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s %q: %s\n", letter.Subject, letter.Data, letter.Reason)
	}
	count, err := client.ReplayDeadLetters(ctx, "ORDERS", nats.WithReplayDryRun())
	fmt.Println(count, "to replay", err)
	// Output:
	// orders.created "to Atlantis": no tax rate for Atlantis
	// 1 to replay <nil>
}

// In order, each once, and without a consumer.
func ExampleClient_ReadStream() {
	client, done := exampleOrders()
	defer done()
	exampleStore(client, "orders.created", "1", "2")
	exampleStore(client, "orders.paid", "1")

	for msg, err := range client.ReadStream(context.Background(), "ORDERS", nats.WithReadFilter("orders.created")) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s %s\n", msg.Subject, msg.Data)
	}
	// Output:
	// orders.created 1
	// orders.created 2
}

func ExampleClient_GetLastMessages() {
	client, done := exampleOrders()
	defer done()
	ctx := context.Background()
	exampleStore(client, "orders.1", "created", "paid")
	exampleStore(client, "orders.2", "created")

	var states []string
	for msg, err := range client.GetLastMessages(ctx, "ORDERS", "orders.*") {
		if err != nil {
			fmt.Println(err)
			return
		}
		states = append(states, fmt.Sprintf("%s is %s", msg.Subject, msg.Data))
	}
	slices.Sort(states)
	fmt.Println(states)
	first, err := client.GetMessage(ctx, "ORDERS", 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("it began with %s\n", first.Data)
	// Output:
	// [orders.1 is paid orders.2 is created]
	// it began with created
}
