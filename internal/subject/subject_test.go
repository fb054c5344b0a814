package subject_test

import (
	"net/textproto"
	"regexp"
	"strings"
	"testing"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
)

// FuzzFault compares the validator with the rules written as regular expressions.
func FuzzFault(f *testing.F) {
	for _, name := range []string{
		"", ".", "foo.", ".foo", "foo..bar", "a b", "a\r\nPUB x 0", "a\x7fb", "foo.>.bar", "foo*", "foo.*bar", "**", "foo.>>", "a", "a.b", "*", ">", "a.*.b", "*.bc", "a.>", "$JS.API", "中文.主题", "\xff", "a.\xff",
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

// The first fault is told.
func TestFaultSaysWhy(t *testing.T) {
	t.Parallel()
	for name, reason := range map[string]string{
		"": "it is empty", "a..b": "empty token", ".a": "empty token", "a b": "space or control", "a\x7f": "space or control",
		"a.b*": "inside a token", "*a.b": "inside a token", "a.*": "not for publishing", ">": "not for publishing",
	} {
		assert.Contains(t, subject.Fault(name, false), reason, name)
	}
	assert.Contains(t, subject.Fault(">.a", true), "must be the last")
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

func TestMeets(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		one, other string
		meet       bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a", "a.b", false}, {"a.*", "*.b", true}, {"a.*", "b.*", false},
		{"a.>", "*.b", true}, {"a.>", "a", false}, {"a.>", "*", false}, {">", "a.b.c", true}, {"a.>", "a.b.>", true},
		{"a.*.c", "a.>", true}, {"a.*.c", "*.b", false}, {"order.created", "orders.>", false},
	} {
		assert.Equal(t, test.meet, subject.Meets(test.one, test.other), "%s meets %s", test.one, test.other)
		assert.Equal(t, test.meet, subject.Meets(test.other, test.one), "%s meets %s", test.other, test.one)
	}
}

func TestHead(t *testing.T) {
	t.Parallel()
	for name, head := range map[string]string{
		"a.b.c": "a", "a": "a", "": "", "$JS.API.x": "$JS.API", "$JS.API": "$JS.API", "$JS": "$JS", "$JS.": "$JS.",
	} {
		assert.Equal(t, head, subject.Head(name), name)
	}
}

// A header that passes is one that nats.go sends as it is, and reads as it was but for spaces around a value.
func FuzzCheckHeader(f *testing.F) {
	for _, name := range []string{"", " ", "A", "!", "~", "\x7f", "a:b", "é", "a\r", "Nats-Msg-Id", "a b", "a/b", `"`, "!#$%&'*+-.^_`|~"} {
		for _, value := range []string{"", "b", " b ", "a\r\nb: c", "\x00", "日", "\xff"} {
			f.Add(name, value)
		}
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		err := subject.CheckHeader("op", "s", natsgo.Header{"X": {"y"}, name: {"z", value}})
		sent := (&natsgo.Msg{Header: natsgo.Header{name: {value}}}).Size() > 0
		require.Equal(t, sent && !strings.ContainsAny(value, "\r\n"), err == nil, "%q: %q", name, value)
		if err != nil {
			require.ErrorIs(t, err, fault.ErrInvalidHeader)
			return
		}
		value = textproto.TrimString(value)
		read, err := natsgo.DecodeHeadersMsg([]byte("NATS/1.0\r\n" + name + ": " + value + "\r\n\r\n"))
		require.NoError(t, err)
		require.Equal(t, natsgo.Header{name: {value}}, read)
	})
}

func TestCheckName(t *testing.T) {
	t.Parallel()
	require.NoError(t, subject.CheckName("op", "stream", strings.Repeat("x", subject.MaxName)))
	for name, reason := range map[string]string{
		"":                                     "needs a name",
		"a.b":                                  "must not contain",
		"a/b":                                  "must not contain",
		`a\b`:                                  "must not contain",
		"a*":                                   "must not contain",
		">":                                    "must not contain",
		"a b":                                  "spaces or control characters",
		strings.Repeat("x", subject.MaxName+1): "at most 255 bytes, not 256",
	} {
		require.ErrorContains(t, subject.CheckName("op", "stream", name), reason, name)
	}
}
