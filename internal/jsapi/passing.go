package jsapi

import (
	"errors"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// InProcess tells whether the server refuses a message because it, or another one on its subject whose
// sequence is expected, is on its way to the replicas: it is not known yet what becomes of it.
func InProcess(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == fault.CodeSequenceInProcess || api.ErrorCode == fault.CodeDuplicateInProcess)
}

// tooManyRequests is the code of a refusal for want of room in a queue of the server.
const tooManyRequests = 429

func crowded(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.Code == tooManyRequests
}

// Passes tells whether the server's answer to a publish is about its own state, so that the same
// message may be stored a moment later.
func Passes(err error) bool {
	var api *jetstream.APIError
	switch {
	case errors.Is(err, natsgo.ErrNoResponders), errors.Is(err, natsgo.ErrReconnectBufExceeded):
		return true
	case errors.Is(err, jetstream.ErrInvalidJSAck): // a core subscriber answered first
		return true
	case !errors.As(err, &api):
		return false
	case api.ErrorCode == fault.CodeDuplicateInProcess, api.ErrorCode == fault.CodeAtomicInFlight, api.Code == tooManyRequests:
		return true
	case fault.Kind(err) != nil: // a full stream, or JetStream that is not enabled
		return false
	}
	return api.Code == 503
}
