package jsapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// Pause follows an answer that says "not now".
const Pause = 100 * time.Millisecond

// Send sends m until parse takes an answer, the server refuses, or ctx ends, which must have a deadline. It is
// the one way in which a question is put again: over lost answers, elections and broken connections, as
// rarely as conn.Call has it. M must be one that may be sent twice. Stored is the subject that a stream should
// store, or empty for a question to the JetStream API.
//
// An acknowledgement (wire.ParsePubAck) of a stream of another domain than the one that stored is meant for is
// no answer, for the right one may come as well: when it does not, the error is fault.ErrWrongDomain.
//
// End is why it ended without an answer or refusal; then err is what became of the last sending. Doubted
// tells that a sending before the one that was answered got no answer.
func Send[T any](ctx context.Context, a *API, m *natsgo.Msg, stored string, parse func(*natsgo.Msg) (T, error)) (answer T, doubted bool, end, err error) {
	return GoOn(ctx, a, a.conn.Ask(m), stored, parse)
}

// GoOn is Send for a call that has been begun, which it ends.
func GoOn[T any](ctx context.Context, a *API, call *conn.Call, stored string, parse func(*natsgo.Msg) (T, error)) (answer T, doubted bool, end, err error) {
	answer, doubted, end, err = goOn(ctx, a, call, stored, parse)
	if doubted && (err != nil || end != nil) {
		err = InDoubt(end, err)
	}
	return answer, doubted, end, err
}

// InDoubt tells of an unanswered sending where the last word on another one does not: neither that it is not the time, nor
// that a right is gone, says what became of it. Who refuses knows what there is, but for what end has cut short.
func InDoubt(end, err error) error {
	_, told := errors.AsType[fault.Doubt](err)
	_, refused := errors.AsType[*jetstream.APIError](err)
	switch {
	case told, end == nil && (refused || errors.Is(err, fault.ErrNoStream)):
		return err
	case err == nil:
		return conn.ErrUnanswered
	}
	return fault.Joined{err, conn.ErrUnanswered}
}

func goOn[T any](ctx context.Context, a *API, call *conn.Call, stored string, parse func(*natsgo.Msg) (T, error)) (answer T, doubted bool, end, err error) {
	var none T
	var wrong, full, last error // the last acknowledgement of another domain, refusal for want of room, and "not now"
	var u unheard
	told := 0                   // how often it had been sent when last came
	done, asked := false, false // whether the stream was asked for what has no window
	defer func() { call.End(done) }()
	for may := true; ; { // may is whether this call is one of those that ask about the stream
		if end := a.conn.Wait(ctx); end != nil && !call.Answered() {
			return none, call.Doubtful(), end, tooLate(call, err)
		}
		if stored != "" && call.Hangs() {
			stream := a.window(ctx, stored, may && (call.Window() < 0 || !asked && stored[0] != '$')) // no bucket is mute
			asked = asked || may
			if stream.mute {
				return none, call.Doubtful(), nil, errMute
			}
			if call.Window() < 0 {
				call.Within(stream.length)
			}
		}
		may = true
		var m *natsgo.Msg
		if m, err = call.Next(ctx); err == nil {
			answer, err = parse(m)
		}
		if err != nil && u.begun.IsZero() {
			u.begun = time.Now()
		}
		ack, isAck := any(answer).(*jetstream.PubAck)
		if err == nil && isAck && stored != "" {
			err = a.Foreign(stored, ack)
		}
		switch {
		case err == nil:
			done = !isAck || !ack.Duplicate // a duplicate is answered before what waits to be stored
			return answer, call.Doubtful(), nil, nil
		case errors.Is(err, conn.ErrBroken): // the next connection is waited for
			continue
		case errors.Is(err, conn.ErrUnanswered):
			may, u.silent = call.MayAsk(), u.silent || call.Doubtful()
			switch {
			case last != nil && !call.Doubtful(): // it ended in the pause after an answer
				err = last
			case last != nil && stored == "" && call.Sent() == told+1: // or soon after it
				err = fault.Joined{last, err}
			}
		case errors.Is(err, jetstream.ErrInvalidJSAck):
			call.Disown()
			continue
		case errors.Is(err, fault.ErrWrongDomain):
			wrong = err
			call.Disown()
			continue
		case crowded(err):
			full = err
			call.Refused()
			continue
		case inProcess(err) && call.Doubtful(): // perhaps by the message itself, whose answer is to come
			continue
		case stored == "" && a.Absent(err, u.begun) != nil:
			return none, call.Doubtful(), nil, a.Absent(err, u.begun)
		case !Passes(err):
			return none, call.Doubtful(), nil, err
		default:
			last, told, u.nobody = err, call.Sent(), errors.Is(err, natsgo.ErrNoResponders)
			call.Later(Pause)
		}
		switch {
		case ctx.Err() != nil && wrong != nil:
			return none, call.Doubtful(), nil, fault.Joined{wrong, fault.Ended(ctx)}
		case ctx.Err() != nil:
			if u.hidden {
				full = fault.ErrNoStream
			}
			if full != nil {
				err = fault.Joined{full, err}
			}
			return none, call.Doubtful(), fault.ErrTimeout, tooLate(call, err)
		case stored == "":
			continue
		}
		if missing := a.finder.judge(ctx, stored, may, &u); missing != nil {
			if wrong != nil {
				missing = fault.Joined{wrong, missing}
			}
			return none, call.Doubtful(), nil, missing
		}
	}
}

