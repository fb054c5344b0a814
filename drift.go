package nats

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
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
func (d Drift) String() string {
	text := fmt.Sprintf("%s %s -> %s", d.Field, readable(d.Live), readable(d.Want))
	switch {
	case !d.Changeable:
		text += " (cannot be changed)"
	case d.Effect != "":
		text += " (" + d.Effect + ")"
	}
	return text
}

// readable prints an empty list or text as something that can be seen.
func readable(v any) string {
	if text := fmt.Sprint(v); text != "" {
		return text
	}
	return `""`
}

func (e *DriftError) Error() string {
	texts := make([]string, len(e.Drifts))
	fixed := false
	for i, drift := range e.Drifts {
		texts[i] = drift.String()
		fixed = fixed || !drift.Changeable
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

// drifts compares the fields of live and want, two configurations of the same type, and returns live
// with what want sets, and how the two differ. A field that want leaves at zero means "as it is".
func drifts[T any](live, want T, rules map[string]rule, state *jetstream.StreamState) (merged T, found []Drift) {
	merged = live
	target := reflect.ValueOf(&merged).Elem()
	old, now := reflect.ValueOf(live), reflect.ValueOf(want)
	for i := range now.NumField() {
		if now.Field(i).IsZero() {
			continue
		}
		a, b := old.Field(i).Interface(), now.Field(i).Interface()
		if same(a, b) {
			continue
		}
		target.Field(i).Set(now.Field(i))
		name := now.Type().Field(i).Name
		effect, changeable := rules[name](a, b, state)
		found = append(found, Drift{
			Field: name, Live: a, Want: b, Changeable: changeable, Shrinks: effect != "", Effect: effect,
		})
	}
	return merged, found
}

// same tells whether two values of a field mean the same.
func same(a, b any) bool {
	switch b := b.(type) {
	case []string: // subjects and filters, whose order means nothing
		a := slices.Clone(a.([]string))
		b = slices.Clone(b)
		slices.Sort(a)
		slices.Sort(b)
		return slices.Equal(a, b)
	case *time.Time:
		a := a.(*time.Time)
		return a != nil && a.Equal(*b)
	}
	return reflect.DeepEqual(a, b)
}

// uncovered returns those of inner that none of outer covers.
func uncovered(outer, inner []string) []string {
	return slices.DeleteFunc(slices.Clone(inner), func(subject string) bool {
		return slices.ContainsFunc(outer, func(pattern string) bool { return subjects.Covers(pattern, subject) })
	})
}
