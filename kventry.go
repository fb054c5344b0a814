package nats

import (
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The headers that make a message of a bucket a deletion (ADR-8), and their values.
const (
	kvOperationHeader = "KV-Operation"
	kvOperationDelete = "DEL"
	kvOperationPurge  = "PURGE"

	markerRemove = "Remove" // of jetstream.MarkerReasonHeader; the other reasons purge
)

// keyEntry implements jetstream.KeyValueEntry. A cache holds many of them: it is small.
type keyEntry struct {
	kv        *KeyValue
	key       string
	value     []byte
	revision  uint64
	delta     uint64
	lifetime  // created is 0 when it is not known
	operation jetstream.KeyValueOp
}

func (e *keyEntry) Bucket() string                  { return e.kv.bucket }
func (e *keyEntry) Key() string                     { return e.key }
func (e *keyEntry) Value() []byte                   { return e.value }
func (e *keyEntry) Revision() uint64                { return e.revision }
func (e *keyEntry) Delta() uint64                   { return e.delta }
func (e *keyEntry) Operation() jetstream.KeyValueOp { return e.operation }

func (e *keyEntry) Created() time.Time {
	if e.created == 0 {
		return time.Time{}
	}
	return time.Unix(0, e.created)
}

// deleted tells whether the entry says that the key does not exist.
func (e *keyEntry) deleted() bool { return e.operation != jetstream.KeyValuePut }

// operationOf returns what a message of a bucket does to its key.
func operationOf(header natsgo.Header) jetstream.KeyValueOp {
	if len(header) == 0 {
		return jetstream.KeyValuePut
	}
	switch header.Get(kvOperationHeader) {
	case kvOperationDelete:
		return jetstream.KeyValueDelete
	case kvOperationPurge:
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
