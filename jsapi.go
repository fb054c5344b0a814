package nats

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// How long one question to the JetStream API waits for its answer: doubled with every one that is lost.
const (
	apiPatienceMin = 500 * time.Millisecond
	apiPatienceMax = 4 * time.Second
)

// apiAnswer is an answer of the JetStream API: it embeds an apiRefusal.
type apiAnswer interface{ refused() error }

// apiRefusal is what all answers have in common.
type apiRefusal struct {
	Error *jetstream.APIError `json:"error"`
}

// refused takes the error out, for the next answer to be decoded into the same struct.
func (r *apiRefusal) refused() error {
	if err := r.Error; err != nil {
		r.Error = nil
		return err
	}
	return nil
}

// askAPI puts a question to the JetStream API and decodes the answer. It asks again when the answer is
// lost or says "not now", until ctx ends: the question must be one that may be asked twice. Upstream asks
// once and waits for as long as ctx lasts. Without a deadline in ctx, Config.RequestTimeout applies.
func (c *Client) askAPI(ctx context.Context, verb string, question any, answer apiAnswer) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	for patience := apiPatienceMin; ; patience = min(2*patience, apiPatienceMax) {
		if err := c.conn.Wait(ctx); err != nil {
			return err
		}
		err := c.askOnce(ctx, verb, body, answer, patience)
		switch {
		case err == nil:
			return nil
		case c.conn.IsClosed():
			return ErrClosed
		case ctx.Err() != nil:
			return fault.Ended(ctx)
		case errors.Is(err, natsgo.ErrNoResponders): // JetStream is not there at all
			return err
		case !errors.Is(err, conn.ErrUnanswered) && !errors.Is(err, conn.ErrBroken) && !passes(err):
			return err
		}
		pause.Sleep(ctx, attemptPause)
	}
}

func (c *Client) askOnce(ctx context.Context, verb string, body []byte, answer apiAnswer, patience time.Duration) error {
	m, err := c.conn.Exchange(ctx, &natsgo.Msg{Subject: c.jsPrefix + verb, Data: body}, patience)
	if err != nil {
		return err
	}
	if wire.NoResponders(m) {
		return natsgo.ErrNoResponders
	}
	if err := json.Unmarshal(m.Data, answer); err != nil {
		return err
	}
	return answer.refused()
}

// lookUp calls f, which asks upstream for something that exists, and calls it again on the next
// connection when the present one breaks: upstream waits for the answer of a server that is gone for
// as long as ctx lasts. Without a deadline in ctx, Config.RequestTimeout applies.
func lookUp[T any](ctx context.Context, c *Client, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	for {
		up, leave := c.conn.WhileUp(ctx)
		found, err := f(up)
		broken := errors.Is(context.Cause(up), ErrConnectionLost) || errors.Is(err, natsgo.ErrDisconnected)
		leave()
		if err == nil || !broken || c.conn.Wait(ctx) != nil {
			return found, fault.Because(ctx, err)
		}
	}
}
