package wire

import (
	"strings"

	natsgo "github.com/nats-io/nats.go"
)

// The headers of a message of the server itself.
const (
	statusHeader      = "Status"
	descriptionHeader = "Description"
)

// Status codes (ADR-4, ADR-31, ADR-37).
const (
	StatusHeartbeat    = "100"
	StatusEndOfBatch   = "204"
	StatusBadRequest   = "400"
	StatusNotFound     = "404"
	StatusTimeout      = "408"
	StatusConflict     = "409"
	StatusNoResponders = "503"
)

// Status returns the status code and the description of a message of the server itself, or "" for
// another one, which may have a Status header of its own but then has a payload as well, or, from a
// consumer, a reply subject for its acknowledgement.
func Status(m *natsgo.Msg) (code, description string) {
	if m.Header == nil || len(m.Data) > 0 || m.Reply != "" {
		return "", ""
	}
	return m.Header.Get(statusHeader), m.Header.Get(descriptionHeader)
}

// NoResponders tells whether m is how the server itself answers a request on whose subject nobody
// listens. The error of a service may look like it.
func NoResponders(m *natsgo.Msg) bool {
	if len(m.Data) != 0 || m.Header == nil || m.Header.Get(statusHeader) != StatusNoResponders {
		return false
	}
	_, _, is := ReadServiceError(m.Header)
	return !is
}

// IsServers tells whether a header's name begins as those that mean something to the server.
func IsServers(name string) bool {
	const begin = "Nats-"
	return len(name) >= len(begin) && strings.EqualFold(name[:len(begin)], begin)
}
