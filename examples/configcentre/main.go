// Configcentre shows a configuration centre on a key-value bucket: operators set keys, and a service
// reads them from memory, up to date within milliseconds, and hears of every change.
//
//	go run ./examples/configcentre
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

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/internal/local"
)

// bucket is the example's own: it is deleted at the end.
var bucket = "example-" + strings.ToLower(rand.Text()[:6]) + "-app-config"

// limits is a value of several fields.
type limits struct {
	Requests int `json:"requests"`
	Burst    int `json:"burst"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "configcentre:", err)
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

	// A service keeps its buckets. The example deletes its own, also when Ctrl-C ends ctx.
	lasting := context.WithoutCancel(ctx)
	kv, err := client.EnsureKeyValue(lasting, bucket, nats.WithKeyHistory(5)) // values kept per key; 1 by default
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.DeleteKeyValue(lasting, bucket)) }()

	for key, value := range map[string]string{"database.url": "postgres://db.internal/app", "api.timeout": "30s"} {
		if _, err := kv.PutString(ctx, key, value); err != nil {
			return err
		}
	}
	if _, err := kv.PutJSON(ctx, "api.limits", limits{Requests: 100, Burst: 20}); err != nil {
		return err
	}
	return serve(ctx, kv)
}

// serve is the service. It reads its configuration from memory, on every request if it likes.
func serve(ctx context.Context, kv *nats.KeyValue) error {
	config, err := kv.Cached(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = config.Close() }()
	fmt.Printf("loaded   %d keys in one pass, stale: %t\n", config.Len(), config.Stale())

	entry, err := config.Get("database.url")
	if err != nil {
		return err
	}
	fmt.Printf("read     %s = %s\n", entry.Key(), entry.Value())
	if _, err := config.Get("api.color"); !errors.Is(err, nats.ErrKeyNotFound) {
		return fmt.Errorf("reading a key that is not there returned %v", err) //nolint:errorlint // nil is a fault, too
	}
	fmt.Println("read     api.color is not set: the default holds")

	begin := time.Now()
	const reads = 1_000_000
	for range reads {
		if _, err := config.Get("api.timeout"); err != nil {
			return err
		}
	}
	fmt.Printf("read     api.timeout a million times, %v each\n", time.Since(begin)/reads)

	revision, err := operate(ctx, kv)
	if err != nil {
		return err
	}
	// Read your writes: from here on the cache has what the operator did.
	if err := config.WaitFor(ctx, revision); err != nil {
		return err
	}
	if entry, err = config.Get("api.timeout"); err != nil {
		return err
	}
	fmt.Printf("in force %s = %s\n", entry.Key(), entry.Value())
	return follow(ctx, kv)
}

// operate is the operator, who changes a key, loses a race for it, and makes sure of the next.
func operate(ctx context.Context, kv *nats.KeyValue) (revision uint64, err error) {
	before, err := kv.Get(ctx, "api.timeout")
	if err != nil {
		return 0, err
	}
	if _, err := kv.PutString(ctx, "api.timeout", "10s"); err != nil {
		return 0, err
	}
	// Update writes only over the revision that was read, so that no other change is lost.
	_, err = kv.Update(ctx, "api.timeout", []byte("99s"), before.Revision())
	var conflict *nats.ConflictError
	if !errors.As(err, &conflict) {
		return 0, fmt.Errorf("updating an old revision returned %v", err) //nolint:errorlint // nil is a fault, too
	}
	fmt.Printf("refused  api.timeout = 99s: revision %d is not the latest, %d is\n", conflict.Expected, conflict.Revision)
	// Modify does the same, and begins again when it loses the race.
	return kv.Modify(ctx, "api.timeout", func(old []byte) ([]byte, error) {
		timeout, err := time.ParseDuration(string(old))
		return []byte((2 * timeout).String()), err
	})
}

// follow is for what has to act on a change: the present values first, then every change.
func follow(ctx context.Context, kv *nats.KeyValue) error {
	for change, err := range nats.ChangesJSON[limits](ctx, kv, "api.limits") {
		switch {
		case err != nil:
			return err
		case change.Deleted:
			fmt.Println("deleted ", change.Key)
			return nil // a service goes on
		case change.Value.Requests == 100:
			fmt.Printf("limits   %+v\n", change.Value)
			if _, err := kv.PutJSON(ctx, "api.limits", limits{Requests: 200, Burst: 20}); err != nil {
				return err
			}
		default:
			fmt.Printf("changed  %+v\n", change.Value)
			if err := kv.Delete(ctx, "api.limits"); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("the changes ended: %w", context.Cause(ctx))
}
