package publish

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// The headers of an atomic batch (ADR-50).
const (
	batchIDHeader       = "Nats-Batch-Id"
	batchSequenceHeader = "Nats-Batch-Sequence"
	batchCommitHeader   = "Nats-Batch-Commit"
)

// Batch is the acknowledgement of a batch. Its Sequence is 0 when it is a Duplicate and was not found.
type Batch struct {
	Stream    string `json:"stream"`
	Domain    string `json:"domain"`
	Sequence  uint64 `json:"seq"`
	BatchID   string `json:"batch"`
	Size      int    `json:"count"`
	Duplicate bool   `json:"-"` // an earlier attempt had stored it
}

// Atomic sends the batch until it is stored or refused, or ctx ends, which must have a deadline. It follows
// Store, but only an attempt that got as far as the commit leaves a doubt.
func (p *Publisher) Atomic(ctx context.Context, op string, batch []*natsgo.Msg) (*Batch, error) {
	subject := batch[0].Subject
	for i, m := range batch {
		p.identify(m)
		m.Header[batchSequenceHeader] = []string{strconv.Itoa(i + 1)}
	}
	batch[len(batch)-1].Header[batchCommitHeader] = []string{"1"}
	if err := fault.Ended(ctx); err != nil {
		return nil, fault.Wrap(op, subject, err)
	}
	var last error
	var doubted, careful bool
	for sending := 1; ; sending++ {
		if err := p.conn.Wait(ctx); err != nil {
			return nil, p.unstored(ctx, op, subject, err, last, doubted)
		}
		ack, at, err := p.attemptAtomic(ctx, op, batch, careful, pause.Doubled(sending))
		var api *jetstream.APIError
		isAPI := errors.As(err, &api)
		switch {
		case err == nil:
			return ack, nil
		case isAPI && api.ErrorCode == fault.CodeAtomicDuplicate && doubted:
			return p.findAtomic(ctx, batch), nil
		case errors.Is(err, conn.ErrUnanswered), errors.Is(err, conn.ErrBroken):
			doubted = doubted || at == len(batch)-1
		case isAPI && api.ErrorCode == fault.CodeAtomicIncomplete:
			// The leader has changed, or one of the messages was refused, or lost on the way. Nothing is
			// stored.
			careful = true
		case !jsapi.Passes(err):
			return nil, fault.Wrap(op, batch[at].Subject, p.sized(err, batch[at].Header, batch[at].Data))
		}
		last = err
		if !errors.Is(err, conn.ErrBroken) && p.api.Missing(ctx, batch[at].Subject) {
			return nil, fault.Wrap(op, batch[at].Subject, jetstream.ErrNoStreamResponse)
		}
		pause.Sleep(ctx, jsapi.Pause)
		if ctx.Err() != nil {
			return nil, p.unstored(ctx, op, subject, fault.ErrTimeout, last, doubted)
		}
	}
}

// attemptAtomic sends the batch once, under an ID of its own. The first message is answered, so that
// a stream that refuses the batch says so before the rest is sent; in a careful attempt every message
// is, so that the one to blame is found. The last one commits. It returns which message the answer
// or the error belongs to.
func (p *Publisher) attemptAtomic(ctx context.Context, op string, batch []*natsgo.Msg, careful bool, patience time.Duration) (ack *Batch, at int, err error) {
	id := p.ids.next()
	final := len(batch) - 1
	for i, m := range batch[:final] {
		m.Header[batchIDHeader] = []string{id}
		if i == 0 || careful {
			err = p.addToBatch(ctx, op, m, patience)
		} else {
			m.Reply = ""
			err = p.conn.PublishMsg(ctx, m)
		}
		if err != nil {
			return nil, i, err
		}
	}
	batch[final].Header[batchIDHeader] = []string{id}
	answer, err := p.conn.Exchange(ctx, batch[final], 2*patience)
	if err != nil {
		return nil, final, err
	}
	if _, err := wire.ParsePubAck(answer); err != nil {
		return nil, final, err
	}
	ack = &Batch{}
	switch err := json.Unmarshal(answer.Data, ack); {
	case err != nil:
		return nil, final, err
	case ack.BatchID != id || ack.Size != len(batch):
		return nil, final, errNoBatches(op, batch[final])
	}
	return ack, final, nil
}

// errNoBatches is the error for a server before 2.12, which takes the headers for any others.
func errNoBatches(op string, m *natsgo.Msg) error {
	return fault.New(op, m.Subject, fault.ErrInvalidArgument, "the server knows no atomic batches and has stored the message by itself")
}

// addToBatch sends a message and waits until the server has it, which then answers with nothing.
func (p *Publisher) addToBatch(ctx context.Context, op string, m *natsgo.Msg, patience time.Duration) error {
	answer, err := p.conn.Exchange(ctx, m, patience)
	if err != nil || (len(answer.Data) == 0 && !wire.NoResponders(answer)) {
		return err
	}
	if _, err := wire.ParsePubAck(answer); err != nil {
		return err
	}
	return errNoBatches(op, m)
}

// findAtomic makes up for an acknowledgement that was lost.
func (p *Publisher) findAtomic(ctx context.Context, batch []*natsgo.Msg) *Batch {
	final := batch[len(batch)-1]
	ack := &Batch{Size: len(batch), BatchID: final.Header.Get(batchIDHeader), Duplicate: true}
	stream, found, err := p.storedFor(ctx, final.Subject, wire.Get{LastFor: final.Subject})
	ack.Stream = stream
	if err == nil && found.Header.Get(jetstream.MsgIDHeader) == final.Header.Get(jetstream.MsgIDHeader) {
		ack.Sequence, ack.BatchID = found.Sequence, found.Header.Get(batchIDHeader)
	}
	return ack
}
