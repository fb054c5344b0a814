package subject_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
)

// FuzzFault compares the validator with the rules written as regular expressions.
func FuzzFault(f *testing.F) {
	for _, name := range []string{
		"", ".", "foo.", ".foo", "foo..bar", "a b", "a\r\nPUB x 0", "a\x7fb", "foo.>.bar", "foo*", "foo.*bar", "**", "foo.>>", "a", "a.b", "*", ">", "a.*.b", "a.>", "$JS.API", "中文.主题", "\xff", "a.\xff",
	} {
		f.Add(name)
	}
	// Bytes, not characters: what is not a control byte of ASCII is a part of a token.
	literal := regexp.MustCompile(`^(?s:[^\x00-\x20\x7f.*>])+$`)
	f.Fuzz(func(t *testing.T, name string) {
		tokens := strings.Split(name, ".")
		publish, subscribe := true, true
		for i, token := range tokens {
			// Each byte as a rune of its own, so that the expression sees bytes.
			isLiteral := literal.MatchString(asLatin1(token))
			publish = publish && isLiteral
			subscribe = subscribe && (isLiteral || token == "*" || token == ">" && i == len(tokens)-1)
		}
		assert.Equal(t, publish, subject.Fault(name, false) == "", "publish to %q", name)
		assert.Equal(t, subscribe, subject.Fault(name, true) == "", "subscribe to %q", name)
	})
}

func asLatin1(s string) string {
	runes := make([]rune, len(s))
	for i := range len(s) {
		runes[i] = rune(s[i])
	}
	return string(runes)
}

func TestCovers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		outer, inner string
		covers       bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a", "a.b", false}, {"a.b", "a", false},
		{"*", "a", true}, {"a.*", "a.b", true}, {"a.*", "a.*", true}, {"a.b", "a.*", false}, {"*", "a.b", false},
		{">", "a.b.c", true}, {"a.>", "a.b", true}, {"a.>", "a", false}, {"a.>", "a.>", true}, {"a.*", "a.>", false},
		{">", ">", true}, {"*.b", "a.b", true}, {"*.*", "*.b", true},
	} {
		assert.Equal(t, test.covers, subject.Covers(test.outer, test.inner), "%s covers %s", test.outer, test.inner)
	}
}

func TestCheckName(t *testing.T) {
	t.Parallel()
	require.NoError(t, subject.CheckName("op", "stream", strings.Repeat("x", subject.MaxName)))
	for name, reason := range map[string]string{
		"":                                     "needs a name",
		"a.b":                                  "must not contain",
		"a/b":                                  "must not contain",
		"a*":                                   "must not contain",
		"a b":                                  "spaces or control characters",
		strings.Repeat("x", subject.MaxName+1): "at most 255 bytes, not 256",
	} {
		require.ErrorContains(t, subject.CheckName("op", "stream", name), reason, name)
	}
}
