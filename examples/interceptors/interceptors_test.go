package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sony/gobreaker/v2"
	"golang.org/x/time/rate"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func connect(t *testing.T, opts ...nats.Option) *nats.Client {
	t.Helper()
	client, err := nats.NewClient(&nats.Config{URLs: []string{natstest.RunServer(t).URL()}}, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestThrottle(t *testing.T) {
	t.Parallel()
	client := connect(t, nats.WithInterceptor(throttle(rate.NewLimiter(rate.Every(time.Hour), 2))))
	for range 2 {
		if err := client.Publish(t.Context(), "a", nil); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := client.Publish(ctx, "a", nil); err == nil {
		t.Error("a third message left within the hour")
	}
	if _, err := client.Request(ctx, "a", nil, time.Second); err == nil || errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("a request left within the hour: %v", err)
	}
}

func TestBreaker(t *testing.T) {
	t.Parallel()
	client := connect(t, nats.WithInterceptor(breaker(gobreaker.Settings{
		Timeout:     50 * time.Millisecond,
		ReadyToTrip: func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= 2 },
	})))
	ask := func(subject string) error {
		_, err := client.Request(t.Context(), subject, nil, time.Minute)
		return err
	}
	missing := &nats.ServiceError{Code: 404}
	if _, err := client.HandleRequests(t.Context(), "find", "", func(*nats.Message) ([]byte, error) { return nil, missing }); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if err := ask("find"); !errors.Is(err, missing) {
			t.Fatalf("what is not found breaks nothing: %v", err)
		}
	}
	for range 2 {
		if err := ask("price"); !errors.Is(err, nats.ErrNoResponders) {
			t.Fatalf("nobody serves it: %v", err)
		}
	}
	if err := ask("price"); !errors.Is(err, gobreaker.ErrOpenState) && !errors.Is(err, nats.ErrNoResponders) { // or 50 ms are over
		t.Fatalf("the circuit is not open: %v", err)
	}
	if err := ask("other"); !errors.Is(err, nats.ErrNoResponders) {
		t.Fatalf("another subject has a circuit of its own: %v", err)
	}
	if _, err := client.HandleRequests(t.Context(), "price", "", func(*nats.Message) ([]byte, error) { return nil, nil }); err != nil {
		t.Fatal(err)
	}
	for ask("price") != nil {
		if t.Context().Err() != nil {
			t.Fatal("the circuit stays open")
		}
		time.Sleep(10 * time.Millisecond)
	}
}
