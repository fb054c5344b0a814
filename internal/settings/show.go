package settings

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"strings"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

const hidden = "***"

// Redact hides every secret in the struct that dst points to. What it changes is no longer shared
// with copies of the struct.
func Redact(dst any) { redact(reflect.ValueOf(dst).Elem()) }

func redact(v reflect.Value) {
	for s := range leaves(v, "") {
		switch {
		case s.value.IsZero() || s.secret() == "":
		case s.secret() == secretValue:
			s.value.SetString(hidden)
		case s.value.Kind() == reflect.Slice:
			s.value.Set(reflect.ValueOf(serverurl.RedactAll(s.value.Interface().([]string))))
		default:
			s.value.SetString(serverurl.Redact(s.value.String()))
		}
	}
}

// Shown is a struct for printing: every way of it uses its keys and hides its secrets.
type Shown struct{ value reflect.Value }

// Show returns how to print a struct. Its type has no methods that print it, for they would be called.
func Show(plain any) Shown {
	v := reflect.New(reflect.TypeOf(plain)).Elem()
	v.Set(reflect.ValueOf(plain))
	redact(v)
	return Shown{v}
}

// String lists the keys that are set.
func (s Shown) String() string {
	var texts []string
	for f := range leaves(s.value, "") {
		if f.value.IsZero() {
			continue
		}
		verb := "%s=%v"
		if f.value.Kind() == reflect.String || f.value.Kind() == reflect.Slice {
			verb = "%s=%q" // quoted, so that no value can pass for another key or line
		}
		texts = append(texts, fmt.Sprintf(verb, f.key(), f.value.Interface()))
	}
	return "{" + strings.Join(texts, " ") + "}"
}

// GoString is the Go literal of nats.X for a type plainX.
func (s Shown) GoString() string {
	return strings.Replace(fmt.Sprintf("%#v", s.value.Interface()), "nats.plain", "nats.", 1)
}

// Format serves every verb but %#v from String: without it a verb that is no string's, such as %d,
// would print the fields themselves.
func (s Shown) Format(f fmt.State, verb rune) {
	if verb == 'v' && f.Flag('#') {
		_, _ = io.WriteString(f, s.GoString())
		return
	}
	_, _ = fmt.Fprintf(f, fmt.FormatString(f, verb), s.String())
}

// LogValue is a group of the keys that are set.
func (s Shown) LogValue() slog.Value {
	var attrs []slog.Attr
	for f := range direct(s.value, "") {
		if !f.value.IsZero() {
			attrs = append(attrs, slog.Any(f.key(), f.shown()))
		}
	}
	return slog.GroupValue(attrs...)
}

// MarshalJSON has all keys.
func (s Shown) MarshalJSON() ([]byte, error) {
	object := map[string]any{}
	for f := range direct(s.value, "") {
		object[f.key()] = f.shown()
	}
	return json.Marshal(object)
}

// MarshalYAML has all keys, as a file has them.
func (s Shown) MarshalYAML() (any, error) { return s.value.Interface(), nil }

// shown is the value as people write it: "2s" and not a number of nanoseconds.
func (s setting) shown() any {
	if d, ok := s.value.Interface().(time.Duration); ok {
		return d.String()
	}
	return s.value.Interface()
}
