// Migration shows how a program that uses nats.go moves to this package piece by piece: first the
// connection, on which the old code runs on as it is, then the publisher, then the consumer, which
// goes on where the old one stopped. Nothing changes on the server, and old and new instances work
// side by side.
//
//	go run ./examples/migration
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

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/internal/local"
)

// prefix keeps runs on a shared server apart.
var prefix = "example-" + strings.ToLower(rand.Text()[:6])

const consumer = "mailer"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "migration:", err)
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

	// Step 1: the connection. It was natsgo.Connect(url, natsgo.MaxReconnects(-1), ...); options that
	// have no key in Config pass through WithNATSOptions.
	client, err := nats.NewClientContext(ctx, &nats.Config{URLs: urls, ClusterID: "isa-cloud-cluster", JetStreamEnabled: true},
		nats.WithNATSOptions(natsgo.PingInterval(20*time.Second)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()

	// The old code gets what it had, a *nats.Conn and a jetstream.JetStream, and does not notice.
	lasting := context.WithoutCancel(ctx)
	stream, subject := prefix+"-SIGNUPS", prefix+".signups"
	if err := oldSetup(lasting, client.JetStream(), stream, subject); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.DeleteStream(lasting, stream)) }()
	if err := oldPublish(ctx, client.JetStream(), subject, 1, 10); err != nil {
		return err
	}
	handled, err := oldConsume(ctx, client.JetStream(), stream, 6)
	if err != nil {
		return err
	}
	fmt.Printf("1. the old code on the new connection handled %s\n", span(handled))

	// Step 2: the publisher. A nil error now means stored once: it is sent again after a lost answer.
	for i := 11; i <= 15; i++ {
		if _, err := client.PublishToStream(ctx, subject, fmt.Append(nil, i)); err != nil {
			return err
		}
	}
	fmt.Println("2. the new publisher stored 11 to 15 beside the old one's")

	// Step 3: the consumer. The same durable consumer, so it goes on where the old code stopped. The
	// handler returns what became of the message: no Ack, Nak, InProgress or recover of its own.
	received := make(chan string, 20)
	consumption, err := client.Consume(ctx, stream, consumer, func(msg *nats.Message) error {
		received <- string(msg.Data)
		return nil
	})
	if err != nil {
		return err
	}
	handled = nil
	for len(handled) < 9 {
		select {
		case data := <-received:
			handled = append(handled, data)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	fmt.Printf("3. the new consumer handled %s\n", span(handled))

	// Step 4: the end. It was nc.Drain(), which does not wait. Stop and Close do.
	if err := consumption.Stop(ctx); err != nil {
		return err
	}
	lag, err := consumption.Lag(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("4. stopped, with %d messages not handled\n", lag)
	return nil
}

func span(handled []string) string { return handled[0] + " to " + handled[len(handled)-1] }

func oldSetup(ctx context.Context, js jetstream.JetStream, stream, subject string) error {
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: stream, Subjects: []string{subject}}); err != nil {
		return err
	}
	_, err := js.CreateConsumer(ctx, stream, jetstream.ConsumerConfig{Durable: consumer, AckPolicy: jetstream.AckExplicitPolicy})
	return err
}

func oldPublish(ctx context.Context, js jetstream.JetStream, subject string, from, to int) error {
	for i := from; i <= to; i++ {
		if _, err := js.Publish(ctx, subject, fmt.Append(nil, i)); err != nil {
			return err
		}
	}
	return nil
}

func oldConsume(ctx context.Context, js jetstream.JetStream, stream string, n int) ([]string, error) {
	c, err := js.Consumer(ctx, stream, consumer)
	if err != nil {
		return nil, err
	}
	batch, err := c.Fetch(n)
	if err != nil {
		return nil, err
	}
	var handled []string
	for msg := range batch.Messages() {
		handled = append(handled, string(msg.Data()))
		if err := msg.DoubleAck(ctx); err != nil {
			return nil, err
		}
	}
	return handled, batch.Error()
}
