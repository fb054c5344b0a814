package nats

import "context"

// JSON returns a Handler that unmarshals the payload and calls h with the message's context and the
// value. A payload that does not decode is a Permanent error: a Consumption moves the message to
// the dead letters at once.
func JSON[T any](h func(ctx context.Context, v T) error) Handler {
	return func(msg *Message) error {
		var v T
		if err := msg.DecodeJSON(&v); err != nil {
			return Permanent(err)
		}
		return h(msg.Context(), v)
	}
}
