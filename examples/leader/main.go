// Leader shows instances of a service of which one at a time leads: when it resigns or dies, another
// one takes over, and what it writes too late is refused by its token.
//
//	go run ./examples/leader
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/internal/local"
)

// bucket is the example's own: it is deleted at the end.
var bucket = "example-" + strings.ToLower(rand.Text()[:6]) + "-leaders"

// lease is how long nobody leads when a leader dies. A longer one costs less traffic.
const lease = 2 * time.Second

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "leader:", err)
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
	client, err := connect(ctx, urls, "operator")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	// Locks need keys that expire; the server remembers for a minute that one did.
	lasting := context.WithoutCancel(ctx)
	if _, err := client.EnsureKeyValue(lasting, bucket, nats.WithKeyTTLs(time.Minute)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.DeleteKeyValue(lasting, bucket)) }()

	db := &database{}
	terms := make(chan term)
	// The instances, each with a connection of its own, as processes would have it.
	instances := make(map[string]*nats.Client)
	elections, end := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer end()
	for _, name := range []string{"a", "b", "c"} {
		instance, err := connect(ctx, urls, name)
		if err != nil {
			return err
		}
		defer func() { _ = instance.Close() }()
		instances[name] = instance
		kv, err := instance.GetKeyValue(ctx, bucket)
		if err != nil {
			return err
		}
		running.Go(func() {
			if err := kv.Elect(elections, "job", lead(name, terms), nats.WithLease(lease)); !errors.Is(err, context.Canceled) {
				fmt.Printf("%s left the elections: %v\n", name, err)
			}
		})
	}

	first, err := await(ctx, terms)
	if err != nil {
		return err
	}
	fmt.Printf("elected   %s\n", first.name)
	if err := db.write(first.token, "first"); err != nil {
		return err
	}
	// It crashes: its connection breaks, and nothing is given up.
	crashed := time.Now()
	instances[first.name].Conn().Close()
	second, err := await(ctx, terms)
	if err != nil {
		return err
	}
	fmt.Printf("took over %s, %.0f s after %s crashed\n", second.name, time.Since(crashed).Seconds(), first.name)
	if second.token <= first.token {
		return errors.New("the tokens do not grow")
	}
	if err := db.write(second.token, "second"); err != nil {
		return err
	}
	// What the first one had on its way arrives now.
	fmt.Println("refused  ", db.write(first.token, "too late"))
	fmt.Println("stored   ", db.value)
	end()
	running.Wait() // the leader has resigned: nobody would have to wait for its lease to end
	return nil
}

func connect(ctx context.Context, urls []string, name string) (*nats.Client, error) {
	return nats.NewClientContext(ctx, &nats.Config{URLs: urls, ClusterID: "isa-cloud-cluster", ClientID: "leader-" + name, JetStreamEnabled: true})
}

// term is the time for which an instance leads.
type term struct {
	name  string
	token uint64
}

// await waits for the next leader, or for Ctrl-C.
func await(ctx context.Context, terms <-chan term) (term, error) {
	select {
	case next := <-terms:
		return next, nil
	case <-ctx.Done():
		return term{}, context.Cause(ctx)
	}
}

// lead returns what the leader does: its context ends with the leadership.
func lead(name string, terms chan<- term) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case terms <- term{name, nats.FencingToken(ctx)}:
		case <-ctx.Done():
		}
		<-ctx.Done() // the job
		return nil
	}
}

// database is what the leader writes to. It refuses tokens that are smaller than the largest that it has
// seen, which is the only way to be safe from a leader that does not know yet that it is none.
type database struct {
	token uint64
	value string
}

func (db *database) write(token uint64, value string) error {
	if token < db.token {
		return fmt.Errorf("%q: its token is not the latest", value)
	}
	db.token, db.value = token, value
	return nil
}
