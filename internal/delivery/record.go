package delivery

import (
	"context"
	"slices"
	"sync"

	natsgo "github.com/nats-io/nats.go"
)

// Record is one delivery, and how it was acknowledged.
type Record struct {
	Msg *natsgo.Msg // as a consumer would have delivered it

	mu   sync.Mutex
	acks []Ack
}

// Ack is an acknowledgement, as it goes over the wire.
type Ack struct {
	Verb      string
	Confirmed bool // the server was asked for an answer
}

type recordKey struct{}

// Context returns ctx with the record in it.
func (r *Record) Context(ctx context.Context) context.Context {
	return context.WithValue(ctx, recordKey{}, r)
}

// RecordOf returns the record that ctx carries, or nil.
func RecordOf(ctx context.Context) *Record {
	r, _ := ctx.Value(recordKey{}).(*Record)
	return r
}

// Add takes note of an acknowledgement.
func (r *Record) Add(verb []byte, confirmed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acks = append(r.acks, Ack{string(verb), confirmed})
}

// Acks returns all acknowledgements, in their order.
func (r *Record) Acks() []Ack {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.acks)
}
