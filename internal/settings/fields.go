package settings

import (
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// envPrefix and a key in capitals are the name of the key's environment variable.
const envPrefix = "ISA_CLOUD_NATS_"

// secretValue is what the struct tag "secret" says of a value that is a secret as a whole.
const secretValue = "true"

// setting is one field of the struct. The file's keys, the environment variables, the checks and the
// redaction all come from the struct tags by way of it, so they cannot disagree.
type setting struct {
	prefix string // of the key: the block's name and the dot
	tag    reflect.StructTag
	value  reflect.Value
}

// key is "consul.address".
func (s setting) key() string { return s.prefix + s.tag.Get("yaml") }

// secret is secretValue, "url" or empty.
func (s setting) secret() string { return s.tag.Get("secret") }

// direct lists the fields of a struct in their order, blocks included.
func direct(v reflect.Value, prefix string) iter.Seq[setting] {
	return func(yield func(setting) bool) {
		for i := range v.NumField() {
			if !yield(setting{prefix, v.Type().Field(i).Tag, v.Field(i)}) {
				return
			}
		}
	}
}

// leaves lists the fields that hold a value, those of blocks with the block's name before the
// dot.
func leaves(v reflect.Value, prefix string) iter.Seq[setting] {
	return func(yield func(setting) bool) {
		for f := range direct(v, prefix) {
			if !f.isBlock() {
				if !yield(f) {
					return
				}
				continue
			}
			for leaf := range leaves(f.value, f.key()+".") {
				if !yield(leaf) {
					return
				}
			}
		}
	}
}

func (s setting) isBlock() bool { return s.value.Kind() == reflect.Struct }

// variable is the name of the field's environment variable.
func (s setting) variable() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.key(), ".", "_"))
}

// set parses texts into the field. A list takes any number of texts, every other field one. The
// error says what was expected, and what was found unless that could be a secret.
func (s setting) set(texts ...string) error {
	if s.value.Kind() == reflect.Slice {
		s.value.Set(reflect.ValueOf(slices.Clone(texts)))
		return nil
	}
	text := texts[0]
	switch s.value.Interface().(type) {
	case string:
		s.value.SetString(text)
	case bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return expected("true or false", text)
		}
		s.value.SetBool(b)
	case int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return expected("a whole number", text)
		}
		s.value.SetInt(int64(n))
	case time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil {
			return expected(`a duration with its unit, such as "2s" or "1m30s"`, text)
		}
		s.value.SetInt(int64(d))
	}
	return nil
}

func expected(what, got string) error {
	return errors.New("expected " + what + ", got " + strconv.Quote(got))
}

// Durations lists the keys of a struct that are set to a duration.
func Durations(plain any) iter.Seq2[string, time.Duration] {
	return func(yield func(string, time.Duration) bool) {
		for s := range leaves(reflect.ValueOf(plain), "") {
			if d, _ := s.value.Interface().(time.Duration); d != 0 && !yield(s.key(), d) {
				return
			}
		}
	}
}

// hint proposes the known name that an unknown one shares most of its pairs of letters with, if half.
func hint(unknown string, known []string) string {
	best, most := "", 0.5
	pairs := pairsOf(unknown)
	for _, name := range known {
		shared, all := 0, pairsOf(name)
		for pair := range all {
			if pairs[pair] {
				shared++
			}
		}
		if likeness := float64(2*shared) / float64(len(pairs)+len(all)); likeness > most {
			best, most = name, likeness
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %q?", best)
}

// pairsOf leaves out the prefix of the variables, which may stand twice, or before a key.
func pairsOf(name string) map[string]bool {
	name = strings.ReplaceAll(strings.ToLower(name), strings.ToLower(envPrefix), "")
	pairs := map[string]bool{}
	for i := range len(name) - 1 {
		pairs[name[i:i+2]] = true
	}
	return pairs
}
