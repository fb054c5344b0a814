package nats

import (
	"context"
	"errors"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// PullMessages takes up to limit messages from a consumer: it waits for the first one and then takes
// what is there, in one round trip. When ctx ends first, or without a deadline in ctx
// Config.RequestTimeout, it returns no messages and no error; a ctx that is cancelled is an error.
// Messages must be acknowledged, or the server delivers them again. The errors are
// ErrStreamNotFound, ErrConsumerNotFound, ErrNotConnected, ErrNoResponders when the consumer has no
// leader until ctx ends, as during an election, and, for bad arguments, ErrInvalidArgument.
func (c *Client) PullMessages(ctx context.Context, stream, consumer string, limit int) ([]*Message, error) {
	const op = "pull messages"
	target := path(stream, consumer)
	if limit < 1 {
		return nil, fail(op, target, ErrInvalidArgument, "the limit must be at least 1, got %d", limit)
	}
	if err := checkName(op, "consumer", consumer); err != nil {
		return nil, err
	}
	if err := c.checkCall(ctx, op, stream, consumer); err != nil {
		return nil, err
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()

	subject := c.api.Subject("CONSUMER.MSG.NEXT." + stream + "." + consumer)
	var unheard error // by the consumer in the last attempt
	for pause := retryPauseMin; ; pause = min(2*pause, retryPauseMax) {
		if err := c.conn.Wait(ctx); err != nil {
			return nil, c.unreachable(ctx, op, target, err)
		}
		if unheard != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return nil, wrap(op, target, unheard) // there may be messages
		}
		messages, err := c.pullOnce(ctx, subject, limit)
		switch {
		case len(messages) > 0:
			return messages, nil // whatever ended the pull will end the next one too
		case errors.Is(err, context.DeadlineExceeded):
			return nil, nil
		case errors.Is(err, natsgo.ErrNoResponders):
			// Nobody listens for pulls: the consumer does not exist, or its leader is changing.
			unheard = err
			err := c.api.Ask(ctx, "CONSUMER.INFO."+stream+"."+consumer, nil, &jsapi.Refusal{})
			if err != nil && ctx.Err() == nil && c.conn.IsUp() {
				return nil, jsapi.Wrap(op, target, err)
			}
		case errors.Is(err, wire.ErrPullAgain):
			unheard = nil
		default:
			return nil, wrap(op, target, err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		case <-c.life.Context().Done():
		}
	}
}

// The pauses between pulls that ended early.
const (
	retryPauseMin = 10 * time.Millisecond
	retryPauseMax = 500 * time.Millisecond
)

// pull is one request for messages and what it brought.
type pull struct {
	client   *Client
	limit    int
	origin   *origin // of the messages; made when the first one comes
	messages []*Message
	over     bool  // on the server
	err      error // why it is over; nil is its natural end
}

// pullOnce sends one pull and collects what it brings. The server holds a pull with both no_wait
// and expires until the first message and then answers with all there are.
func (c *Client) pullOnce(ctx context.Context, subject string, limit int) ([]*Message, error) {
	if err := fault.Ended(ctx); err != nil {
		return nil, err
	}
	done, err := c.life.Begin()
	if err != nil {
		return nil, err
	}
	received := make(chan *natsgo.Msg, limit+1) // and the status that ends the pull
	inbox := c.nc.NewInbox()
	sub, err := c.conn.Subscribe(ctx, inbox, nil, received)
	if err != nil {
		done()
		return nil, err
	}
	ctx, deny := context.WithCancelCause(ctx)
	defer deny(nil)
	defer c.conn.Watch(deny, subject, inbox)()
	p := &pull{client: c, limit: limit}
	defer func() {
		if p.over {
			c.conn.Unsubscribe(sub)
			done()
		} else {
			c.abandonPull(sub, received, done)
		}
	}()
	_, breaks, _ := c.conn.State()
	body := wire.Pull(limit, pullExpiry(ctx), 0, true)
	if err := c.conn.Publish(ctx, subject, inbox, nil, body); err != nil {
		return nil, err
	}
	return p.collect(ctx, received, breaks)
}

// collect receives until the pull is over or ctx ends. What has come is taken before the time is
// looked at: a message left behind would wait for its redelivery.
func (p *pull) collect(ctx context.Context, received <-chan *natsgo.Msg, breaks uint64) ([]*Message, error) {
	for {
		select {
		case m := <-received:
			if p.take(m); p.over {
				return p.messages, p.err
			}
			continue
		default:
		}
		up, now, change := p.client.conn.State()
		if !up || now != breaks {
			return p.messages, wire.ErrPullAgain // the server has forgotten the pull
		}
		select {
		case m := <-received:
			if p.take(m); p.over {
				return p.messages, p.err
			}
		case <-change:
		case <-ctx.Done():
			if len(received) > 0 {
				continue
			}
			return p.messages, fault.Ended(ctx)
		case <-p.client.life.Ending():
			return p.messages, ErrClosed
		}
	}
}

func (p *pull) take(m *natsgo.Msg) {
	if status, description := wire.Status(m); status != "" {
		p.over, p.err = true, wire.PullError(status, description)
		return
	}
	if p.origin == nil {
		p.origin = &origin{client: p.client, ctx: p.client.life.Context(), received: time.Now()} // they come together
	}
	p.messages = append(p.messages, p.origin.message(m))
	p.over = len(p.messages) == p.limit
}

// abandonTimeout bounds how long an abandoned pull waits for messages on their way.
const abandonTimeout = 2 * time.Second

// abandonPull ends a pull that the server may still answer, and hands back what comes of it:
// otherwise those messages would wait for the ack wait to pass. Shutdown waits for it.
func (c *Client) abandonPull(sub *natsgo.Subscription, received <-chan *natsgo.Msg, ended func()) {
	done := make(chan struct{})
	sub.SetClosedHandler(func(string) { close(done) })
	if sub.Drain() != nil { // the connection is gone
		close(done)
	}
	go func() {
		defer ended()
		select {
		case <-done:
		case <-time.After(abandonTimeout):
			c.conn.Unsubscribe(sub)
		case <-c.life.Context().Done():
			return
		}
		for len(received) > 0 {
			m := <-received
			if status, _ := wire.Status(m); status == "" {
				_ = c.conn.TryPublish(m.Reply, "", wire.Nak)
			}
		}
	}()
}

// pullExpiry ends the pull on the server shortly before ctx ends here, so that no message is on its
// way to nobody.
func pullExpiry(ctx context.Context) time.Duration {
	deadline, _ := ctx.Deadline()
	left := time.Until(deadline)
	return max(left-min(left/10, 50*time.Millisecond), time.Millisecond)
}
