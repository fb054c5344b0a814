// Package order is what the processes of the service agree on: what an order is, and where on the bus it is kept.
package order

import (
	"context"
	"errors"
	"regexp"

	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel/attribute"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// The names on the bus that more than one process uses.
const (
	Stream      = "ORDERS"        // the orders that are to be handled
	Placed      = "orders.placed" // its subject
	MaxQuantity = "max-quantity"  // the flag that says how much one order may be for, 100 unless it is set
)

// ID is the attribute of the spans that have to do with an order.
const ID attribute.Key = "order.id"

// Order is what a customer wants. Its ID is the caller's, so that an order that is sent again is the same order.
type Order struct {
	ID       string `json:"id"`
	Item     string `json:"item"`
	Quantity int    `json:"quantity"`
}

// An ID becomes a message ID, a key and the name of an object.
var validID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// Validate tells what is wrong with an order, whatever the flags say.
func (o Order) Validate() error {
	switch {
	case !validID.MatchString(o.ID):
		return errors.New("an order's ID is 1 to 64 letters, digits, - and _")
	case o.Item == "":
		return errors.New("the item is missing")
	case o.Quantity < 1:
		return errors.New("the quantity is less than 1")
	}
	return nil
}

// Bus is all that the service keeps on the bus.
type Bus struct {
	*nats.Client
	Flags     *nats.KeyValue    // changed by people, while the service runs
	Confirmed *nats.KeyValue    // the orders that are done, by ID: where others have a database
	Receipts  *nats.ObjectStore // by ID
}

// Declare makes the stream and the buckets, or adapts those there are; it takes nothing away. Every process calls it,
// in whatever order they start.
func Declare(ctx context.Context, client *nats.Client) (*Bus, error) {
	bus := &Bus{Client: client}
	// A work queue has an order until it is handled or is a dead letter: no age and no limit deletes it before.
	_, err := client.EnsureStream(ctx, &jetstream.StreamConfig{
		Name: Stream, Subjects: []string{Placed}, Retention: jetstream.WorkQueuePolicy,
	}, nats.WithGeneration(1)) // counted up with every change, so that an older release changes nothing back
	if err != nil {
		return nil, err
	}
	if bus.Flags, err = client.EnsureKeyValue(ctx, "order-flags"); err != nil {
		return nil, err
	}
	if bus.Confirmed, err = client.EnsureKeyValue(ctx, "order-confirmed"); err != nil {
		return nil, err
	}
	bus.Receipts, err = client.EnsureObjectStore(ctx, "order-receipts")
	return bus, err
}
