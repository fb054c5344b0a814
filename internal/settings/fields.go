package settings

import (
	"cmp"
	"errors"
	"iter"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// envPrefix and a key in capitals are the name of the key's environment variable.
const envPrefix = "ISA_CLOUD_NATS_"

// What the struct tag "secret" says about a field: its whole value is a secret, or it is a URL (or
// several) that may carry one.
const (
	secretValue = "true"
	secretURL   = "url"
)

// setting is one field of the struct. The file's keys, the environment variables, the checks and the
// redaction all come from the struct tags by way of it, so they cannot disagree.
type setting struct {
	key    string // "consul.address"
	secret string // secretValue, secretURL or empty
	choice string // "authentication:token" for one of several ways, of which only one may be used; or empty
	value  reflect.Value
}

// direct lists the fields of a struct in their order, blocks included.
func direct(v reflect.Value, prefix string) []setting {
	fields := make([]setting, 0, v.NumField())
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		fields = append(fields, setting{prefix + tag.Get("yaml"), tag.Get("secret"), tag.Get("choice"), v.Field(i)})
	}
	return fields
}

// leaves lists the fields that hold a value, those of blocks with the block's name before the
// dot.
func leaves(v reflect.Value, prefix string) []setting {
	var found []setting
	for _, f := range direct(v, prefix) {
		if f.isBlock() {
			found = append(found, leaves(f.value, f.key+".")...)
		} else {
			found = append(found, f)
		}
	}
	return found
}

func (s setting) isBlock() bool { return s.value.Kind() == reflect.Struct }

// variable is the name of the field's environment variable.
func (s setting) variable() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(s.key, ".", "_"))
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

// Values lists the keys of a struct with their values.
func Values(plain any) iter.Seq2[string, any] {
	return func(yield func(string, any) bool) {
		for _, s := range leaves(reflect.ValueOf(plain), "") {
			if !yield(s.key, s.value.Interface()) {
				return
			}
		}
	}
}

// nearest returns the known name that was most likely meant, or "" when none is close. A name that
// is only right without its block ("address" for "consul.address") counts when nothing else does.
func nearest(name string, known []string) string {
	name = strings.ToLower(name)
	if found := closest(name, known, strings.ToLower); found != "" {
		return found
	}
	return closest(lastPart(name), known, lastPart)
}

func closest(name string, known []string, form func(string) string) string {
	if len(known) == 0 {
		return ""
	}
	distance := func(s string) int {
		s = form(s)
		if strings.HasPrefix(s, name+"_") || strings.HasSuffix(s, "_"+name) || strings.HasSuffix(name, "_"+s) {
			return 1 // "nkey" means "nkey_seed", though "near" takes fewer edits, and "nats_urls" means "urls"
		}
		return editDistance(name, s)
	}
	best := slices.MinFunc(known, func(a, b string) int { return cmp.Compare(distance(a), distance(b)) })
	if d := distance(best); d > max(2, len(name)/3) || d >= len(name) {
		return ""
	}
	return best
}

func lastPart(key string) string { return key[strings.LastIndexByte(key, '.')+1:] }

// editDistance counts the insertions, deletions and replacements of bytes that turn a into b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
