package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
	if p.isHooked() {
		return p.atomicHooked(ctx, op, batch)
	}
	for _, m := range batch {
		p.identify(m)
	}
	return p.atomic(ctx, op, batch)
}

func (p *Publisher) atomic(ctx context.Context, op string, batch []*natsgo.Msg) (*Batch, error) {
	subject := batch[0].Subject
	for i, m := range batch {
		if err := p.check(ctx, op, m); err != nil {
			return nil, fmt.Errorf("message %d: %w", i, err)
		}
		if m.Header == nil {
			m.Header = make(natsgo.Header, 3)
		}
		m.Header[batchSequenceHeader] = []string{strconv.Itoa(i + 1)}
	}
	batch[len(batch)-1].Header[batchCommitHeader] = []string{"1"}
	if err := fault.Ended(ctx); err != nil {
		return nil, fault.Wrap(op, subject, err)
	}
	var last error
	var careful, silent bool
	var failing, doubtful time.Time // since when nothing succeeds, and a commit may have been stored
	var commit *conn.Call           // the last one
	defer func() {
		if commit != nil {
			commit.End(false)
		}
	}()
	for sending := 1; ; sending++ {
		if err := p.conn.Wait(ctx); err != nil {
			return nil, p.unstored(ctx, op, subject, err, last, !doubtful.IsZero())
		}
		var at int
		var err error
		late := !doubtful.IsZero() && onlyByID(batch[0]) && !p.knows(ctx, subject, doubtful)
		if !late {
			at, err = p.add(ctx, op, batch, careful, pause.Doubled(sending))
		}
		if err == nil {
			at = len(batch) - 1
			if !late {
				if commit != nil {
					commit.End(false)
				}
				commit = p.conn.Ask(batch[at])
				commit.Once(2 * pause.Doubled(sending))
			}
			var ack *Batch
			if ack, err = p.committed(ctx, op, commit, batch); err == nil {
				return ack, nil
			}
		}
		if failing.IsZero() {
			failing = time.Now()
		}
		silent = silent || errors.Is(err, conn.ErrUnanswered)
		code := fault.CodeOf(err)
		switch {
		case code == fault.CodeAtomicDuplicate && !doubtful.IsZero():
			return p.findAtomic(ctx, batch), nil
		case fault.Kind(err) == fault.ErrConflict && !doubtful.IsZero(): //nolint:errorlint // a sentinel of our own table
			if found := p.findAtomic(ctx, batch); found.Sequence > 0 {
				return found, nil
			}
			return nil, fault.Wrap(op, batch[at].Subject, fault.Joined{err, conn.ErrUnanswered})
		case errors.Is(err, conn.ErrUnanswered), errors.Is(err, conn.ErrBroken), errors.Is(err, fault.ErrConnectionLost), errors.Is(err, fault.ErrWrongDomain):
			if at == len(batch)-1 && doubtful.IsZero() {
				doubtful = commit.Begun()
			}
		case code == fault.CodeAtomicIncomplete:
			// The leader has changed, or one of the messages was refused, or lost on the way. Nothing is
			// stored.
			if careful { // all but the one at fault were acknowledged
				if refusal := p.scattered(ctx, op, batch[0].Subject, batch[at].Subject); refusal != nil {
					return nil, refusal
				}
			}
			careful = true
		case !jsapi.Passes(err):
			if !doubtful.IsZero() {
				err = jsapi.InDoubt(nil, err)
			}
			return nil, fault.Wrap(op, batch[at].Subject, p.sized(ctx, refused(batch[at], err), batch[at]))
		}
		if last = err; late {
			last = fmt.Errorf("%w; it was not sent again, its stream may have forgotten its IDs", err)
		} else if !errors.Is(err, conn.ErrBroken) {
			if hopeless := p.api.Hopeless(ctx, batch[at].Subject, failing, silent, err); hopeless != nil {
				return nil, fault.Wrap(op, batch[at].Subject, hopeless)
			}
		}
		pause.Sleep(ctx, jsapi.Pause)
		if ctx.Err() != nil {
			return nil, p.unstored(ctx, op, subject, fault.ErrTimeout, last, !doubtful.IsZero())
		}
	}
}

// scattered returns an error when two messages of a batch are for different streams.
func (p *Publisher) scattered(ctx context.Context, op, one, other string) error {
	first, err := p.api.StreamOf(ctx, one)
	second, failed := p.api.StreamOf(ctx, other)
	if err != nil || failed != nil { // publishing tells
		second = first
	}
	if first == second {
		return nil
	}
	return fault.New(op, other, fault.ErrInvalidArgument, "the stream %q stores it, and %q the first message: a batch is for one stream", second, first)
}

// knows tells whether the stream of subject still knows, surely, the ID of what it may have stored since then.
func (p *Publisher) knows(ctx context.Context, subject string, since time.Time) bool {
	return time.Since(since) < p.api.Window(ctx, subject, true)*9/10
}

// add sends all but the last message of the batch, under a new ID of the batch. The first one is answered, so
// that a stream that refuses the batch says so before the rest is sent; when it is careful every one is, so that
// the one to blame is found. It returns which message the error belongs to.
func (p *Publisher) add(ctx context.Context, op string, batch []*natsgo.Msg, careful bool, patience time.Duration) (at int, err error) {
	id, final := []string{p.ids.next()}, len(batch)-1
	for i, m := range batch {
		m.Header[batchIDHeader] = id
		switch {
		case i == final:
		case i == 0 || careful:
			err = p.addToBatch(ctx, op, m, patience)
		default:
			m.Reply = ""
			err = p.conn.PublishMsg(ctx, m)
		}
		if err != nil {
			return i, err
		}
	}
	return final, nil
}

// committed waits for the answer to the commit of batch, its last message: for a second, at least, when it was
// sent before.
func (p *Publisher) committed(ctx context.Context, op string, commit *conn.Call, batch []*natsgo.Msg) (*Batch, error) {
	if commit.Sent() > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Second)
		defer cancel()
	}
	answer, err := commit.Next(ctx)
	if err != nil {
		return nil, err
	}
	stored, err := wire.ParsePubAck(answer)
	if err == nil {
		if err = p.api.Foreign(batch[len(batch)-1].Subject, stored); err != nil {
			commit.Disown()
		}
	}
	if err != nil {
		return nil, err
	}
	final, ack := batch[len(batch)-1], &Batch{}
	switch err := json.Unmarshal(answer.Data, ack); {
	case err != nil:
		return nil, err
	case ack.BatchID != final.Header.Get(batchIDHeader) || ack.Size != len(batch):
		return nil, errNoBatches(op, final)
	}
	return ack, nil
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
	if id := final.Header.Get(jetstream.MsgIDHeader); err == nil && id != "" && found.Header.Get(jetstream.MsgIDHeader) == id {
		ack.Sequence, ack.BatchID = found.Sequence, found.Header.Get(batchIDHeader)
	}
	return ack
}