// tooLate adds to err that a message was not sent again, if so.
func tooLate(call *conn.Call, err error) error {
	switch {
	case call.Sent() == 0: // there is no answer to be had
		return nil
	case !call.Late():
		return err
	case call.Window() < 0:
		return fmt.Errorf("%w; it was not sent again, for how long its stream knows its ID is not known", cmp.Or(err, conn.ErrUnanswered))
	}
	return fmt.Errorf("%w; it was not sent again, its stream knows an ID for %v only", cmp.Or(err, conn.ErrUnanswered), call.Window())
}

// Unanswered says why a question ended without an answer, and whether it was asked: see Send.
func (a *API) Unanswered(ctx context.Context, end, last error) error {
	_, doubt := errors.AsType[fault.Doubt](last)
	switch {
	case errors.Is(end, fault.ErrNotConnected) && doubt:
		return a.conn.Unreachable(ctx, "", "", end, last)
	case errors.Is(end, fault.ErrNotConnected):
		return a.conn.Unreachable(ctx, "", "", end)
	case errors.Is(end, fault.ErrClosed) && doubt:
		return &fault.Error{Kind: fault.ErrClosed, Cause: last}
	case errors.Is(end, fault.ErrClosed):
		return end
	case last == nil, errors.Is(context.Cause(ctx), context.Canceled):
		return fault.Ended(ctx)
	case last == conn.ErrUnanswered: //nolint:errorlint // and nothing else
		last = errSilent
	}
	return fault.Joined{fault.Ended(ctx), last}
}

// Silence is what it means where nobody answers for long.
const Silence = "where that lasts, its leader is missing, or a majority of its servers"

// errSilent is what became of a question that nobody answers.
var errSilent error = fault.Doubt("no answer came; " + Silence)

// reply is an answer of the JetStream API: it embeds a Refusal.
type reply interface{ refused() error }

// Refusal is what all answers have in common.
type Refusal struct {
	Error *jetstream.APIError `json:"error"`
}

// refused takes the error out, for the next answer to be decoded into the same struct.
func (r *Refusal) refused() error {
	if err := r.Error; err != nil {
		r.Error = nil
		return err
	}
	return nil
}

// Ask asks the JetStream API and decodes the answer, which embeds a Refusal, or is nil where nothing else matters. Without
// a deadline in ctx, the API's own time applies.
func (a *API) Ask(ctx context.Context, verb string, question any, answer reply) error {
	if answer == nil {
		answer = &Refusal{}
	}
	var body []byte
	if question != nil {
		var err error
		if body, err = json.Marshal(question); err != nil {
			return err
		}
	}
	ctx, cancel := a.conn.Deadline(ctx)
	defer cancel()
	_, doubted, end, err := Send(ctx, a, &natsgo.Msg{Subject: a.prefix + verb, Data: body}, "", func(m *natsgo.Msg) (reply, error) {
		if wire.NoResponders(m) {
			return nil, natsgo.ErrNoResponders
		}
		if err := json.Unmarshal(m.Data, answer); err != nil {
			return nil, err
		}
		return answer, answer.refused()
	})
	switch {
	case end != nil:
		return a.Unanswered(ctx, end, err)
	case doubted && isGone(err) && strings.Contains(verb, ".DELETE."):
		return nil // by what was sent before
	}
	return err
}

// Stored asks the leader of a stream for a message, or returns jetstream.ErrMsgNotFound. Without a deadline in ctx,
// the API's own time applies.
func (a *API) Stored(ctx context.Context, stream string, question wire.Get) (wire.Stored, error) {
	body, err := json.Marshal(question)
	if err != nil {
		return wire.Stored{}, err
	}
	ctx, cancel := a.conn.Deadline(ctx)
	defer cancel()
	found, _, end, err := Send(ctx, a, &natsgo.Msg{Subject: a.prefix + "STREAM.MSG.GET." + stream, Data: body}, "", wire.ParseStored)
	if end != nil {
		return found, a.Unanswered(ctx, end, err)
	}
	return found, err
}

// isGone tells whether there is nothing to delete.
func isGone(err error) bool {
	switch fault.CodeOf(err) {
	case jetstream.JSErrCodeStreamNotFound, jetstream.JSErrCodeConsumerNotFound,
		jetstream.JSErrCodeMessageNotFound, fault.CodeSequenceNotFound, fault.CodeDeleteFailed:
		return true
	}
	return false
}
