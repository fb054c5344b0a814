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
	return stream(live, want, streamRules, state, false)
}

// KeyValue compares a bucket's stream with what is wanted of the bucket, and names the bucket's fields.
// Exact compares what want leaves at zero as well.
func KeyValue(live jetstream.StreamConfig, want jetstream.KeyValueConfig, exact bool) (jetstream.StreamConfig, []Difference) {
	return bucket(live, keyValue(want), keyValueRules, keyValueNames, exact)
}

// ObjectStore compares a bucket of objects as KeyValue does one of keys.
func ObjectStore(live jetstream.StreamConfig, want jetstream.ObjectStoreConfig, exact bool) (jetstream.StreamConfig, []Difference) {
	return bucket(live, objectStore(want), objectStoreRules, objectStoreNames, exact)
}

// bucket compares only what the bucket's configuration has: all else of its stream is an administrator's.
func bucket(live, want jetstream.StreamConfig, rules map[string]rule, names map[string]string, exact bool) (jetstream.StreamConfig, []Difference) {
	if exact {
		want.Replicas = max(want.Replicas, 1)
		want.MaxMsgsPerSubject = max(want.MaxMsgsPerSubject, 1)
	}
	merged, found := stream(live, want, rules, nil, exact)
	merged.AllowMsgTTL = merged.AllowMsgTTL || merged.SubjectDeleteMarkerTTL > 0
	for i, d := range found {
		found[i].Field = cmp.Or(names[d.Field], d.Field)
	}
	if live.Sealed && (exact || len(found) > 0) {
		found = append(found, Difference{Field: "Sealed", Live: true, Want: false})
	}
	return merged, found
}

func stream(live, want jetstream.StreamConfig, rules map[string]rule, state *jetstream.StreamState, exact bool) (jetstream.StreamConfig, []Difference) {
	merged, live, want := live, normal(live), normal(want)
	if want.MirrorDirect = want.MirrorDirect && !inherits(&live); want.Sealed { // the server decides
		want.MaxAge, want.AllowRollup = 0, false
	}
	found := compare(&merged, live, want, rules, state, exact)
	if want.Duplicates == 0 && merged.MaxAge > 0 {
		merged.Duplicates = min(merged.Duplicates, merged.MaxAge) // the server demands it
	}
	return merged, found
}

// Consumer compares a consumer with what is wanted.
func Consumer(live, want jetstream.ConsumerConfig) (jetstream.ConsumerConfig, []Difference) {
	merged := live
	// One filter stands in a field of its own on the server, but means the same in the list.
	live.FilterSubject, live.FilterSubjects = "", filters(&live)
	want.FilterSubject, want.FilterSubjects = "", filters(&want)
	want.MaxWaiting, want.InactiveThreshold = max(want.MaxWaiting, 0), max(want.InactiveThreshold, 0) // the default
	if len(want.BackOff) > 0 {
		want.AckWait = want.BackOff[0] // the server makes it so
	}
	if want.PauseUntil != nil && !want.PauseUntil.After(time.Now()) {
		want.PauseUntil = nil // it is over
	}
	found := compare(&merged, live, want, consumerRules, nil, false)
	if all := merged.FilterSubjects; len(all) > 0 {
		if merged.FilterSubject = ""; len(all) == 1 {
			merged.FilterSubject, merged.FilterSubjects = all[0], nil
		}
	}
	return merged, found
}

func filters(cfg *jetstream.ConsumerConfig) []string {
	if cfg.FilterSubject == "" {
		return cfg.FilterSubjects
	}
	return append([]string{cfg.FilterSubject}, cfg.FilterSubjects...)
}

// Forbids tells whether one of the differences cannot be mended, or must not be because it shrinks.
func Forbids(found []Difference, shrink bool) bool {
	return slices.ContainsFunc(found, func(d Difference) bool { return !d.Changeable || d.Shrinks && !shrink })
}

// users returns metadata without what the server writes into it.
func users(metadata map[string]string) map[string]string {
	own := maps.Clone(metadata)
	maps.DeleteFunc(own, func(key, _ string) bool { return strings.HasPrefix(key, "_nats.") })
	return own
}

// compare returns how the two differ, and puts what want sets into merged.
func compare[T any](merged *T, live, want T, rules map[string]rule, state *jetstream.StreamState, exact bool) (found []Difference) {
	target := reflect.ValueOf(merged).Elem()
	old, now := reflect.ValueOf(live), reflect.ValueOf(want)
	for i := range now.NumField() {
		name := now.Type().Field(i).Name
		rule, ok := rules[name]
		a, b := old.Field(i), now.Field(i)
		if exact && !ok || !exact && b.IsZero() {
			continue
		}
		if !exact {
			b = overlaid(a, b)
		}
		if isEmpty(a) && isEmpty(b) || same(a.Interface(), b.Interface()) {
			continue
		}
		target.Field(i).Set(b)
		d := Difference{Field: name, Live: a.Interface(), Want: b.Interface()}
		d.Effect, d.Changeable = "changes what has no rule here", true
		if ok {
			d.Effect, d.Changeable = rule(d.Live, d.Want, state)
		}
		d.Shrinks = d.Effect != ""
		found = append(found, d)
	}
	return found
}

// overlaid returns want with what it leaves out of a struct, or of metadata, as live has it.
func overlaid(live, want reflect.Value) reflect.Value {
	switch want.Kind() {
	case reflect.Map:
		merged := maps.Clone(live.Interface().(map[string]string))
		if merged == nil {
			return want
		}
		maps.Copy(merged, want.Interface().(map[string]string))
		return reflect.ValueOf(merged)
	case reflect.Struct:
		merged := reflect.New(want.Type()).Elem()
		merged.Set(want)
		for i := range want.NumField() {
			if want.Field(i).IsZero() {
				merged.Field(i).Set(live.Field(i))
			}
		}
		return merged
	default:
		return want
	}
}

// isEmpty tells whether a field is unset: nil and empty mean the same, and so do all numbers that
// set no bound.
func isEmpty(v reflect.Value) bool {
	switch {
	case v.Kind() == reflect.Map || v.Kind() == reflect.Slice:
		return v.Len() == 0
	case v.CanInt():
		return v.Int() <= 0
	default:
		return v.IsZero()
	}
}

// same tells whether two values of a field mean the same.
func same(a, b any) bool {
	switch b := b.(type) {
	case map[string]string: // what the server writes into it is nobody's wish
		return maps.Equal(users(a.(map[string]string)), users(b))
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
