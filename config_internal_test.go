package nats

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWithDefaultsCopies(t *testing.T) {
	t.Parallel()
	original := Config{URLs: []string{"nats://a", "nats://b"}, Timeout: time.Minute}
	full := original.withDefaults()
	require.Equal(t, original.URLs, full.URLs)
	require.Equal(t, time.Minute, full.Timeout)
	require.Equal(t, full, full.withDefaults(), "a second time changes nothing")

	full.URLs[0] = "changed"
	require.Equal(t, Config{URLs: []string{"nats://a", "nats://b"}, Timeout: time.Minute}, original)
}

// A further slice, map or pointer field must be copied by clone, which this reminds of.
func TestCloneSharesNothing(t *testing.T) {
	t.Parallel()
	for _, f := range leafFields(reflect.ValueOf(Config{}), "") {
		switch f.value.Kind() {
		case reflect.Slice:
			require.Equal(t, "urls", f.key, "clone copies only urls")
		case reflect.Map, reflect.Pointer, reflect.Interface, reflect.Func, reflect.Chan:
			t.Errorf("%s: clone cannot copy a %s", f.key, f.value.Kind())
		}
	}
}

// A field of a type that the loader cannot parse would be ignored in silence.
func TestEveryFieldTakesAText(t *testing.T) {
	t.Parallel()
	var c Config
	fields := leafFields(reflect.ValueOf(&c).Elem(), "")
	for _, f := range fields {
		require.NotEmpty(t, f.key)
		set := false
		for _, text := range []string{"7s", "7", "true"} {
			set = set || f.set(text) == nil && !f.value.IsZero()
		}
		require.True(t, set, f.key)
	}
}

func TestRedacted(t *testing.T) {
	t.Parallel()
	c := Config{URLs: []string{"nats://u:p@a"}, Password: "p", Consul: ConsulConfig{Token: "t", Tag: "x"}}
	r := c.redacted()
	require.Equal(t, Config{URLs: []string{"nats://u:***@a"}, Password: "***", Consul: ConsulConfig{Token: "***", Tag: "x"}}, r)
	require.Equal(t, Config{URLs: []string{"nats://u:p@a"}, Password: "p", Consul: ConsulConfig{Token: "t", Tag: "x"}}, c)
	require.Equal(t, Config{}, Config{}.redacted())
}

func TestEditDistance(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"url", "urls", 1}, {"kitten", "sitting", 3}, {"ab", "ba", 2}} {
		require.Equal(t, test.want, editDistance(test.a, test.b))
	}
}

// No file makes the loader panic, and whatever is written after "password:", the error does not
// repeat it.
func FuzzConfigFile(f *testing.F) {
	const canary = "hunter2canary"
	sample := "urls: [nats://a]\nconsul:\n  timeout: &t 2s\ntimeout: *t\n"
	for _, before := range []string{
		"", "*", "&", "!", "!!", "!a!", "|", ">", "%", "@", "`", "'", `"`, `"\q`, "[", "{", "{a: ", "? ", ": ", "- ", "#", "\x00", "\xff", "<<: ",
	} {
		f.Add(before, []byte(sample))
	}
	load := func(data []byte) error {
		var c Config
		l := newConfigLoader(&c)
		l.document("nats.yaml", data)
		l.problems = append(l.problems, c.problems()...)
		return invalidConfig(l.problems)
	}
	f.Fuzz(func(t *testing.T, before string, data []byte) {
		_ = load(data)
		if strings.ContainsAny(before, "\n\r\u0085\u2028\u2029") || before != "" && strings.Contains(canary, before) {
			return // a canary on its own line may be a key
		}
		for _, key := range []string{"password", "consul.token", "urls"} {
			if err := load(fmt.Appendf(nil, "%s: %s%s", key, before, canary)); err != nil {
				require.NotContains(t, err.Error(), canary)
			}
		}
	})
}
