package nats_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/goleak"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
)

// benchServer, set in the environment, makes the test binary a NATS server: benchmarks run theirs
// in a process of its own, so that its allocations are not counted as the client's.
const benchServer = "NATS_BENCH_SERVER_STORE"

var stalls, _ = conntest.WatchStalls()

// TestMain fails the package when a test leaves a goroutine behind: everything that a client
// starts ends with it.
func TestMain(m *testing.M) {
	if store := os.Getenv(benchServer); store != "" {
		if err := serve(store); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	const stream = "github.com/nats-io/nats-server/v2/server.(*stream)."
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent(), // a server that is gone waits on for the origins of its mirrors and sources
		goleak.IgnoreTopFunction(stream+"setupMirrorConsumer.func3"), goleak.IgnoreTopFunction(stream+"trySetupSourceConsumer.func3"))
}

// serve runs a server until the standard input ends, and prints its URL.
func serve(store string) error {
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: store, NoSigs: true, NoLog: true,
	})
	if err != nil {
		return err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return fmt.Errorf("the server did not start")
	}
	fmt.Println(s.ClientURL())
	_, _ = os.Stdin.Read(make([]byte, 1))
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}
