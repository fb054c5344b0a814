package nats_test

import (
	"context"
	"fmt"
	"log"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

type tenantKey struct{}

// An interceptor that carries a value of the context with every message: who publishes sets the tenant in its context,
// and the handler finds it in the message's.
func ExampleWithInterceptor() {
	tenant := nats.Interceptor{
		Publish: func(ctx context.Context, msg *nats.Message, next func(context.Context, *nats.Message) error) error {
			if name, ok := ctx.Value(tenantKey{}).(string); ok {
				msg.Header.Set("Tenant", name)
			}
			return next(ctx, msg)
		},
		Stored: func(_ context.Context, msg *nats.Message, ack *jetstream.PubAck, err error) {
			if err == nil {
				fmt.Printf("stored %s as %s/%d\n", msg.Subject, ack.Stream, ack.Sequence)
			}
		},
		Handle: func(msg *nats.Message, next nats.Handler) error {
			fmt.Printf("handle %s\n", msg.Pattern())
			return next(msg.WithContext(context.WithValue(msg.Context(), tenantKey{}, msg.Header.Get("Tenant"))))
		},
	}
	client, done := exampleClient(nats.WithInterceptor(tenant))
	defer done()
	ctx := context.WithValue(context.Background(), tenantKey{}, "acme")

	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}})
	if err != nil {
		log.Print(err)
		return
	}
	handled := make(chan struct{})
	_, err = client.Subscribe(ctx, "orders.*", func(msg *nats.Message) error {
		fmt.Printf("order of %v\n", msg.Context().Value(tenantKey{}))
		close(handled)
		return nil
	})
	if err != nil {
		log.Print(err)
		return
	}
	if _, err := client.PublishToStream(ctx, "orders.new", nil); err != nil {
		log.Print(err)
		return
	}
	<-handled
	// Unordered output:
	// stored orders.new as ORDERS/1
	// handle orders.*
	// order of acme
}

// A typed handler finds the message that its value came in.
func ExampleMessageFrom() {
	client, done := exampleClient()
	defer done()
	ctx := context.Background()
	handled := make(chan struct{})
	_, err := client.Subscribe(ctx, "users.*", nats.JSON(func(ctx context.Context, name string) error {
		fmt.Println(nats.MessageFrom(ctx).Subject, name)
		close(handled)
		return nil
	}))
	if err != nil {
		log.Print(err)
		return
	}
	if err := client.PublishJSON(ctx, "users.7", "Ada"); err != nil {
		log.Print(err)
		return
	}
	<-handled
	// Output: users.7 Ada
}
