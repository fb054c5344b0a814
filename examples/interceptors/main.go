// Interceptors shows two of them around everything that a client sends: a throttle and a circuit breaker, each in a file
// that can be copied. It is a module of its own, since the library does not depend on what they are made of.
//
//	go run -C examples/interceptors .
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

	"github.com/sony/gobreaker/v2"
	"golang.org/x/time/rate"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/internal/local"
)

// prefix keeps runs on a shared server apart.
var prefix = "example-" + strings.ToLower(rand.Text()[:6])

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "interceptors:", err)
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
	// The first is outermost: what the circuit refuses takes no turn of the throttle.
	client, err := nats.NewClientContext(ctx, &nats.Config{URLs: urls, ClusterID: "isa-cloud-cluster"},
		nats.WithInterceptor(breaker(gobreaker.Settings{
			Timeout:     500 * time.Millisecond, // until the next try
			ReadyToTrip: func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= 3 },
		})),
		nats.WithInterceptor(throttle(rate.NewLimiter(50, 1))),
	)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, client.Close()) }()

	begun := time.Now()
	for range 11 {
		if err := client.Publish(ctx, prefix+".events", nil); err != nil {
			return err
		}
	}
	fmt.Printf("published 11 messages at 50 a second: it took 200 ms: %v\n", time.Since(begun) >= 190*time.Millisecond)

	ask := func() error {
		_, err := client.Request(ctx, prefix+".price", nil, time.Second)
		return err
	}
	for range 3 {
		if err := ask(); !errors.Is(err, nats.ErrNoResponders) {
			return fmt.Errorf("a request to nobody: %w", err)
		}
	}
	fmt.Println("failed    3 requests: nobody serves them")
	fmt.Println("refused   the next one at once:", errors.Is(ask(), gobreaker.ErrOpenState))
	if _, err := client.HandleRequests(ctx, prefix+".price", "", func(*nats.Message) ([]byte, error) { return []byte("30"), nil }); err != nil {
		return err
	}
	for err = ask(); errors.Is(err, gobreaker.ErrOpenState) && ctx.Err() == nil; err = ask() {
		time.Sleep(50 * time.Millisecond)
	}
	fmt.Println("answered  once the circuit had let one try:", err == nil)
	return err
}
