package natstest_test

import (
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// greet is the service under test: it answers requests on the subject greet.
func greet(nc *natsgo.Conn) error {
	_, err := nc.Subscribe("greet", func(m *natsgo.Msg) {
		_ = m.Respond([]byte("hello " + string(m.Data)))
	})
	return err
}

// testGreet would be TestGreet in a package of yours.
func testGreet(t *testing.T) {
	t.Parallel()
	srv := natstest.RunServer(t) // stops by itself

	nc, err := natsgo.Connect(srv.URL(), natsgo.ReconnectWait(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if err := greet(nc); err != nil {
		t.Fatal(err)
	}

	srv.Restart() // does the service survive that?

	var reply *natsgo.Msg
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if reply, err = nc.Request("greet", []byte("gopher"), time.Second); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no reply after the restart: %v", err)
		}
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
