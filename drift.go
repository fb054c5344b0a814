package nats

import (
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/drift"
)

// DriftError is returned by EnsureStream, EnsureConsumer and EnsureKeyValue when what the server has
// differs from what is wanted in a way that they do not mend by themselves, and by CreateKeyValue when
// it differs at all. It is ErrAlreadyExists.
type DriftError struct {
	// Bucket that differs, when it is a key-value bucket.
	Bucket string
	// Stream that differs, or whose consumer does.
	Stream string
	// Consumer that differs; empty when the stream does.
	Consumer string
	// Drifts has every field that differs, those included that could be changed without harm.
	Drifts []Drift

	create bool // the call changes nothing
}

// Drift is one field of a configuration that differs.
type Drift struct {
	// Field is the name of the field in jetstream.StreamConfig, ConsumerConfig or KeyValueConfig.
	Field string
	// Live is what the server has.
	Live any
	// Want is what was asked for.
	Want any
	// Changeable tells whether the server can change the field of something that exists.
	Changeable bool
	// Shrinks tells whether the change drops messages or subjects, or lowers a limit: AllowShrink
	// makes it.
	Shrinks bool
	// Effect is what the change would do; empty when there is nothing to warn of.
	Effect string
}

// String returns the field, both values and the effect on one line.
func (d Drift) String() string { return drift.Difference(d).String() }

func driftsOf(found []drift.Difference) []Drift {
	drifts := make([]Drift, len(found))
	for i, d := range found {
		drifts[i] = Drift(d)
	}
	return drifts
}

func (e *DriftError) Error() string {
	texts := make([]string, len(e.Drifts))
	fixed := false
	for i, d := range e.Drifts {
		texts[i] = d.String()
		fixed = fixed || !d.Changeable
	}
	op, target, advice := "ensure stream", path(e.Stream, e.Consumer), "AllowShrink goes ahead"
	switch {
	case e.create:
		op, target, advice = "create key-value bucket", e.Bucket, "EnsureKeyValue adapts a bucket"
	case e.Bucket != "":
		op, target, advice = "ensure key-value bucket", e.Bucket, "upstream's UpdateKeyValue goes ahead"
	case e.Consumer != "":
		op = "ensure consumer"
	}
	if fixed {
		advice = "it has to be deleted and created anew, or the configuration adapted"
	}
	return fmt.Sprintf("%s %q: differs: %s; %s", op, target, strings.Join(texts, ", "), advice)
}

// Unwrap returns ErrAlreadyExists and, for a bucket, upstream's error of the same meaning.
func (e *DriftError) Unwrap() []error {
	if e.Bucket != "" {
		return []error{ErrAlreadyExists, jetstream.ErrBucketExists}
	}
	return []error{ErrAlreadyExists}
}
