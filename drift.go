package nats

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/drift"
)

// DriftError is returned by EnsureStream, EnsureConsumer, EnsureKeyValue and EnsureObjectStore when what
// the server has differs from what is wanted in a way that they do not mend by themselves, and by
// CreateKeyValue and CreateObjectStore when it differs at all. Its text names every difference and what
// to do about it. It is ErrAlreadyExists.
type DriftError struct {
	// Bucket that differs, when it is one of keys or of objects.
	Bucket string
	// Stream that differs, or whose consumer does, or that holds the objects of Bucket; empty for a
	// bucket of keys.
	Stream string
	// Consumer that differs; empty when the stream does.
	Consumer string
	// Drifts has every field that differs, those included that could be changed without harm.
	Drifts []Drift

	create bool // the call changes nothing
}

// Drift is one field of a configuration that differs.
type Drift struct {
	// Field is the name of the field in jetstream.StreamConfig, ConsumerConfig, KeyValueConfig or
	// ObjectStoreConfig.
	Field string
	// Live is what the server has.
	Live any
	// Want is what was asked for.
	Want any
	// Changeable tells whether the server can change the field of something that exists.
	Changeable bool
	// Shrinks tells whether the change drops messages or subjects, or lowers a limit, so that it is
	// not made unasked.
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
	fixed, shrinks := false, false
	for i, d := range e.Drifts {
		texts[i] = d.String()
		fixed, shrinks = fixed || !d.Changeable, shrinks || d.Shrinks
	}
	verb, what, kind := "ensure", "stream", ""
	switch {
	case e.Bucket != "" && e.Stream != "":
		what, kind = "object store", "ObjectStore"
	case e.Bucket != "":
		what, kind = "key-value bucket", "KeyValue"
	case e.Consumer != "":
		what = "consumer"
	}
	if e.create {
		verb = "create"
	}
	remedy := "AllowShrink goes ahead"
	switch {
	case fixed:
		remedy = "it has to be deleted and created anew, or the configuration adapted"
	case e.create && !shrinks:
		remedy = "Ensure" + kind + " adapts it"
	case kind != "": // neither Ensure takes AllowShrink
		remedy = "upstream's Update" + kind + " goes ahead"
	}
	return fmt.Sprintf("%s %s %q: differs: %s; %s", verb, what, e.target(), strings.Join(texts, ", "), remedy)
}

func (e *DriftError) target() string { return cmp.Or(e.Bucket, path(e.Stream, e.Consumer)) }

// Unwrap returns ErrAlreadyExists, ErrSealed for what is, and upstream's error of the same meaning for a bucket.
func (e *DriftError) Unwrap() []error {
	errs := []error{ErrAlreadyExists}
	if slices.ContainsFunc(e.Drifts, func(d Drift) bool { return d.Field == "Sealed" && d.Live == true }) {
		errs = append(errs, ErrSealed)
	}
	if e.Bucket != "" {
		errs = append(errs, jetstream.ErrBucketExists)
	}
	return errs
}
