// Jetstream shows a stream and its consumer: messages are stored, wait until a consumer pulls them,
// and come again unless they are acknowledged.
//
//	go run ./examples/jetstream
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

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/internal/local"
)

// prefix makes the stream and its subjects the example's own: it is deleted at the end.
var prefix = "example-" + strings.ToLower(rand.Text()[:6])

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "jetstream:", err)
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
	client, err := nats.NewClientContext(ctx, &nats.Config{URLs: urls, ClusterID: "isa-cloud-cluster", JetStreamEnabled: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()

	// A service keeps its streams. The example deletes its own, also when Ctrl-C ends ctx.
	lasting := context.WithoutCancel(ctx)
	stream, subject := prefix+"-ORDERS", prefix+".orders.created"
	if _, err := client.CreateStream(lasting, &jetstream.StreamConfig{
		Name:     stream,
		Subjects: []string{prefix + ".orders.>"},
		MaxAge:   30 * 24 * time.Hour,
	}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.DeleteStream(lasting, stream)) }()

	// PublishToStream returns when the message is stored. The ID lets the server drop a message that
	// is published twice, such as by a service that repeats its work after a crash.
	const orders = 5
	for i := range orders {
		id := fmt.Sprintf("order-%d", i+1)
		ack, err := client.PublishToStream(ctx, subject, []byte(id), jetstream.WithMsgID(id))
		if err != nil {
			return err
		}
		fmt.Printf("stored    %s as sequence %d\n", id, ack.Sequence)
	}
	ack, err := client.PublishToStream(ctx, subject, []byte("order-5"), jetstream.WithMsgID("order-5"))
	if err != nil {
		return err
	}
	fmt.Printf("repeated  order-5: still sequence %d, duplicate %t\n", ack.Sequence, ack.Duplicate)

	// The consumer is made after the messages, and gets them all. Having a name it is durable: it
	// keeps its place while nobody pulls.
	const consumer = "order-processor"
	if _, err := client.CreateConsumer(ctx, stream, &jetstream.ConsumerConfig{
		Name:          consumer,
		FilterSubject: subject,
		AckPolicy:     jetstream.AckExplicitPolicy,
	}); err != nil {
		return err
	}
	for acked := 0; acked < orders; {
		messages, err := client.PullMessages(ctx, stream, consumer, 2)
		if err != nil {
			return err
		}
		for _, msg := range messages {
			done, err := process(ctx, client, msg)
			if err != nil {
				return err
			}
			if done {
				acked++
			}
		}
	}

	info, err := client.GetConsumerInfo(ctx, stream, consumer)
	if err != nil {
		return err
	}
	fmt.Printf("left      %d to pull, %d to acknowledge\n", info.NumPending, info.NumAckPending)
	return nil
}

// process fails at the first delivery of order-3, which then comes again.
func process(ctx context.Context, client *nats.Client, msg *nats.Message) (done bool, err error) {
	meta, err := msg.Metadata()
	if err != nil {
		return false, err
	}
	if string(msg.Data) == "order-3" && meta.NumDelivered == 1 {
		fmt.Printf("refused   %s, delivery %d\n", msg.Data, meta.NumDelivered)
		return false, msg.NakWithDelay(100 * time.Millisecond)
	}
	fmt.Printf("handled   %s, delivery %d\n", msg.Data, meta.NumDelivered)
	return true, client.AckMessage(ctx, msg)
}
