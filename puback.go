package nats

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// The acknowledgement as the server writes it for a message that was stored for the first time. It
// writes it by hand, so it is always the same (nats-server, server/stream.go).
const (
	ackHead   = `{"stream":"`
	ackMiddle = `","seq":`
	ackTail   = `}`
)

// parsePubAck reads the server's answer to a publish.
func parsePubAck(m *natsgo.Msg) (*jetstream.PubAck, error) {
	if isNoResponders(m) {
		return nil, natsgo.ErrNoResponders
	}
	if ack := parsePlainAck(m.Data); ack != nil {
		return ack, nil
	}
	var answer struct {
		*jetstream.PubAck
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return nil, jetstream.ErrInvalidJSAck
	}
	switch {
	case answer.Error != nil:
		return nil, answer.Error
	case answer.PubAck == nil || answer.Stream == "":
		return nil, jetstream.ErrInvalidJSAck
	}
	return answer.PubAck, nil
}

// parsePlainAck reads the usual answer without the JSON decoder, which takes a third of the time of
// an asynchronous publish. It returns nil for any other answer.
func parsePlainAck(data []byte) *jetstream.PubAck {
	rest, ok := bytes.CutPrefix(data, []byte(ackHead))
	if !ok {
		return nil
	}
	stream, rest, ok := bytes.Cut(rest, []byte(ackMiddle))
	if !ok || bytes.ContainsAny(stream, `"\`) {
		return nil
	}
	digits, ok := bytes.CutSuffix(rest, []byte(ackTail))
	if !ok {
		return nil
	}
	sequence, err := strconv.ParseUint(string(digits), 10, 64)
	if err != nil {
		return nil
	}
	return &jetstream.PubAck{Stream: string(stream), Sequence: sequence}
}

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
