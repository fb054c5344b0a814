package drift

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Difference is one field that differs. The root package has the same struct, with its comments.
type Difference struct {
	Field      string
	Live       any
	Want       any
	Changeable bool
	Shrinks    bool
	Effect     string
}

// String returns the field, both values and the effect on one line.
func (d Difference) String() string {
	text := fmt.Sprintf("%s %s -> %s", d.Field, readable(d.Live), readable(d.Want))
	switch {
	case !d.Changeable:
		text += " (cannot be changed)"
	case d.Effect != "":
		text += " (" + d.Effect + ")"
	}
	return text
}

// readable prints a value as something that can be seen: an empty text, and what is behind a pointer.
func readable(v any) string {
	value := reflect.ValueOf(v)
	kind := value.Kind()
	if kind == reflect.Slice && value.Type().Elem().Kind() == reflect.Pointer {
		kind = reflect.Struct
	}
	switch kind {
	case reflect.Pointer, reflect.Struct:
		if value.IsZero() && kind == reflect.Pointer {
			return "none"
		}
		if text, err := json.Marshal(v); err == nil {
			return string(text)
		}
	case reflect.String:
		if value.Len() == 0 {
			return `""`
		}
	}
	return fmt.Sprint(v)
}

// Stream compares a stream, of which state tells what is stored, with what is wanted. It returns live
// with all that want sets, as do the others.
func Stream(live, want jetstream.StreamConfig, state *jetstream.StreamState) (jetstream.StreamConfig, []Difference) {
	want.Metadata = mergedMetadata(live.Metadata, want.Metadata)
	merged, found := compare(live, want, streamRules, state, false)
	if want.Duplicates == 0 && merged.MaxAge > 0 {
		merged.Duplicates = min(merged.Duplicates, merged.MaxAge) // the server demands it
	}
	return merged, found
}

// Consumer compares a consumer with what is wanted.
func Consumer(live, want jetstream.ConsumerConfig) (jetstream.ConsumerConfig, []Difference) {
	want.Metadata = mergedMetadata(live.Metadata, want.Metadata)
	// One filter stands in a field of its own on the server, but means the same in the list.
	live.FilterSubject, live.FilterSubjects = "", filters(&live)
	want.FilterSubject, want.FilterSubjects = "", filters(&want)
	if len(want.BackOff) > 0 {
		want.AckWait = want.BackOff[0] // the server makes it so
	}
	merged, found := compare(live, want, consumerRules, nil, false)
	if len(merged.FilterSubjects) == 1 {
		merged.FilterSubject, merged.FilterSubjects = merged.FilterSubjects[0], nil
	}
	return merged, found
}

func filters(cfg *jetstream.ConsumerConfig) []string {
	if cfg.FilterSubject == "" {
		return cfg.FilterSubjects
	}
	return append([]string{cfg.FilterSubject}, cfg.FilterSubjects...)
}

// KeyValue compares a key-value bucket with what is wanted. Exact compares what want leaves at zero as
// well, with the values that the server puts there.
func KeyValue(live, want jetstream.KeyValueConfig, exact bool) (jetstream.KeyValueConfig, []Difference) {
	live.Metadata = users(live.Metadata)
	if exact {
		want.History, want.Replicas = max(want.History, 1), max(want.Replicas, 1)
		want.MaxBytes, want.MaxValueSize = cmp.Or(want.MaxBytes, -1), cmp.Or(want.MaxValueSize, -1)
	} else {
		want.Metadata = mergedMetadata(live.Metadata, want.Metadata)
	}
	return compare(live, want, keyValueRules, nil, exact)
}

// ObjectStore compares a bucket of objects with what is wanted, as KeyValue does.
func ObjectStore(live, want jetstream.ObjectStoreConfig, exact bool) (jetstream.ObjectStoreConfig, []Difference) {
	live.Metadata, live.MaxBytes = users(live.Metadata), max(live.MaxBytes, 0)
	if !exact {
		want.Metadata = mergedMetadata(live.Metadata, want.Metadata)
	}
	return compare(live, want, objectStoreRules, nil, exact)
}

// Forbids tells whether one of the differences cannot be mended, or must not be because it shrinks.
func Forbids(found []Difference, shrink bool) bool {
	return slices.ContainsFunc(found, func(d Difference) bool { return !d.Changeable || d.Shrinks && !shrink })
}

// mergedMetadata returns live with the keys of want, or nil when want has none.
func mergedMetadata(live, want map[string]string) map[string]string {
	if len(want) == 0 {
		return nil
	}
	merged := maps.Clone(live)
	if merged == nil {
		merged = make(map[string]string, len(want))
	}
	maps.Copy(merged, want)
	return merged
}

// users returns metadata without what the server writes into it.
func users(metadata map[string]string) map[string]string {
	own := maps.Clone(metadata)
	maps.DeleteFunc(own, func(key, _ string) bool { return strings.HasPrefix(key, "_nats.") })
	return own
}

// compare returns live with what want sets, and how the two differ.
func compare[T any](live, want T, rules map[string]rule, state *jetstream.StreamState, exact bool) (merged T, found []Difference) {
	merged = live
	target := reflect.ValueOf(&merged).Elem()
	old, now := reflect.ValueOf(live), reflect.ValueOf(want)
	for i := range now.NumField() {
		a, b := old.Field(i), now.Field(i)
		if !exact && b.IsZero() || isEmpty(a) && isEmpty(b) || same(a.Interface(), b.Interface()) {
			continue
		}
		target.Field(i).Set(b)
		d := Difference{Field: now.Type().Field(i).Name, Live: a.Interface(), Want: b.Interface()}
		d.Effect, d.Changeable = "changes what has no rule here", true
		if rule, ok := rules[d.Field]; ok {
			d.Effect, d.Changeable = rule(d.Live, d.Want, state)
		}
		d.Shrinks = d.Effect != ""
		found = append(found, d)
	}
	return merged, found
}

// isEmpty tells whether a field is unset: nil and empty mean the same.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Map, reflect.Slice:
		return v.Len() == 0
	default:
		return v.IsZero()
	}
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
