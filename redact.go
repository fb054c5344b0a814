package nats

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

const redactedSecret = "***"

// The types without methods are what the printing methods below print, so as not to call themselves.
type (
	plainConfig       Config
	plainConsulConfig ConsulConfig
)

// String lists the keys that are set, secrets as "***".
func (c Config) String() string { return textOf(plainConfig(c.redacted())) }

// GoString is the Go literal, secrets as "***".
func (c Config) GoString() string { return literalOf(plainConfig(c.redacted())) }

// Format prints String, or GoString for %#v, so that no verb prints a secret.
func (c Config) Format(s fmt.State, verb rune) { formatConfig(s, verb, c) }

// LogValue is a group of the keys that are set, secrets as "***".
func (c Config) LogValue() slog.Value { return groupOf(plainConfig(c.redacted())) }

// MarshalJSON is for showing: the keys are those of the YAML file, secrets are "***".
func (c Config) MarshalJSON() ([]byte, error) { return jsonOf(plainConfig(c.redacted())) }

// MarshalYAML is for showing: [LoadConfig] reads the result, but secrets are "***".
func (c Config) MarshalYAML() (any, error) { return plainConfig(c.redacted()), nil }

// String lists the keys that are set, secrets as "***".
func (c ConsulConfig) String() string { return textOf(plainConsulConfig(c.redacted())) }

// GoString is the Go literal, secrets as "***".
func (c ConsulConfig) GoString() string { return literalOf(plainConsulConfig(c.redacted())) }

// Format prints String, or GoString for %#v, so that no verb prints a secret.
func (c ConsulConfig) Format(s fmt.State, verb rune) { formatConfig(s, verb, c) }

// LogValue is a group of the keys that are set, secrets as "***".
func (c ConsulConfig) LogValue() slog.Value { return groupOf(plainConsulConfig(c.redacted())) }

// MarshalJSON is for showing: the keys are those of the YAML file, secrets are "***".
func (c ConsulConfig) MarshalJSON() ([]byte, error) { return jsonOf(plainConsulConfig(c.redacted())) }

// MarshalYAML is for showing: secrets are "***".
func (c ConsulConfig) MarshalYAML() (any, error) { return plainConsulConfig(c.redacted()), nil }

// redacted returns a copy that shares no memory with the receiver and holds no secret.
func (c Config) redacted() Config {
	c = c.clone()
	redactFields(reflect.ValueOf(&c).Elem())
	return c
}

func (c ConsulConfig) redacted() ConsulConfig {
	redactFields(reflect.ValueOf(&c).Elem())
	return c
}

func redactFields(v reflect.Value) {
	for _, f := range leafFields(v, "") {
		switch {
		case f.value.IsZero() || f.secret == "":
		case f.secret == secretValue:
			f.value.SetString(redactedSecret)
		case f.value.Kind() == reflect.Slice:
			f.value.Set(reflect.ValueOf(serverurl.RedactAll(f.value.Interface().([]string))))
		default:
			f.value.SetString(serverurl.Redact(f.value.String()))
		}
	}
}

func textOf(plain any) string {
	var texts []string
	for _, f := range leafFields(reflect.ValueOf(plain), "") {
		if f.value.IsZero() {
			continue
		}
		verb := "%s=%v"
		if f.value.Kind() == reflect.String || f.value.Kind() == reflect.Slice {
			verb = "%s=%q" // quoted, so that no value can pass for another key or line
		}
		texts = append(texts, fmt.Sprintf(verb, f.key, f.value.Interface()))
	}
	return "{" + strings.Join(texts, " ") + "}"
}

func literalOf(plain any) string {
	return strings.Replace(fmt.Sprintf("%#v", plain), "nats.plain", "nats.", 1)
}

func groupOf(plain any) slog.Value {
	var attrs []slog.Attr
	for _, f := range directFields(reflect.ValueOf(plain), "") {
		if !f.value.IsZero() {
			attrs = append(attrs, slog.Any(f.key, shown(f.value)))
		}
	}
	return slog.GroupValue(attrs...)
}

func jsonOf(plain any) ([]byte, error) {
	object := map[string]any{}
	for _, f := range directFields(reflect.ValueOf(plain), "") {
		object[f.key] = shown(f.value)
	}
	return json.Marshal(object)
}

// shown is the field's value as people write it: "2s" and not a number of nanoseconds.
func shown(v reflect.Value) any {
	if d, ok := v.Interface().(time.Duration); ok {
		return d.String()
	}
	return v.Interface()
}

// formatConfig serves every verb but %#v from the text: without it a verb that is no string's,
// such as %d, would print the fields themselves.
func formatConfig(s fmt.State, verb rune, c interface {
	fmt.Stringer
	fmt.GoStringer
}) {
	if verb == 'v' && s.Flag('#') {
		_, _ = io.WriteString(s, c.GoString())
		return
	}
	_, _ = fmt.Fprintf(s, fmt.FormatString(s, verb), c.String())
}
