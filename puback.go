package nats

import (
	"errors"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// isInProcess tells whether the server refuses an expected sequence because another message on the
// subject is on its way to the replicas: its sequence is not known yet.
func isInProcess(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == fault.CodeSequenceInProcess
}

// passes tells whether the server's answer to a publish is about its own state, so that the same
// message may be stored a moment later.
func passes(err error) bool {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, natsgo.ErrNoResponders), errors.Is(err, natsgo.ErrReconnectBufExceeded):
		return true
	case errors.Is(err, jetstream.ErrInvalidJSAck): // a core subscriber answered first
		return true
	case !errors.As(err, &api):
		return false
	case api.ErrorCode == fault.CodeDuplicateInProcess, api.ErrorCode == fault.CodeAtomicInFlight:
		return true
	case fault.Kind(err) != nil: // a full stream, or JetStream that is not enabled
		return false
	}
	return api.Code == 503
}
