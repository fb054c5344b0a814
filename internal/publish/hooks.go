package publish

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// Hooks stand around the messages that users have: those of Publish, Atomic, and Start without a patience.
type Hooks struct {
	// Publish calls next with m, or what it makes of it, and what is wrong with that, if anything is.
	Publish func(ctx context.Context, op string, m *natsgo.Msg, next Next) error
	// Stored is told what came of a message for which next was called.
	Stored func(ctx context.Context, m *natsgo.Msg, ack *jetstream.PubAck, err error)
	// Enabled, if there is one, tells whether the others are to be called for a message.
	Enabled func() bool
}

// Next sends a message, unless it is invalid.
type Next = func(ctx context.Context, m *natsgo.Msg, invalid error) error

// Hook puts the hooks in their place, before anything is published.
func (p *Publisher) Hook(h Hooks) { p.hooks, p.hooked = h, h.Publish != nil || h.Stored != nil }

func (p *Publisher) isHooked() bool {
	return p.hooked && (p.hooks.Enabled == nil || p.hooks.Enabled())
}

// Publish is Store for a message of a user, with the hooks around it.
func (p *Publisher) Publish(ctx context.Context, op string, m *natsgo.Msg) (ack *jetstream.PubAck, err error) {
	if !p.isHooked() {
		ack, _, err = p.Store(ctx, op, m)
		return ack, err
	}
	return p.publishHooked(ctx, op, m)
}

func (p *Publisher) publishHooked(ctx context.Context, op string, m *natsgo.Msg) (ack *jetstream.PubAck, err error) {
	err = p.pass(ctx, op, m, func(ctx context.Context, m *natsgo.Msg) (err error) {
		bounded, cancel := p.conn.Deadline(ctx)
		defer cancel()
		ack, _, err = p.store(bounded, op, m)
		p.tell(ctx, m, ack, err)
		return err
	})
	if err != nil {
		return nil, err
	}
	return ack, nil
}

func (p *Publisher) startHooked(ctx context.Context, op string, m *natsgo.Msg, o Flight) (f *Future, err error) {
	o.Context = cmp.Or(o.Context, ctx) // that of a hook often ends with it
	data := m.Data
	err = p.pass(ctx, op, m, func(ctx context.Context, m *natsgo.Msg) (err error) {
		keep(m, data)
		if p.hooks.Stored != nil {
			o.tell = func(ack *jetstream.PubAck, err error) { p.tell(ctx, m, ack, err) }
		}
		if f, err = p.start(ctx, op, m, o); err != nil {
			p.tell(ctx, m, nil, err)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (p *Publisher) atomicHooked(ctx context.Context, op string, batch []*natsgo.Msg) (stored *Batch, err error) {
	passed := make([]context.Context, len(batch))
	for i, m := range batch {
		data := m.Data
		err = p.pass(ctx, op, m, func(ctx context.Context, m *natsgo.Msg) error {
			keep(m, data)
			batch[i], passed[i] = m, ctx
			return nil
		})
		if err != nil {
			err = fmt.Errorf("message %d: %w", i, err)
			break
		}
	}
	if err == nil {
		stored, err = p.atomic(ctx, op, batch)
	}
	for i, m := range batch {
		if passed[i] != nil {
			p.tell(passed[i], m, stored.ackOf(i), err)
		}
	}
	return stored, err
}

// keep lets the payload outlive the hook, which may have put a buffer of its own in the place of data.
func keep(m *natsgo.Msg, data []byte) {
	if len(m.Data) > 0 && (len(data) == 0 || &m.Data[0] != &data[0]) {
		m.Data = slices.Clone(m.Data)
	}
}

// ackOf returns the acknowledgement of one message of a batch.
func (b *Batch) ackOf(i int) *jetstream.PubAck {
	if b == nil {
		return nil
	}
	ack := &jetstream.PubAck{Stream: b.Stream, Domain: b.Domain, Duplicate: b.Duplicate}
	if b.Sequence > 0 {
		ack.Sequence = b.Sequence - uint64(b.Size-1-i)
	}
	return ack
}

// pass gives m an ID and takes it through the hook to send. It returns no nil when that was not called, or has failed.
func (p *Publisher) pass(ctx context.Context, op string, m *natsgo.Msg, send func(context.Context, *natsgo.Msg) error) error {
	p.identify(m)
	if p.hooks.Publish == nil {
		return send(ctx, m)
	}
	id, passed, last := m.Header[jetstream.MsgIDHeader], false, error(nil)
	err := p.hooks.Publish(ctx, op, m, func(ctx context.Context, m *natsgo.Msg, invalid error) error {
		passed, last = true, invalid
		if invalid != nil {
			p.tell(ctx, m, nil, invalid)
			return invalid
		}
		own := make(natsgo.Header, len(m.Header)+1) // the interceptor may keep its own
		if maps.Copy(own, m.Header); len(id) > 0 && len(own[jetstream.MsgIDHeader]) == 0 {
			own[jetstream.MsgIDHeader] = id // without it, it might be stored twice
		}
		if m.Header = own; len(own) == 0 {
			m.Header = nil // the server reads the message faster
		}
		last = send(ctx, m)
		return last
	})
	switch {
	case err != nil:
		return err
	case !passed:
		return fault.New(op, m.Subject, fault.ErrInvalidArgument, "the interceptor has neither called next nor returned an error")
	}
	return last
}

func (p *Publisher) tell(ctx context.Context, m *natsgo.Msg, ack *jetstream.PubAck, err error) {
	if p.hooks.Stored != nil {
		p.hooks.Stored(ctx, m, ack, err)
	}
}
