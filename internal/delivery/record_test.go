package delivery_test

import (
	"context"
	"slices"
	"testing"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/delivery"
)

func TestRecord(t *testing.T) {
	t.Parallel()
	if r := delivery.RecordOf(t.Context()); r != nil {
		t.Fatal("a record in every context")
	}
	var r delivery.Record
	ctx, cancel := context.WithCancel(r.Context(t.Context()))
	defer cancel()
	delivery.RecordOf(ctx).Add([]byte("+WPI"), false)
	delivery.RecordOf(ctx).Add([]byte("+ACK"), true)
	if got, want := r.Acks(), []delivery.Ack{{Verb: "+WPI"}, {Verb: "+ACK", Confirmed: true}}; !slices.Equal(got, want) {
		t.Fatalf("%v, want %v", got, want)
	}
}
