package nats_test

import (
	"context"
	"fmt"
	"os"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// exampleClient returns a client of a server of its own, and what ends both, so that an example shows nothing but
// what it is about.
func exampleClient(opts ...nats.Option) (client *nats.Client, done func()) {
	dir, err := os.MkdirTemp("", "nats-example-")
	if err != nil {
		panic(err)
	}
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true,
	})
	if err != nil {
		panic(err)
	}
	s.Start()
	if !s.ReadyForConnections(patience) {
		panic("the server did not start")
	}
	client, err = nats.NewClient(&nats.Config{URLs: []string{s.ClientURL()}, JetStreamEnabled: true}, opts...)
	if err != nil {
		panic(err)
	}
	return client, func() {
		if err := client.Shutdown(context.Background()); err != nil {
			fmt.Println(err)
		}
		s.Shutdown()
		s.WaitForShutdown()
		_ = os.RemoveAll(dir)
	}
}
