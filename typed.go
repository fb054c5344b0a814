package nats

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// JSON returns a Handler that unmarshals the payload and calls h with the message's context and the
// value; MessageFrom has the message itself. A payload that does not decode is a Permanent error: a
// Consumption moves the message to the dead letters at once.
func JSON[T any](h func(ctx context.Context, v T) error) Handler {
	return func(msg *Message) error {
		var v T
		if err := msg.DecodeJSON(&v); err != nil {
			return Permanent(err)
		}
		return h(msg.carried(), v)
	}
}

// JSONRequest returns a RequestHandler that unmarshals the payload, calls h with the message's context and the value,
// and marshals what h returns. A payload that does not decode is answered with code 400.
func JSONRequest[Req, Resp any](h func(ctx context.Context, req Req) (Resp, error)) RequestHandler {
	return func(msg *Message) ([]byte, error) {
		var req Req
		if err := msg.DecodeJSON(&req); err != nil {
			return nil, fmt.Errorf("%w: %w", &ServiceError{Code: http.StatusBadRequest, Description: "the request does not decode"}, err)
		}
		resp, err := h(msg.carried(), req)
		if err != nil {
			return nil, err
		}
		return json.Marshal(resp)
	}
}

// RequestJSON is Client.Request with both payloads in JSON. A req that does not marshal is ErrInvalidArgument, and an
// answer that does not decode an error of encoding/json in the chain.
func RequestJSON[Resp any](ctx context.Context, c *Client, subject string, req any, timeout time.Duration) (resp Resp, err error) {
	if c == nil {
		return resp, fail("request", subject, ErrInvalidArgument, "the client is nil")
	}
	data, err := json.Marshal(req)
	if err != nil {
		return resp, fail("request", subject, ErrInvalidArgument, "%w", err)
	}
	answer, err := c.Request(ctx, subject, data, timeout)
	if err != nil {
		return resp, err
	}
	if err := json.Unmarshal(answer.Data, &resp); err != nil {
		var zero Resp
		return zero, fail("decode JSON of the answer from", subject, nil, "%w", err)
	}
	return resp, nil
}
