package jsapi

import (
	"errors"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// inProcess tells whether the server refuses a message because it, or another one on its subject whose
// sequence is expected, is on its way to the replicas: it is not known yet what becomes of it.
func inProcess(err error) bool {
	code := fault.CodeOf(err)
	return code == fault.CodeSequenceInProcess || code == fault.CodeDuplicateInProcess
}

// crowded tells whether the server refuses for want of room in a queue.
func crowded(err error) bool { return fault.Kind(err) == fault.ErrTooManyRequests } //nolint:errorlint // a sentinel of our own table

// errEarly is joined to an answer by a server that does not know yet what another one has said.
var errEarly = errors.New("a server does not know of it yet")

// Passes tells whether the server's answer is about its own state, so that the same may be done a moment
// later.
func Passes(err error) bool {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, fault.ErrJetStreamDisabled):
		return false
	case errors.Is(err, errEarly):
		return true
	case errors.As(err, &api):
		return fault.Passes(api)
	case errors.Is(err, natsgo.ErrNoResponders), errors.Is(err, errLeaderless), errors.Is(err, natsgo.ErrReconnectBufExceeded):
		return true
	}
	return errors.Is(err, jetstream.ErrInvalidJSAck) // a core subscriber answered first
}
