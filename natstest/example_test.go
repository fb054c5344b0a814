package natstest_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// greet is the service under test: it answers requests on the subject greet.
func greet(client *nats.Client) error {
	_, err := client.Subscribe(context.Background(), "greet", func(m *nats.Message) error {
		return m.Respond([]byte("hello " + string(m.Data)))
	})
	return err
}

// testGreet would be TestGreet in a package of yours.
func testGreet(t *testing.T) {
	t.Parallel()
	srv := natstest.RunServer(t) // stops by itself
	client := natstest.Connect(t, srv, nil)
	if err := greet(client); err != nil {
		t.Fatal(err)
	}

	srv.Restart()                                    // does the service survive that?
	if err := client.Ping(t.Context()); err != nil { // a request on its way at the break would wait for its answer
		t.Fatal(err)
	}

	reply, err := client.Request(t.Context(), "greet", []byte("gopher"), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(reply.Data); got != "hello gopher" {
		t.Fatalf("the reply is %q", got)
	}
}

// The test of a service that has to live through a restart of its server.
func ExampleRunServer() {
	// An example has no testing.T, so the test above only goes by its name here; go test runs it.
	_ = testGreet
}

// testLeaf would be a test of yours.
func testLeaf(t *testing.T) {
	t.Parallel()
	hub := natstest.RunServer(t)
	leaf := natstest.RunLeaf(t, hub, "shop")

	far := natstest.Connect(t, hub, func(cfg *nats.Config) { cfg.JetStreamDomain = "shop" })
	if _, err := far.CreateStream(t.Context(), &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}}); err != nil {
		t.Fatal(err)
	}
	near := natstest.Connect(t, leaf, nil)
	if _, err := near.PublishToStream(t.Context(), "orders.new", []byte("1")); err != nil {
		t.Fatal(err)
	}
}

// A stream in a leaf node's JetStream, made by a client of the hub.
func ExampleRunLeaf() {
	_ = testLeaf
}

// testTLS would be a test of yours.
func testTLS(t *testing.T) {
	t.Parallel()
	srv := natstest.RunServer(t, natstest.WithTLS("nats.internal"), natstest.WithUser("orders", "secret"))
	client := natstest.Connect(t, srv, func(cfg *nats.Config) { cfg.TLSServerName = "nats.internal" })
	state, err := client.TLSConnectionState()
	if err != nil {
		t.Fatal(err)
	}
	if name := state.ServerName; name != "nats.internal" {
		t.Fatalf("the certificate was checked for %q", name)
	}
}

// A client of a server that demands TLS and a user.
func ExampleWithTLS() {
	_ = testTLS
}
