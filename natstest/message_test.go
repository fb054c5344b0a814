package natstest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestNewMessage(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		acknowledge func(m *nats.Message) error
		want        natstest.Acknowledgement
	}{
		"none":        {func(*nats.Message) error { return nil }, natstest.Acknowledgement{}},
		"ack":         {(*nats.Message).Ack, natstest.Acknowledgement{Verb: "+ACK"}},
		"ack sync":    {func(m *nats.Message) error { return m.AckSync(context.Background()) }, natstest.Acknowledgement{Verb: "+ACK", Confirmed: true}},
		"nak":         {(*nats.Message).Nak, natstest.Acknowledgement{Verb: "-NAK"}},
		"nak later":   {func(m *nats.Message) error { return m.NakWithDelay(time.Minute) }, natstest.Acknowledgement{Verb: "-NAK", Delay: time.Minute}},
		"term":        {func(m *nats.Message) error { return m.Term("no order") }, natstest.Acknowledgement{Verb: "+TERM", Reason: "no order"}},
		"in progress": {func(m *nats.Message) error { return errors.Join(m.InProgress(), m.InProgress()) }, natstest.Acknowledgement{InProgress: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			original := natstest.NewMessage("orders.new", []byte(`{}`))
			m := original.WithContext(t.Context()).WithContext(context.Background()) // as interceptors do
			m.Header = natsgo.Header{"A": {"1"}}
			if err := test.acknowledge(m); err != nil {
				t.Fatal(err)
			}
			for _, m := range []*nats.Message{m, original} {
				if got := natstest.AcknowledgementOf(m); got != test.want {
					t.Fatalf("%+v, want %+v", got, test.want)
				}
				if test.want.Verb == "" {
					continue
				}
				if err := m.Ack(); !errors.Is(err, nats.ErrAlreadyAcked) {
					t.Fatalf("acknowledged twice: %v", err)
				}
			}
		})
	}
}

// A client acknowledges it as any other, once.
func TestNewMessageAckMessage(t *testing.T) {
	t.Parallel()
	client := natstest.Connect(t, natstest.RunServer(t), nil)
	m := natstest.NewMessage("orders.new", nil)
	if err := client.AckMessage(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if err := client.AckMessage(t.Context(), m); !errors.Is(err, nats.ErrAlreadyAcked) {
		t.Fatal(err)
	}
	if a := natstest.AcknowledgementOf(m); !a.Confirmed {
		t.Fatalf("%+v", a)
	}
	if err := m.Respond(nil); !errors.Is(err, nats.ErrNoReply) {
		t.Fatal(err)
	}
}

func TestNewMessageMetadata(t *testing.T) {
	t.Parallel()
	before := time.Now()
	m, err := natstest.NewMessage("a", nil, natstest.WithStream("ORDERS", "worker"), natstest.WithSequence(7), natstest.WithDeliveries(3)).Metadata()
	if err != nil {
		t.Fatal(err)
	}
	if m.Stream != "ORDERS" || m.Consumer != "worker" || m.Sequence.Stream != 7 || m.NumDelivered != 3 || m.Timestamp.Before(before) {
		t.Fatalf("%+v", m)
	}
	if a := natstest.AcknowledgementOf(&nats.Message{}); a != (natstest.Acknowledgement{}) {
		t.Fatalf("of another message: %+v", a)
	}
}

// The test of a handler that gives up at the fifth delivery.
func ExampleNewMessage() {
	handle := func(msg *nats.Message) error {
		meta, err := msg.Metadata()
		if err != nil {
			return err
		}
		if meta.NumDelivered >= 5 {
			return msg.Term("five times")
		}
		return msg.NakWithDelay(time.Minute)
	}
	for _, deliveries := range []int{1, 5} {
		msg := natstest.NewMessage("orders.created", []byte(`{"order_id":"1"}`), natstest.WithDeliveries(deliveries))
		err, acked := handle(msg), natstest.AcknowledgementOf(msg)
		fmt.Println(err, acked.Verb, acked.Reason, acked.Delay)
	}
	// Output:
	// <nil> -NAK  1m0s
	// <nil> +TERM five times 0s
}
