package nats

import (
	"context"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
)

// The layout of a bucket (ADR-8): its stream, and the subjects of its keys.
const (
	kvStreamPrefix  = "KV_"
	kvSubjectPrefix = "$KV."
)

const reasonKeyByte = "a key consists of letters, digits and - / _ = joined by dots"

// isKeyByte tells whether c may be in a key.
func isKeyByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '-' || c == '_' || c == '/' || c == '='
}

// checkKey refuses what cannot be a key.
func (kv *KeyValue) checkKey(ctx context.Context, op, key string) error {
	if ctx == nil {
		return errNilContext(op, path(kv.bucket, key))
	}
	fault := subjects.Fault(key, false)
	for i := 0; fault == "" && i < len(key); i++ {
		if !isKeyByte(key[i]) {
			fault = reasonKeyByte
		}
	}
	if fault == "" {
		fault = kv.client.lineFault(len(key) + kv.keyRoom())
	}
	if fault != "" {
		return fail(op, path(kv.bucket, key), ErrInvalidArgument, "%w: %s", jetstream.ErrInvalidKey, fault)
	}
	return nil
}

// filterFault says what is wrong with a filter of keys, or "" when nothing is.
func (kv *KeyValue) filterFault(filter string) string {
	if fault := subjects.Fault(filter, true); fault != "" {
		return fault
	}
	for i := range len(filter) {
		if c := filter[i]; c != '*' && c != '>' && !isKeyByte(c) {
			return reasonKeyByte
		}
	}
	return kv.client.lineFault(len(filter) + kv.keyRoom())
}

// subjects returns the subjects of filters, all keys when there are none. A filter that another one
// includes is left out: the server refuses both together.
func (kv *KeyValue) subjects(filters []string) []string {
	var all []string
	for i, filter := range filters {
		included := false
		for j, other := range filters {
			included = included || i != j && subjects.Covers(other, filter) && (other != filter || j < i)
		}
		if !included {
			all = append(all, kv.prefix+filter)
		}
	}
	if len(all) == 0 {
		all = append(all, kv.prefix+jetstream.AllKeys)
	}
	return all
}

// fault gives err the operation, the bucket and the key. A missing stream is a missing bucket.
func (kv *KeyValue) fault(op, key string, err error) error {
	return bucketFault(op, path(kv.bucket, key), err)
}

func bucketFault(op, target string, err error) error {
	if err == nil {
		return nil
	}
	var e *fault.Error
	if outer, ok := jsapi.Wrap(op, target, err).(*fault.Error); ok { //nolint:errorlint // only the outermost counts
		own := *outer
		e = &own
	}
	e.Op, e.Target = op, target
	missing := errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, ErrNoStream) || errors.Is(err, jetstream.ErrNoStreamResponse)
	if missing && e.Kind != ErrBucketNotFound { //nolint:errorlint // set below
		cause := err
		if !errors.Is(err, jetstream.ErrBucketNotFound) {
			cause = fault.Joined{jetstream.ErrBucketNotFound, err}
		}
		e.Kind, e.Cause = ErrBucketNotFound, cause
	}
	return e
}

// ConflictError is returned when a key was to be written over a revision that is no longer its
// latest. It is ErrConflict and jetstream.ErrKeyRevisionMismatch.
type ConflictError struct {
	// Bucket and Key that were to be written.
	Bucket, Key string
	// Expected is the revision that the writer expected; 0 stands for none.
	Expected uint64
	// Revision is the latest one, which may be that of a deletion; 0 when there is none, or when the
	// server could not be asked.
	Revision uint64

	cause error
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%v: revision %d was expected, the latest is %d: %v", ErrConflict, e.Expected, e.Revision, e.cause)
}

// Unwrap returns the sentinels and the server's answer.
func (e *ConflictError) Unwrap() []error {
	return []error{ErrConflict, jetstream.ErrKeyRevisionMismatch, e.cause}
}
