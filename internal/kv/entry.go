package kv

import (
	"math"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// The headers that make a message of a bucket a deletion (ADR-8), and their values.
const (
	operationHeader = "KV-Operation"
	operationDelete = "DEL"
	operationPurge  = "PURGE"

	markerRemove = "Remove" // of jetstream.MarkerReasonHeader; the other reasons purge
)

// entry implements jetstream.KeyValueEntry. A cache holds many of them: it is small.
type entry struct {
	bucket    *Bucket
	key       string
	value     []byte
	revision  uint64
	delta     uint64
	lifetime  // created is 0 when it is not known
	operation jetstream.KeyValueOp
}

func (e *entry) Bucket() string                  { return e.bucket.name }
func (e *entry) Key() string                     { return e.key }
func (e *entry) Value() []byte                   { return e.value }
func (e *entry) Revision() uint64                { return e.revision }
func (e *entry) Delta() uint64                   { return e.delta }
func (e *entry) Operation() jetstream.KeyValueOp { return e.operation }

func (e *entry) Created() time.Time {
	if e.created == 0 {
		return time.Time{}
	}
	return time.Unix(0, e.created)
}

// deleted tells whether an entry says that the key does not exist.
func deleted(e jetstream.KeyValueEntry) bool { return e.Operation() != jetstream.KeyValuePut }

// operationOf returns what a message of a bucket does to its key.
func operationOf(header natsgo.Header) jetstream.KeyValueOp {
	if len(header) == 0 {
		return jetstream.KeyValuePut
	}
	switch header.Get(operationHeader) {
	case operationDelete:
		return jetstream.KeyValueDelete
	case operationPurge:
		return jetstream.KeyValuePurge
	}
	switch header.Get(jetstream.MarkerReasonHeader) {
	case "":
		return jetstream.KeyValuePut
	case markerRemove:
		return jetstream.KeyValueDelete
	}
	return jetstream.KeyValuePurge
}

// entry makes an entry of a message.
func (b *Bucket) entry(m wire.Stored, delta uint64) *entry {
	e := &entry{
		bucket: b, value: m.Data, revision: m.Sequence, delta: delta,
		lifetime: lifetime{m.Time.UnixNano(), int32(min(wire.TTL(m.Header)/time.Second, math.MaxInt32))}, operation: operationOf(m.Header),
	}
	if key, ok := strings.CutPrefix(m.Subject, b.prefix); ok { // else it is of another bucket that is stored here, too
		e.key = key
	}
	return e
}

// gone is the deletion of a key of which nobody told.
func (b *Bucket) gone(key string) *entry {
	return &entry{bucket: b, key: key, lifetime: lifetime{created: time.Now().UnixNano()}, operation: jetstream.KeyValueDelete}
}

// lifetime is when a value was stored, in Unix nanoseconds, and the seconds that it was given: 0 when none
// were, and a negative number for ever.
type lifetime struct {
	created int64
	seconds int32
}
