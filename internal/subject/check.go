package subject

import (
	"strings"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// MaxName is how long the name of a stream or a consumer may be (nats-server, JSMaxNameLen).
const MaxName = 255

// CheckName refuses what cannot name a stream or a consumer: the name becomes one token of the
// subjects of the JetStream API, and a part of a file's path on the server.
func CheckName(op, what, name string) error {
	switch {
	case name == "":
		return fault.New(op, name, fault.ErrInvalidArgument, "the %s needs a name", what)
	case len(name) > MaxName:
		return fault.New(op, name, fault.ErrInvalidArgument, "a %s's name has at most %d bytes, not %d", what, MaxName, len(name))
	case strings.ContainsAny(name, ".*>/\\"):
		return fault.New(op, name, fault.ErrInvalidArgument, `a %s's name must not contain . * > / or \`, what)
	case Fault(name, false) != "":
		return fault.New(op, name, fault.ErrInvalidArgument, "a %s's name must not contain spaces or control characters", what)
	}
	return nil
}

// noToken is what nats.go refuses in a header's name, although the server and other clients do not.
const noToken = `"()/,:;<=>?@[\]{}`

// CheckHeader refuses what would end a header line early and smuggle in another one.
func CheckHeader(op, subject string, header natsgo.Header) error {
	for name, values := range header {
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(noToken, r) }) {
			return fault.New(op, subject, fault.ErrInvalidHeader, "the name %q is not one of ASCII letters, digits and !#$%%&'*+-.^_`|~", name)
		}
		for _, value := range values {
			if strings.ContainsAny(value, "\r\n") {
				return fault.New(op, subject, fault.ErrInvalidHeader, "the value of %q has a line break", name)
			}
		}
	}
	return nil
}
