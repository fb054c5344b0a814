// Filedistribution shows a release on its way to two nodes: one process uploads a file, two nodes with
// connections of their own hear of it and download it, each with a progress bar. What they install is whole,
// checked against its digest, and in place at once; a node that is interrupted has what it had before.
//
//	go run -C examples/filedistribution .
//
// It is a module of its own, so that the progress bar is no dependency of the library.
package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/schollz/progressbar/v3"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/internal/local"
)

const size = 32 << 20

// bucket is the example's own: it is deleted at the end.
var bucket = "example-" + strings.ToLower(rand.Text()[:6]) + "-releases"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "filedistribution:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()

	urls, stopServer, err := local.Server()
	if err != nil {
		return err
	}
	defer stopServer()
	dir, err := os.MkdirTemp("", "nats-example-distribution-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	client, err := connect(ctx, urls, "publisher")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()
	// A service keeps its buckets. The example deletes its own, also when Ctrl-C ends ctx.
	lasting := context.WithoutCancel(ctx)
	store, err := client.EnsureObjectStore(lasting, bucket, nats.WithObjectStoreTTL(24*time.Hour))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.DeleteObjectStore(lasting, bucket)) }()

	nodes := []string{"node-1", "node-2"}
	ready, installed := make(chan error, len(nodes)), make(chan error, len(nodes))
	for _, name := range nodes {
		go func() { installed <- node(ctx, urls, name, filepath.Join(dir, name), ready) }()
	}
	for range nodes { // who watches before the upload misses nothing
		if err := <-ready; err != nil {
			return err
		}
	}

	release := filepath.Join(dir, "release")
	if err := build(release); err != nil {
		return err
	}
	file, err := os.Open(release)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, err := store.Put(ctx, jetstream.ObjectMeta{Name: "v1.2.3"}, file, progress("publisher  upload"))
	if err != nil {
		return err
	}
	fmt.Printf("publisher  stored %s, %d bytes in %d chunks\n", info.Name, info.Size, info.Chunks)

	for range nodes {
		err = errors.Join(err, <-installed)
	}
	return err
}

func connect(ctx context.Context, urls []string, name string) (*nats.Client, error) {
	return nats.NewClientContext(ctx, &nats.Config{URLs: urls, ClientID: name, JetStreamEnabled: true})
}

// node installs the next release that is announced.
func node(ctx context.Context, urls []string, name, target string, ready chan<- error) error {
	client, err := connect(ctx, urls, name)
	if err != nil {
		ready <- err
		return err
	}
	defer func() { _ = client.Close() }()
	store, err := client.GetObjectStore(ctx, bucket)
	if err != nil {
		ready <- err
		return err
	}
	releases, err := store.Watch(ctx, jetstream.UpdatesOnly())
	ready <- err
	if err != nil {
		return err
	}
	defer func() { _ = releases.Stop() }()

	release, ok := <-releases.Updates()
	if !ok {
		return fmt.Errorf("%s: no release came: %w", name, context.Cause(ctx))
	}
	// GetFile writes beside the target, syncs, checks the digest and renames.
	if err := store.GetFile(ctx, release.Name, target, progress(name+"     download")); err != nil {
		return err
	}
	digest, err := digestOf(target)
	if err != nil {
		return err
	}
	if digest != release.Digest {
		return fmt.Errorf("%s: %s is not what was announced", name, target)
	}
	fmt.Printf("%s     installed %s, digest verified\n", name, release.Name)
	return nil
}

// progress is the option that draws a bar.
func progress(title string) nats.ObjectOption {
	var bar *progressbar.ProgressBar
	return nats.WithProgress(func(done, total int64) {
		if bar == nil { // the total is known now
			bar = progressbar.NewOptions64(total,
				progressbar.OptionSetDescription(title),
				progressbar.OptionSetWriter(os.Stdout),
				progressbar.OptionSetWidth(30),
				progressbar.OptionShowBytes(true),
				progressbar.OptionThrottle(50*time.Millisecond),
				progressbar.OptionOnCompletion(func() { fmt.Println() }),
			)
		}
		_ = bar.Set64(done) // a bar that cannot be drawn is no reason to stop
	})
}

// build makes the file that is to be distributed.
func build(path string) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.CopyN(file, rand.Reader, size)
	return errors.Join(err, file.Close())
}

// digestOf returns the digest of a file as object stores write it.
func digestOf(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = file.Close() }()
	digest := sha256.New()
	if _, err := io.Copy(digest, file); err != nil {
		return "", err
	}
	return jetstream.GetObjectDigestValue(digest), nil
}
