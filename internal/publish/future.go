package publish

import (
	"context"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// Future is a message in flight, and what came of it. It implements jetstream.PubAckFuture.
type Future struct {
	publisher *Publisher
	op        string
	ctx       context.Context
	deadline  time.Time
	msg       *natsgo.Msg
	call      *conn.Call

	patience time.Duration // of a chunk of an object; 0 is that of an event
	begun    time.Time     // of a chunk
	took     time.Duration // its answer, when the first sending was answered at once
	repeated bool          // it may have been sent more than once
	brief    bool
	tell     func(*jetstream.PubAck, error) // nil where there is no hook

	resolved bool // it and what follows are guarded by the publisher
	ack      *jetstream.PubAck
	err      error
	okCh     chan *jetstream.PubAck // made when somebody asks, as are the others
	errCh    chan error
	done     chan struct{}
}

// Answered implements conn.Asker.
func (f *Future) Answered(m *natsgo.Msg) bool {
	ack, err := wire.ParsePubAck(m)
	if err != nil || f.publisher.api.Foreign(f.msg.Subject, ack) != nil {
		return false
	}
	if f.patience > 0 {
		f.took, f.repeated = time.Since(f.begun), f.call.Sent() > 1
	}
	f.call.End(!ack.Duplicate && f.patience == 0)
	f.conclude(ack, nil)
	return true
}

// Over implements conn.Asker.
func (f *Future) Over() bool {
	return f.ctx.Err() != nil || f.publisher.ctx.Err() != nil || !time.Now().Before(f.deadline)
}

// Again implements conn.Asker.
func (f *Future) Again() bool {
	if f.call.Window() < 0 {
		f.call.Within(f.publisher.api.Window(f.ctx, f.msg.Subject, true))
	}
	return !f.Over() && !f.call.Late()
}

// GoOn implements conn.Asker: what is not answered at once is asked for as by anybody else.
func (f *Future) GoOn() {
	p := f.publisher
	f.repeated = true
	ctx, cancel := context.WithDeadline(f.ctx, f.deadline)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)()
	ack, _, err := p.goOn(ctx, f.op, f.msg, f.call)
	if err != nil && p.ctx.Err() != nil {
		err = fault.New(f.op, f.msg.Subject, fault.ErrClosed, "%w", conn.ErrUnanswered)
	}
	f.conclude(ack, err)
}

// conclude ends the flight, after the hook has heard of it, on a goroutine of its own: the present one may bring the
// answers to others.
func (f *Future) conclude(ack *jetstream.PubAck, err error) {
	if f.tell == nil {
		f.publisher.land(f, ack, err)
		return
	}
	go f.concludeHooked(ack, err)
}

// concludeHooked waits for the hook no longer than the publisher lives.
func (f *Future) concludeHooked(ack *jetstream.PubAck, err error) {
	land := sync.OnceFunc(func() { f.publisher.land(f, ack, err) })
	defer land()
	defer context.AfterFunc(f.publisher.ctx, land)()
	f.tell(ack, err)
}

// Took returns how long the answer took, and whether the message may have been sent more than once: then that
// says nothing. It is for what has a patience of its own, and is settled.
func (f *Future) Took() (took time.Duration, repeated bool) { return f.took, f.repeated }

// Ok returns a channel that brings the acknowledgement, if there is one.
func (f *Future) Ok() <-chan *jetstream.PubAck {
	f.publisher.mu.Lock()
	defer f.publisher.mu.Unlock()
	if f.okCh == nil {
		f.okCh = make(chan *jetstream.PubAck, 1)
		if f.ack != nil {
			f.okCh <- f.ack
		}
	}
	return f.okCh
}

// Err returns a channel that brings the error, if there is one.
func (f *Future) Err() <-chan error {
	f.publisher.mu.Lock()
	defer f.publisher.mu.Unlock()
	if f.errCh == nil {
		f.errCh = make(chan error, 1)
		if f.err != nil {
			f.errCh <- f.err
		}
	}
	return f.errCh
}

// Msg returns the message as it was sent, with its ID.
func (f *Future) Msg() *natsgo.Msg { return f.msg }

// Settled returns a channel that is closed when there is a result.
func (f *Future) Settled() <-chan struct{} {
	f.publisher.mu.Lock()
	defer f.publisher.mu.Unlock()
	if f.done == nil {
		f.done = make(chan struct{})
		if f.resolved {
			close(f.done)
		}
	}
	return f.done
}

// Result returns what came of the message; when nothing has yet, it waits or says so.
func (f *Future) Result(wait bool) (ack *jetstream.PubAck, err error, there bool) { //nolint:revive // the error belongs to the acknowledgement
	if ack, err, there = f.peek(); there || !wait {
		return ack, err, there
	}
	<-f.Settled()
	return f.peek()
}

// peek returns the result, if there is one.
func (f *Future) peek() (ack *jetstream.PubAck, err error, there bool) { //nolint:revive // as for result
	f.publisher.mu.Lock()
	defer f.publisher.mu.Unlock()
	return f.ack, f.err, f.resolved
}

// settle records the result. The caller holds the publisher's lock.
func (f *Future) settle(ack *jetstream.PubAck, err error) {
	f.resolved, f.ack, f.err = true, ack, err
	if f.brief {
		f.msg = nil
	}
	if err == nil && f.okCh != nil {
		f.okCh <- ack
	}
	if err != nil && f.errCh != nil {
		f.errCh <- err
	}
	if f.done != nil {
		close(f.done)
	}
}
