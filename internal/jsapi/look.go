package jsapi

import (
	"context"
	"errors"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
)

// Look returns what f gets from upstream, whose handles nobody else can make. Upstream asks once, waits for as
// long as its context lasts, and hears neither of a denial nor of a connection that breaks. So f is called
// again, beside the calls that go on, for a late answer counts as well: when it has been silent for long, when
// the answer is one that passes, and on the next connection. It is to ask for the same however often it is
// called, and may be called on several goroutines at once. Without a deadline in ctx, the API's own time
// applies.
func Look[T any](ctx context.Context, a *API, f func(context.Context, jetstream.JetStream) (T, error)) (T, error) {
	ctx, cancel := a.conn.Deadline(ctx)
	defer cancel()
	asking, deny := context.WithCancelCause(ctx)
	defer deny(nil)
	var none T
	js, end, err := a.watched(deny)
	if err != nil {
		return none, err
	}
	defer end()
	var last error
	for begun := time.Now(); ; {
		if end := a.conn.Wait(ctx); end != nil {
			return none, a.Unanswered(ctx, end, last)
		}
		up, leave := a.conn.WhileUp(asking)
		last = errSilent
		found, err := attempts(up, func(ctx context.Context) (T, error) { return f(ctx, js) }, func(err error) bool {
			last = err
			return Passes(err) && a.Absent(err, begun) == nil
		})
		broken := errors.Is(context.Cause(up), fault.ErrConnectionLost) || errors.Is(err, natsgo.ErrDisconnected)
		leave()
		switch {
		case err == nil:
			return found, nil
		case ctx.Err() != nil:
			return none, a.Unanswered(ctx, fault.ErrTimeout, last)
		case asking.Err() != nil:
			return none, context.Cause(asking)
		case errors.Is(err, natsgo.ErrConnectionClosed):
			return none, a.Unanswered(ctx, fault.ErrClosed, conn.ErrBroken)
		case !broken:
			return none, err
		}
		last = conn.ErrBroken
	}
}

// Open returns upstream's handle of a bucket. Where a server has said that it is there, it is known: one that leads since
// a moment ago may not know it yet.
func Open[H any](ctx context.Context, a *API, bucket string, known bool, open func(jetstream.JetStream, context.Context, string) (H, error)) (H, error) {
	return Look(ctx, a, func(ctx context.Context, js jetstream.JetStream) (H, error) {
		found, err := open(js, ctx, bucket)
		if known && errors.Is(err, jetstream.ErrBucketNotFound) {
			err = fault.Joined{errEarly, err}
		}
		return found, err
	})
}

// attempts calls f until it is answered, or ctx ends. Again tells whether an error is worth to call it again.
func attempts[T any](ctx context.Context, f func(context.Context) (T, error), again func(error) bool) (T, error) {
	type answer struct {
		found T
		err   error
	}
	answers := make(chan answer)
	patience := time.NewTimer(0)
	defer patience.Stop()
	for n := 0; ; {
		select {
		case <-patience.C:
			n++
			go func() {
				found, err := f(ctx)
				select {
				case answers <- answer{found, err}:
				case <-ctx.Done():
				}
			}()
			patience.Reset(pause.Doubled(n))
		case one := <-answers:
			if one.err == nil || ctx.Err() == nil && !again(one.err) {
				return one.found, one.err
			}
			patience.Reset(Pause)
		case <-ctx.Done():
			var none T
			return none, ctx.Err()
		}
	}
}

// watched returns an upstream's handle of its own, whose questions are watched until end is called: denied is
// called when the server denies one.
func (a *API) watched(denied func(error)) (js jetstream.JetStream, end func(), err error) {
	var mu sync.Mutex
	var over bool
	var ends []func()
	js, err = a.handle(func(o *jetstream.JetStreamOptions) error {
		var trace jetstream.ClientTrace
		if o.ClientTrace != nil {
			trace = *o.ClientTrace
		}
		sent := trace.RequestSent
		trace.RequestSent = func(subject string, body []byte) {
			mu.Lock()
			if !over { // what is found keeps the handle
				ends = append(ends, a.conn.Watch(denied, subject, conn.Answers))
			}
			mu.Unlock()
			if sent != nil {
				sent(subject, body)
			}
		}
		o.ClientTrace = &trace
		return nil
	})
	return js, func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
		for _, end := range ends {
			end()
		}
		ends = nil
	}, err
}
