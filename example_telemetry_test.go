package nats_test

import (
	"context"
	"fmt"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// withReport is what a package may offer that adds something to a client: options of its own, in one.
func withReport(report func(sent, received uint64)) nats.Option {
	return nats.WithOptions(
		nats.WithEventHandler(func(e nats.Event) {
			if e.Type == nats.EventDisconnected {
				fmt.Println("disconnected:", e.Err)
			}
		}),
		nats.WithStart(func(client *nats.Client) (stop func()) {
			// A ticker that reads client.Stats() would be started here, and stopped there.
			return func() {
				stats := client.Stats()
				report(stats.Sent, stats.Received)
			}
		}),
	)
}

// A package adds itself to a client with one option, and reads totals that never fall.
func ExampleWithOptions() {
	client, done := exampleClient(withReport(func(sent, received uint64) {
		fmt.Printf("sent %d, received %d\n", sent, received)
	}))
	ctx := context.Background()
	handled := make(chan struct{})
	_, err := client.Subscribe(ctx, "greet", func(*nats.Message) error { close(handled); return nil })
	if err == nil {
		err = client.Publish(ctx, "greet", []byte("hello"))
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	<-handled
	done() // closes the client
	// Output: sent 1, received 1
}
