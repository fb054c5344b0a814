// Doctor finds out why a service cannot work with NATS, and prints what it finds. With a configuration file it
// looks at what that says; without one, at the server of the examples.
//
//	go run ./examples/doctor -config configs/sdk/nats.yaml -publish orders.created -streams ORDERS
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/doctor"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/internal/local"
)

var (
	config = flag.String("config", "", "the configuration `file` of the service, as nats.LoadConfig reads it")
	wants  doctor.Wants
)

func main() {
	for name, list := range map[string]*[]string{
		"publish": &wants.Publish, "subscribe": &wants.Subscribe, "streams": &wants.Streams,
		"consumers": &wants.Consumers, "buckets": &wants.Buckets, "objects": &wants.Objects,
	} {
		flag.Func(name, "what the service needs, separated by commas", func(names string) error {
			*list = strings.Split(names, ",")
			return nil
		})
	}
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "doctor:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	var cfg *nats.Config
	if *config != "" {
		loaded, err := nats.LoadConfig(*config)
		if err != nil {
			return err
		}
		cfg = loaded
	} else {
		urls, stopServer, err := local.Server()
		if err != nil {
			return err
		}
		defer stopServer()
		cfg = nats.DefaultConfig()
		cfg.URLs = urls
	}
	failures := 0
	for f := range doctor.Run(ctx, cfg, wants) {
		fmt.Printf("%-11s  %-14s  %s  %s\n", f.Status, f.Check, f.Target, f.Detail)
		if f.Remedy != "" {
			fmt.Println("             ->", f.Remedy)
		}
		if f.Status == doctor.Failed {
			failures++
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if failures > 0 {
		return fmt.Errorf("%d of the checks failed", failures)
	}
	fmt.Println("Nothing that was looked at is wrong.")
	return nil
}
