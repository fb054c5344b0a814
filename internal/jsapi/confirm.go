package jsapi

import (
	"context"
	"errors"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// errLeaderless is that nobody listens for the acknowledgements of a consumer that is there.
var errLeaderless = errors.New("nobody takes acknowledgements while the consumer's leader is changing")

// Confirm sends an acknowledgement to a consumer's reply subject until the server confirms it, which it does for
// a second one as well. A consumer that is gone, or that may not be asked for, is natsgo.ErrNoResponders
// at once. Without a deadline in ctx, the API's own time applies.
func (a *API) Confirm(ctx context.Context, reply string, ack []byte) error {
	ctx, cancel := a.conn.Deadline(ctx)
	defer cancel()
	gone, _, end, err := Send(ctx, a, &natsgo.Msg{Subject: reply, Data: ack}, "", func(m *natsgo.Msg) (gone, later error) {
		if wire.NoResponders(m) {
			return a.unheard(ctx, reply)
		}
		return nil, nil
	})
	switch {
	case end != nil:
		return a.Unanswered(ctx, end, err)
	case err != nil:
		return err
	}
	return gone
}

// unheard tells a consumer that is gone from one that has no leader for a while.
func (a *API) unheard(ctx context.Context, reply string) (gone, later error) {
	stream, consumer, ok := wire.AckOf(reply)
	if !ok {
		return natsgo.ErrNoResponders, nil
	}
	switch _, err := a.ConsumerInfo(ctx, stream, consumer); {
	case errors.Is(err, fault.ErrClosed):
		return nil, err
	case err != nil && ctx.Err() == nil:
		return fault.Joined{natsgo.ErrNoResponders, err}, nil
	}
	return nil, errLeaderless
}
