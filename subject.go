package nats

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

// subjectFault says what is wrong with a subject, or "" when nothing is. It allocates nothing: it
// runs before every publish.
func subjectFault(subject string, wildcards bool) string {
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

// checkPublishSubject refuses a subject that cannot be published to.
func checkPublishSubject(op, subject string) error {
	if fault := subjectFault(subject, false); fault != "" {
		return fail(op, subject, ErrInvalidSubject, "%s", fault)
	}
	return nil
}

// checkSubscribeSubject refuses a subject that cannot be subscribed to.
func checkSubscribeSubject(op, subject string) error {
	if fault := subjectFault(subject, true); fault != "" {
		return fail(op, subject, ErrInvalidSubject, "%s", fault)
	}
	return nil
}

// checkQueue refuses a queue group's name that would break the protocol.
func checkQueue(op, subject, queue string) error {
	if fault := subjectFault(queue, false); fault != "" {
		return fail(op, subject, ErrInvalidSubject, "queue group %q: %s", queue, fault)
	}
	return nil
}

// checkName refuses what cannot name a stream or a consumer: the name becomes one token of the
// subjects of the JetStream API, and a part of a file's path on the server.
func checkName(op, what, name string) error {
	switch {
	case name == "":
		return fail(op, name, ErrInvalidArgument, "the %s needs a name", what)
	case strings.ContainsAny(name, ".*>/\\"):
		return fail(op, name, ErrInvalidArgument, `a %s's name must not contain . * > / or \`, what)
	case subjectFault(name, false) != "":
		return fail(op, name, ErrInvalidArgument, "a %s's name must not contain spaces or control characters", what)
	}
	return nil
}
