package kv

import (
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
)

// The layout of a bucket (ADR-8): its stream, and the subjects of its keys.
const (
	StreamPrefix  = "KV_"
	subjectPrefix = "$KV."
)

// Fault says what is wrong with a key, or with a filter of keys, or "" when nothing is.
func (b *Bucket) Fault(key string, filter bool) string {
	letters := "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-/_=."
	if filter {
		letters += "*>"
	}
	fault := subjects.Fault(key, filter)
	if fault == "" && strings.Trim(key, letters) != "" {
		fault = "a key consists of letters, digits and - / _ = joined by dots"
	}
	if fault == "" {
		// The longest line about a key: that of a consumer with the key for its filter, whose name upstream makes, or
		// that of a write.
		line := max(len(b.api.Subject("CONSUMER.CREATE."))+len(b.stream)+1+26+1+len(b.prefix), len(b.writePrefix))
		fault = b.conn.LineFault(len(key) + line + b.conn.LineRoom())
	}
	return fault
}

// subjects returns the subjects of filters, all keys when there are none. A filter that another one
// includes is left out: the server refuses both together.
func (b *Bucket) subjects(filters []string) []string {
	if len(filters) == 0 {
		return []string{b.prefix + jetstream.AllKeys}
	}
	filters = slices.Compact(slices.Sorted(slices.Values(filters)))
	wide := slices.DeleteFunc(slices.Clone(filters), func(filter string) bool { return !strings.ContainsAny(filter, "*>") })
	var all []string
	for _, filter := range filters {
		if !slices.ContainsFunc(wide, func(other string) bool { return other != filter && subjects.Covers(other, filter) }) {
			all = append(all, b.prefix+filter)
		}
	}
	return all
}

// Wrap gives err the operation, the bucket and the key. A missing stream is a missing bucket. The errors of a Bucket
// have none of that before.
func (b *Bucket) Wrap(op, key string, err error) error {
	return jsapi.WrapBucket(op, fault.Path(b.name, key), err)
}

// ConflictError is the error of a write over a revision that is no longer the latest of its key. It is ErrConflict and
// jetstream.ErrKeyRevisionMismatch.
type ConflictError struct {
	Expected uint64 // 0 stands for none
	Revision uint64 // the latest; 0 when there is none, or it is not known
	cause    error
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("revision %d was expected, the latest is %d: %v", e.Expected, e.Revision, e.cause)
}

// Unwrap returns the sentinels and the server's answer.
func (e *ConflictError) Unwrap() []error {
	return []error{fault.ErrConflict, jetstream.ErrKeyRevisionMismatch, e.cause}
}
