// Objectstore shows file distribution: a release is uploaded once, several nodes hear of it and
// download it, each whole and checked against its digest.
//
//	go run ./examples/objectstore
package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/internal/local"
)

// bucket is the example's own: it is deleted at the end.
var bucket = "example-" + strings.ToLower(rand.Text()[:6]) + "-releases"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "objectstore:", err)
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

	dir, err := os.MkdirTemp("", "nats-example-releases-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	// A service keeps its buckets. The example deletes its own, also when Ctrl-C ends ctx.
	lasting := context.WithoutCancel(ctx)
	store, err := client.CreateObjectStore(lasting, bucket)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.DeleteObjectStore(lasting, bucket)) }()

	// The nodes wait for news. A watcher that stands before the upload misses nothing.
	nodes := []string{"node-1", "node-2", "node-3"}
	installed := make(chan installation, len(nodes))
	for _, node := range nodes {
		releases, err := store.Watch(ctx, jetstream.UpdatesOnly())
		if err != nil {
			return err
		}
		go func() {
			report, err := install(ctx, store, releases, filepath.Join(dir, node))
			installed <- installation{report, err}
		}()
	}

	binary := make([]byte, 2<<20)
	_, _ = rand.Read(binary) // never fails
	info, err := store.PutBytes(ctx, "v1.2.3", binary)
	if err != nil {
		return err
	}
	fmt.Printf("uploaded  %s, %d bytes in %d chunks, %s\n", info.Name, info.Size, info.Chunks, digest(binary))

	for range nodes {
		node := <-installed
		if node.err != nil {
			return node.err
		}
		fmt.Println(node.report)
	}

	objects, err := store.List(ctx)
	if err != nil {
		return err
	}
	for object := range objects {
		fmt.Printf("listed    %s, %d bytes, %s\n", object.Name, object.Size, object.ModTime.Format(time.DateTime))
	}
	return nil
}

type installation struct {
	report string
	err    error
}

// install is a node: it downloads the next release that is announced.
func install(ctx context.Context, store *nats.ObjectStore, releases jetstream.ObjectWatcher, target string) (string, error) {
	defer func() { _ = releases.Stop() }()
	release, ok := <-releases.Updates()
	if !ok {
		return "", fmt.Errorf("no release came: %w", context.Cause(ctx))
	}
	// GetFile writes beside the target and renames: nobody ever sees half a file.
	if err := store.GetFile(ctx, release.Name, target); err != nil {
		return "", err
	}
	data, err := os.ReadFile(target)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s    has %s, %d bytes, %s", filepath.Base(target), release.Name, len(data), digest(data)), nil
}

func digest(data []byte) string { return fmt.Sprintf("sha256 %.6x...", sha256.Sum256(data)) }
