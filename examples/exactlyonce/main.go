// Exactlyonce shows how an effect happens once although everything around it happens twice: the
// publisher repeats its work after a crash, and the worker dies after the effect and before its
// acknowledgement.
//
// Three things together make it so. The message has an ID that follows from the business, so that the
// stream stores it once. The effect, here a message in another stream, has an ID that follows from the
// message, so that it happens once. The acknowledgement is confirmed, so that the message does not
// come again without need.
//
//	go run ./examples/exactlyonce
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

// prefix keeps runs on a shared server apart.
var prefix = "example-" + strings.ToLower(rand.Text()[:6])

const (
	payments = 20
	consumer = "ledger"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "exactlyonce:", err)
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

	// A service keeps its streams. The example deletes its own, also when Ctrl-C ends ctx. The duplicate
	// window is how long an ID is remembered: longer than the longest pause before a repetition.
	lasting := context.WithoutCancel(ctx)
	in, out := prefix+"-PAYMENTS", prefix+"-BOOKINGS"
	for stream, subject := range map[string]string{in: prefix + ".payments", out: prefix + ".bookings"} {
		if _, err := client.CreateStream(lasting, &jetstream.StreamConfig{
			Name: stream, Subjects: []string{subject}, Duplicates: 10 * time.Minute,
		}); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, client.DeleteStream(lasting, stream)) }()
	}

	// The publisher "crashes" after 15 payments and begins again.
	stored, dropped := 0, 0
	for _, upTo := range []int{15, payments} {
		for i := range upTo {
			id := fmt.Sprintf("payment-%d", i+1)
			ack, err := client.PublishToStream(ctx, prefix+".payments", []byte(id), jetstream.WithMsgID(id))
			if err != nil {
				return err
			}
			if ack.Duplicate {
				dropped++
			} else {
				stored++
			}
		}
	}
	fmt.Printf("published %d times: %d stored, %d dropped as duplicates\n", stored+dropped, stored, dropped)

	// Every third message is worked on twice: its worker fails after the effect.
	booked, repeated := make(chan bool, 2*payments), 0
	consumption, err := client.Consume(ctx, in, consumer, func(msg *nats.Message) error {
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		ack, err := client.PublishToStream(msg.Context(), prefix+".bookings", msg.Data,
			jetstream.WithMsgID(fmt.Sprintf("booking-%d", meta.Sequence.Stream)))
		if err != nil {
			return err
		}
		booked <- ack.Duplicate
		if meta.Sequence.Stream%3 == 0 && meta.NumDelivered == 1 {
			return errors.New("died before the acknowledgement")
		}
		return nil
	}, nats.WithConfirmedAcks(), nats.WithBackoff(50*time.Millisecond),
		nats.WithConsumerConfig(&jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy}))
	if err != nil {
		return err
	}
	for range payments + payments/3 {
		select {
		case duplicate := <-booked:
			if duplicate {
				repeated++
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := consumption.Stop(ctx); err != nil {
		return err
	}
	info, err := client.GetStreamInfo(ctx, out)
	if err != nil {
		return err
	}
	fmt.Printf("handled   %d times, %d of them again\n", consumption.Stats().Handled, repeated)
	fmt.Printf("booked    %d payments, each once\n", info.State.Msgs)
	if info.State.Msgs != payments {
		return fmt.Errorf("%d payments were booked as %d", payments, info.State.Msgs)
	}
	return nil
}
