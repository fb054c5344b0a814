package natstest

import (
	"context"
	"fmt"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/delivery"
)

// MessageOption says what [NewMessage] is to pretend.
type MessageOption func(*delivered)

type delivered struct {
	stream, consumer string
	sequence         uint64
	deliveries       int
}

// WithStream says which stream the message is in, and which consumer delivers it: names as the server
// takes them. Without it they are "STREAM" and "consumer".
func WithStream(stream, consumer string) MessageOption {
	return func(d *delivered) { d.stream, d.consumer = stream, consumer }
}

// WithSequence sets the message's sequence in its stream, which is 1 otherwise.
func WithSequence(sequence uint64) MessageOption {
	return func(d *delivered) { d.sequence = sequence }
}

// WithDeliveries says how often the message was delivered, this time included, which is 1 otherwise.
func WithDeliveries(n int) MessageOption {
	return func(d *delivered) { d.deliveries = n }
}

// NewMessage returns a message as a consumer delivers it, for the test of a handler that needs no server:
//
//	err := handle(natstest.NewMessage("orders.created", []byte(`{"order_id":"1"}`), natstest.WithDeliveries(5)))
//
// It has Metadata, and may be acknowledged once; every acknowledgement succeeds, and [AcknowledgementOf] tells it.
// Set its Header, and its Context by WithContext. A message of core NATS needs no help: &nats.Message{Subject: ...}.
func NewMessage(subject string, data []byte, opts ...MessageOption) *nats.Message {
	d := delivered{stream: "STREAM", consumer: "consumer", sequence: 1, deliveries: 1}
	for _, opt := range opts {
		opt(&d)
	}
	reply := fmt.Sprintf("$JS.ACK.%s.%s.%d.%d.%d.%d.0", d.stream, d.consumer, d.deliveries, d.sequence, d.sequence, time.Now().UnixNano())
	record := &delivery.Record{Msg: &natsgo.Msg{Subject: subject, Reply: reply, Data: data, Sub: new(natsgo.Subscription)}}
	msg := &nats.Message{Subject: subject, Reply: reply, Data: data}
	return msg.WithContext(record.Context(context.Background()))
}

// Acknowledgement is what the server would know of a message.
type Acknowledgement struct {
	// Verb is the final acknowledgement, as the server is told: "+ACK", "-NAK" or "+TERM"; empty when there was none.
	Verb string
	// Confirmed tells whether AckSync, or Client.AckMessage, was called, and not Ack.
	Confirmed bool
	// Delay is that of NakWithDelay.
	Delay time.Duration
	// Reason is that of Term.
	Reason string
	// InProgress is how often InProgress was called.
	InProgress int
}

// AcknowledgementOf tells how a message of [NewMessage] was acknowledged so far. What a handler returns acknowledges
// nothing by itself: that is for the Consumption that calls it.
func AcknowledgementOf(msg *nats.Message) Acknowledgement {
	var a Acknowledgement
	record := delivery.RecordOf(msg.Context())
	if record == nil {
		return a
	}
	for _, ack := range record.Acks() {
		verb, rest, _ := strings.Cut(ack.Verb, " ")
		switch verb {
		case "+WPI":
			a.InProgress++
			continue
		case "-NAK":
			_, _ = fmt.Sscanf(rest, `{"delay": %d}`, &a.Delay) // without a delay there is nothing to read
		default:
			a.Reason = rest
		}
		a.Verb, a.Confirmed = verb, ack.Confirmed
	}
	return a
}
