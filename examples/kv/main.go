// Kv shows a configuration centre on a key-value bucket: operators set keys, and a service reads
// them and hears of every change.
//
//	go run ./examples/kv
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

// bucket is the example's own: it is deleted at the end.
var bucket = "example-" + strings.ToLower(rand.Text()[:6]) + "-app-config"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "kv:", err)
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
	kv, err := client.CreateKeyValue(lasting, bucket, nats.WithKeyValueConfig(func(cfg *jetstream.KeyValueConfig) {
		cfg.History = 5 // values kept per key; 1 by default
	}))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.DeleteKeyValue(lasting, bucket)) }()

	for key, value := range map[string]string{
		"database.url": "postgres://db.internal/app", "api.timeout": "30s", "api.retries": "3",
	} {
		if _, err := kv.PutString(ctx, key, value); err != nil {
			return err
		}
	}

	// Reading: a key that is not there is an error of its own, and a place for a default.
	entry, err := kv.Get(ctx, "database.url")
	if err != nil {
		return err
	}
	fmt.Printf("read     %s = %s\n", entry.Key(), entry.Value())
	if _, err := kv.Get(ctx, "api.color"); !errors.Is(err, nats.ErrKeyNotFound) {
		return fmt.Errorf("reading a key that is not there returned %v", err) //nolint:errorlint // nil is a fault, too
	}
	fmt.Println("read     api.color is not set: the default holds")

	return follow(ctx, kv)
}

// follow is the service: the watcher reports the present values, then a nil, then every change.
func follow(ctx context.Context, kv *nats.KeyValue) error {
	watcher, err := kv.Watch(ctx, "api.>")
	if err != nil {
		return err
	}
	defer func() { _ = watcher.Stop() }() // nothing is left to lose

	settings := map[string]string{}
	for entry := range watcher.Updates() {
		switch {
		case entry == nil:
			fmt.Println("loaded  ", settings)
			if err := operate(ctx, kv); err != nil {
				return err
			}
		case entry.Operation() != jetstream.KeyValuePut:
			delete(settings, entry.Key())
			fmt.Println("deleted ", entry.Key())
			fmt.Println("in force", settings)
			return nil // a service goes on
		default:
			if old, ok := settings[entry.Key()]; ok {
				fmt.Printf("changed  %s: %s, was %s\n", entry.Key(), entry.Value(), old)
			}
			settings[entry.Key()] = string(entry.Value())
		}
	}
	return fmt.Errorf("the watcher ended: %w", context.Cause(ctx))
}

// operate is the operator, who changes a key, loses a race for it, and deletes another one.
func operate(ctx context.Context, kv *nats.KeyValue) error {
	before, err := kv.Get(ctx, "api.timeout")
	if err != nil {
		return err
	}
	if _, err := kv.PutString(ctx, "api.timeout", "10s"); err != nil {
		return err
	}
	// Update writes only over the revision that was read, so that no other change is lost.
	_, err = kv.Update(ctx, "api.timeout", []byte("99s"), before.Revision())
	if !errors.Is(err, nats.ErrConflict) {
		return fmt.Errorf("updating an old revision returned %v", err) //nolint:errorlint // nil is a fault, too
	}
	fmt.Println("refused  api.timeout: 99s,", nats.ErrConflict)
	return kv.Delete(ctx, "api.retries")
}
