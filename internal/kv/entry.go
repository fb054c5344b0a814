package kv

import (
	"math"
	"strconv"
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

// Entry implements jetstream.KeyValueEntry. A cache holds many of them: it is small.
type Entry struct {
	bucket    *Bucket
	key       string
	value     []byte
	revision  uint64
	delta     uint64
	lifetime  // created is 0 when it is not known
	operation jetstream.KeyValueOp
}

// Bucket implements jetstream.KeyValueEntry, as the other methods do.
func (e *Entry) Bucket() string { return e.bucket.name }

// Key returns the key.
func (e *Entry) Key() string { return e.key }

// Value returns the value, which is not copied.
func (e *Entry) Value() []byte { return e.value }

// Revision returns the sequence.
func (e *Entry) Revision() uint64 { return e.revision }

// Delta returns how many messages were to follow.
func (e *Entry) Delta() uint64 { return e.delta }

// Operation tells a value from a deletion.
func (e *Entry) Operation() jetstream.KeyValueOp { return e.operation }

// Created returns when the entry was stored.
func (e *Entry) Created() time.Time {
	if e.created == 0 {
		return time.Time{}
	}
	return time.Unix(0, e.created)
}

// Deleted tells whether the entry says that the key does not exist.
func (e *Entry) Deleted() bool { return e.operation != jetstream.KeyValuePut }

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

// delivered makes an entry of a message that a consumer delivered.
func (b *Bucket) delivered(m *natsgo.Msg, meta *natsgo.MsgMetadata) *Entry {
	return &Entry{
		bucket: b, key: m.Subject[len(b.prefix):], value: m.Data, revision: meta.Sequence.Stream, delta: meta.NumPending,
		lifetime: lifetime{meta.Timestamp.UnixNano(), secondsOf(m.Header)}, operation: operationOf(m.Header),
	}
}

// stored makes an entry of a message that was asked for.
func (b *Bucket) stored(m wire.Stored) *Entry {
	e := &Entry{bucket: b, value: m.Data, revision: m.Sequence, lifetime: lifetime{created: m.Time.UnixNano()}, operation: operationOf(m.Header)}
	if len(m.Subject) > len(b.prefix) {
		e.key = m.Subject[len(b.prefix):]
	}
	return e
}

// gone is the deletion of a key of which nobody told.
func (b *Bucket) gone(key string) *Entry {
	return &Entry{bucket: b, key: key, lifetime: lifetime{created: time.Now().UnixNano()}, operation: jetstream.KeyValueDelete}
}

// lifetime is when a value was stored, in Unix nanoseconds, and the seconds that it was given: 0 when none
// were, and forever.
type lifetime struct {
	created int64
	seconds int32
}

const forever = -1

// secondsOf reads a message's time to live as the server does.
func secondsOf(header natsgo.Header) int32 {
	text := header.Get(jetstream.MsgTTLHeader)
	if text == "" {
		return 0
	}
	if strings.EqualFold(text, "never") {
		return forever
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if d, notDuration := time.ParseDuration(text); notDuration == nil {
		seconds, err = int64(d/time.Second), nil
	}
	if err != nil {
		return 0
	}
	return int32(min(seconds, math.MaxInt32))
}
