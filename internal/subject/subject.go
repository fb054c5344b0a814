package subject

import "strings"

// A subject is tokens joined by dots. The rules are those of the NATS protocol, plus one: a
// wildcard character inside a longer token ("foo*") is legal on the wire but never matches what
// its writer had in mind, so it is refused.
const (
	reasonEmpty         = "it is empty"
	reasonEmptyToken    = "it has an empty token"
	reasonBlank         = "it has a space or control character"
	reasonInnerWildcard = "a wildcard stands inside a token; * and > must be tokens of their own"
	reasonInnerTail     = "the wildcard > must be the last token"
	reasonWildcard      = "wildcards are for subscriptions, not for publishing"
)

// Fault says what is wrong with a subject, or "" when nothing is. It allocates nothing: it
// runs before every publish.
func Fault(subject string, wildcards bool) string {
	if subject == "" {
		return reasonEmpty
	}
	start := 0 // of the current token
	var wild, tail bool
	for i := 0; i <= len(subject); i++ {
		if i < len(subject) {
			switch c := subject[i]; {
			case c > '>' && c != 0x7f: // letters, first of all
				continue
			case c == '.':
			case c <= ' ' || c == 0x7f:
				return reasonBlank
			case c == '*' || c == '>':
				wild = true
				continue
			default:
				continue
			}
		}
		// A token ends here.
		switch {
		case i == start:
			return reasonEmptyToken
		case tail:
			return reasonInnerTail
		case wild && i-start > 1:
			return reasonInnerWildcard
		case wild && !wildcards:
			return reasonWildcard
		}
		tail = wild && subject[start] == '>'
		wild = false
		start = i + 1
	}
	return ""
}

// Covers tells whether every subject that matches inner matches outer as well.
func Covers(outer, inner string) bool {
	a, b := strings.Split(outer, "."), strings.Split(inner, ".")
	for i, token := range a {
		switch {
		case token == ">":
			return len(b) > i
		case i >= len(b), b[i] == ">", token != "*" && token != b[i]:
			return false
		}
	}
	return len(a) == len(b)
}

// Meets tells whether some subject matches both.
func Meets(one, other string) bool {
	a, b := strings.Split(one, "."), strings.Split(other, ".")
	for i := range min(len(a), len(b)) {
		switch {
		case a[i] == ">" || b[i] == ">":
			return true
		case a[i] != b[i] && a[i] != "*" && b[i] != "*":
			return false
		}
	}
	return len(a) == len(b)
}

// Head returns the part of a subject by which streams mostly are told apart: its first token, and the second
// as well where the first begins with "$", as in the subjects of buckets.
func Head(subject string) string {
	head, rest, _ := strings.Cut(subject, ".")
	if strings.HasPrefix(head, "$") {
		second, _, _ := strings.Cut(rest, ".")
		return subject[:min(len(head)+1+len(second), len(subject))]
	}
	return head
}
