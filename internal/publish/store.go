package publish

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// Store publishes m until it is stored or refused, or ctx ends, which must have a deadline. Doubted tells
// whether a sending went unanswered: it may have stored the message. A message without an ID gets one.
func (p *Publisher) Store(ctx context.Context, op string, m *natsgo.Msg) (_ *jetstream.PubAck, doubted bool, _ error) {
	p.identify(m)
	return p.store(ctx, op, m)
}

func (p *Publisher) store(ctx context.Context, op string, m *natsgo.Msg) (_ *jetstream.PubAck, doubted bool, _ error) {
	if err := fault.Ended(ctx); err != nil {
		return nil, false, fault.Wrap(op, m.Subject, err)
	}
	if err := p.check(ctx, op, m); err != nil {
		return nil, false, err
	}
	return p.goOn(ctx, op, m, p.call(m))
}

// goOn is Store for a call that has been begun, which it ends.
func (p *Publisher) goOn(ctx context.Context, op string, m *natsgo.Msg, call *conn.Call) (_ *jetstream.PubAck, doubted bool, _ error) {
	ack, doubted, end, err := jsapi.GoOn(ctx, p.api, call, m.Subject, wire.ParsePubAck)
	switch {
	case end != nil:
		return nil, doubted, p.unstored(ctx, op, m.Subject, end, err, doubted)
	case err == nil:
		return ack, doubted, nil
	case doubted && fault.Kind(err) == fault.ErrConflict: //nolint:errorlint // a sentinel of our own table
		ack, err = p.storedBefore(ctx, op, m, err)
		return ack, doubted, err
	}
	return nil, doubted, fault.Wrap(op, m.Subject, p.sized(ctx, refused(m, err), m))
}

// unstored says why a publish ended without an acknowledgement: kind is what ended it, last what
// became of the last attempt.
func (p *Publisher) unstored(ctx context.Context, op, subject string, kind, last error, doubted bool) error {
	var cause fault.Joined
	if doubted {
		last = jsapi.InDoubt(kind, last)
	}
	switch {
	case errors.Is(kind, fault.ErrClosed):
	case errors.Is(fault.Ended(ctx), context.Canceled):
		kind, cause = nil, fault.Joined{fault.Ended(ctx)}
	case errors.Is(kind, fault.ErrNotConnected) && !doubted: // nothing was sent
		return p.conn.Unreachable(ctx, op, subject, kind)
	case errors.Is(kind, fault.ErrNotConnected), errors.Is(last, conn.ErrBroken):
		kind, cause = fault.ErrConnectionLost, fault.Joined{fault.Ended(ctx)}
	default:
		cause = fault.Joined{fault.Ended(ctx)}
		if errors.Is(last, conn.ErrUnanswered) && fault.Kind(last) == nil { // and nothing else is known
			last = fmt.Errorf("%w; %s", last, jsapi.Silence)
		}
	}
	if last != nil {
		cause = append(cause, last)
	}
	if cause == nil {
		return fault.New(op, subject, kind, "")
	}
	return &fault.Error{Op: op, Target: subject, Kind: kind, Cause: cause}
}

// storedBefore returns the acknowledgement of a message that an earlier, unanswered attempt has
// stored, or refusal when none has. It is asked when the stream refuses the message for its expected
// sequence: a server that is not in a cluster looks at that before it looks at the message ID, and the
// sequence is not the expected one because the message itself is there. Then it is the first one after
// that sequence.
func (p *Publisher) storedBefore(ctx context.Context, op string, m *natsgo.Msg, refusal error) (*jetstream.PubAck, error) {
	question, expected := wire.Get{}, m.Header.Get(jetstream.ExpectedLastSeqHeader)
	if expected == "" {
		expected = m.Header.Get(jetstream.ExpectedLastSubjSeqHeader)
		_, question.NextFor = p.api.Of(m.Subject)
	}
	sequence, err := strconv.ParseUint(expected, 10, 64)
	if err != nil {
		return nil, fault.Wrap(op, m.Subject, refusal) // it expects a message ID
	}
	question.Sequence = sequence + 1
	stream, found, err := p.storedFor(ctx, m.Subject, question)
	switch {
	case err == nil && found.Header.Get(jetstream.MsgIDHeader) == m.Header.Get(jetstream.MsgIDHeader):
		return &jetstream.PubAck{Stream: stream, Sequence: found.Sequence, Duplicate: true}, nil
	case err == nil, errors.Is(err, jetstream.ErrMsgNotFound):
		// Or it was stored and another writer has replaced it already.
		return nil, fault.Wrap(op, m.Subject, fault.Joined{refusal, conn.ErrUnanswered})
	}
	return nil, p.unstored(ctx, op, m.Subject, fault.ErrTimeout, refusal, true)
}

// storedFor asks the leader of the stream that stores subject for a message, and returns the stream's name.
func (p *Publisher) storedFor(ctx context.Context, subject string, question wire.Get) (string, wire.Stored, error) {
	name, err := p.api.StreamOf(ctx, subject)
	if err != nil {
		return "", wire.Stored{}, err
	}
	of, _ := p.api.Of(subject)
	found, err := of.Stored(ctx, name, question)
	return name, found, err
}
