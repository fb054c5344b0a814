// Package worker handles the orders.
package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/trace"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/examples/orders/internal/order"
)

// Consumer is the workers' name on the stream: they share the orders.
const Consumer = "order-worker"

type worker struct {
	bus   *order.Bus
	flags *nats.KeyValueCache
}

// Start handles orders until ctx ends. What fails is tried again with growing pauses, and is a dead letter after a day.
func Start(ctx context.Context, bus *order.Bus) (*nats.Consumption, error) {
	flags, err := bus.Flags.Cached(ctx)
	if err != nil {
		return nil, err
	}
	w := &worker{bus, flags}
	return bus.Consume(ctx, order.Stream, Consumer, nats.JSON(w.handle),
		nats.WithWorkers(8), // they wait for the server most of the time
		nats.WithConsumerConfig(&jetstream.ConsumerConfig{
			AckPolicy: jetstream.AckExplicitPolicy,
			AckWait:   5 * time.Second, // until others get what a worker that was killed had
		}))
}

// handle may be called again for the same order, for a worker may be killed at any line. So each step is one that may be
// done twice: the receipt is the same bytes under the same name, and an order is confirmed once.
func (w *worker) handle(ctx context.Context, o order.Order) error {
	trace.SpanFromContext(ctx).SetAttributes(order.ID.String(o.ID))
	limit, _, err := nats.GetJSON[int](ctx, w.flags, order.MaxQuantity)
	if errors.Is(err, nats.ErrKeyNotFound) {
		limit, err = 100, nil
	}
	if err != nil {
		return err // tried again, until the flag is mended
	}
	if o.Quantity > limit {
		return nats.Permanent(fmt.Errorf("a quantity of %d is over the limit of %d", o.Quantity, limit))
	}
	if _, err := w.bus.Receipts.PutBytes(ctx, o.ID, fmt.Appendf(nil, "Order %s: %d x %s\n", o.ID, o.Quantity, o.Item)); err != nil {
		return err
	}
	value, err := json.Marshal(o)
	if err != nil {
		return err
	}
	_, err = w.bus.Confirmed.Create(ctx, o.ID, value)
	if errors.Is(err, nats.ErrAlreadyExists) {
		return nil
	}
	return err
}
