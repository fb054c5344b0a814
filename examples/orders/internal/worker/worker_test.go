package worker_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/orders/internal/order"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/orders/internal/worker"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// start runs a worker on a server of the test's own.
func start(t *testing.T) (*order.Bus, *nats.Consumption) {
	t.Helper()
	bus, err := order.Declare(t.Context(), natstest.Connect(t, natstest.RunServer(t), nil))
	if err != nil {
		t.Fatal(err)
	}
	consumption, err := worker.Start(t.Context(), bus)
	if err != nil {
		t.Fatal(err)
	}
	return bus, consumption
}

func place(t *testing.T, bus *order.Bus, o order.Order, opts ...jetstream.PublishOpt) {
	t.Helper()
	if _, err := bus.PublishJSONToStream(t.Context(), order.Placed, o, opts...); err != nil {
		t.Fatal(err)
	}
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within two minutes: %s", what)
		}
	}
}

func confirmed(t *testing.T, bus *order.Bus, id string) func() bool {
	return func() bool {
		_, err := bus.Confirmed.Get(t.Context(), id)
		if err != nil && !errors.Is(err, nats.ErrKeyNotFound) {
			t.Fatal(err)
		}
		return err == nil
	}
}

func TestAnOrderIsConfirmedOnce(t *testing.T) {
	t.Parallel()
	bus, consumption := start(t)
	for range 3 { // the stream takes them for three, as it has no message IDs
		place(t, bus, order.Order{ID: "a", Item: "apple", Quantity: 2})
	}
	eventually(t, "three are handled", func() bool { return consumption.Stats().Handled == 3 })
	entry, err := bus.Confirmed.Get(t.Context(), "a")
	if err != nil || entry.Revision() != 1 || string(entry.Value()) != `{"id":"a","item":"apple","quantity":2}` {
		t.Errorf("confirmed: %v, %v", entry, err)
	}
	if receipt, err := bus.Receipts.GetString(t.Context(), "a"); err != nil || receipt != "Order a: 2 x apple\n" {
		t.Errorf("receipt: %q, %v", receipt, err)
	}
	eventually(t, "the stream is empty", func() bool {
		info, err := bus.GetStreamInfo(t.Context(), order.Stream)
		return err == nil && info.State.Msgs == 0
	})
}

func TestAnOrderIsTriedAgain(t *testing.T) {
	t.Parallel()
	bus, consumption := start(t)
	if err := bus.DeleteObjectStore(t.Context(), "order-receipts"); err != nil {
		t.Fatal(err)
	}
	place(t, bus, order.Order{ID: "b", Item: "pear", Quantity: 1})
	eventually(t, "it is tried again", func() bool { return consumption.Stats().Retried > 0 })
	if _, err := order.Declare(t.Context(), bus.Client); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is confirmed", confirmed(t, bus, "b"))
}

func TestTheLimitIsAFlag(t *testing.T) {
	t.Parallel()
	bus, consumption := start(t)
	place(t, bus, order.Order{ID: "c", Item: "plum", Quantity: 500})
	eventually(t, "it is a dead letter", func() bool { return consumption.Stats().DeadLettered == 1 })
	for msg, err := range bus.ReadStream(t.Context(), order.Stream+"_DLQ") {
		if err != nil {
			t.Fatal(err)
		}
		letter, err := nats.ReadDeadLetter(msg)
		if err != nil || !strings.Contains(letter.Reason, "over the limit of 100") || letter.Deliveries != 1 {
			t.Errorf("dead letter: %+v, %v", letter, err)
		}
	}
	if _, err := bus.Flags.PutString(t.Context(), order.MaxQuantity, "1000"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "with a higher limit its replay is confirmed", func() bool {
		if _, err := bus.ReplayDeadLetters(t.Context(), order.Stream); err != nil {
			t.Fatal(err)
		}
		return confirmed(t, bus, "c")()
	})
}
