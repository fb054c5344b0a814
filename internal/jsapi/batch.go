package jsapi

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// What one request for many subjects asks for: the server allows 1024, and the request must not be larger than
// its max_payload.
const (
	manySubjects = 512
	manyBytes    = 64 << 10
)

// errIncomplete says that the server has not sent all messages that it was asked for.
var errIncomplete = errors.New("the answer is incomplete")

// ErrNotDirect means that a stream has no AllowDirect, so that only its leader can be asked.
var ErrNotDirect = errors.New("the stream does not allow direct gets")

// LastOf calls each with the last message of each of the subjects, in one round trip for some hundreds of them,
// as any replica has them; what no message has is left out. The error of each ends it. Without a deadline in ctx,
// the API's own time applies. It needs a stream with AllowDirect, or it is ErrNotDirect, and server 2.11.
func (a *API) LastOf(ctx context.Context, stream string, subjects []string, each func(wire.Stored) error) error {
	ctx, cancel := a.conn.Deadline(ctx)
	defer cancel()
	most := min(manyBytes, int(a.conn.MaxPayload())/2) // what is around the subjects takes some, too
	for len(subjects) > 0 {
		n, size := 0, 0
		for n < len(subjects) && n < manySubjects && (n == 0 || size+len(subjects[n]) < most) {
			size += len(subjects[n])
			n++
		}
		if err := a.lastOf(ctx, stream, subjects[:n], each); err != nil {
			return err
		}
		subjects = subjects[n:]
	}
	return nil
}

// lastOf asks again for what the server leaves out or what is lost.
func (a *API) lastOf(ctx context.Context, stream string, subjects []string, each func(wire.Stored) error) error {
	done := make(map[string]bool, len(subjects))
	var last error
	for sending := 1; ; sending++ {
		if ctx.Err() != nil {
			return a.Unanswered(ctx, fault.ErrTimeout, last)
		}
		if err := a.conn.Wait(ctx); err != nil {
			return a.Unanswered(ctx, err, last)
		}
		left := slices.DeleteFunc(slices.Clone(subjects), func(subject string) bool { return done[subject] })
		if len(left) == 0 {
			return nil
		}
		_, trip := a.conn.Peer()
		err := a.askMany(ctx, stream, left, max(pause.Doubled(sending), trip+trip/2), func(m wire.Stored) error {
			done[m.Subject] = true
			return each(m)
		})
		switch {
		case err == nil, errors.Is(err, jetstream.ErrMsgNotFound):
			return nil
		case errors.Is(err, conn.ErrUnanswered), errors.Is(err, conn.ErrBroken), errors.Is(err, errIncomplete):
		case !errors.Is(err, natsgo.ErrNoResponders):
			return err
		default: // there is no such stream, it does not allow it, or none of its servers is there
			if err := a.direct(ctx, stream); err != nil {
				return err
			}
			pause.Sleep(ctx, Pause)
		}
		last = err
	}
}

// direct returns why a stream's replicas cannot be asked.
func (a *API) direct(ctx context.Context, stream string) error {
	switch info, err := a.StreamInfo(ctx, stream); {
	case errors.Is(err, natsgo.ErrPermissionViolation): // then nobody can say
		return nil
	case err != nil:
		return err
	case !info.Config.AllowDirect:
		return ErrNotDirect
	}
	return nil
}

// askMany asks once and takes the answers as they come.
func (a *API) askMany(ctx context.Context, stream string, subjects []string, patience time.Duration, take func(wire.Stored) error) error {
	body, err := json.Marshal(wire.Get{LastOf: subjects, MaxBytes: wire.MaxBytes})
	if err != nil {
		return err
	}
	c := a.conn
	ctx, leave := c.WhileUp(ctx)
	defer leave()
	answers := make(chan *natsgo.Msg, len(subjects)+1)
	subject := a.prefix + "DIRECT.GET." + stream
	ctx, deny := context.WithCancelCause(ctx)
	defer deny(nil)
	sub, unwatch, err := c.SubscribeInbox(ctx, "", nil, answers, deny, subject)
	if err != nil {
		return err
	}
	defer c.Unsubscribe(sub)
	defer unwatch()
	if err := c.Publish(ctx, subject, sub.Subject, nil, body); err != nil {
		return err
	}
	waiting := time.NewTimer(patience)
	defer waiting.Stop()
	for {
		select {
		case m := <-answers:
			waiting.Reset(patience)
			if complete, ends := wire.EndOfBatch(m); complete && ends {
				return nil
			} else if ends || wire.Vanished(m) {
				return errIncomplete
			}
			stored, err := wire.ParseDirect(m)
			if err == nil {
				err = take(stored)
			}
			if err != nil {
				return err
			}
		case <-waiting.C:
			return conn.ErrUnanswered
		case <-ctx.Done():
			switch cause := context.Cause(ctx); {
			case errors.Is(cause, fault.ErrConnectionLost):
				return conn.ErrBroken
			case conn.IsDenial(cause):
				return cause
			}
			return conn.ErrUnanswered
		}
	}
}
