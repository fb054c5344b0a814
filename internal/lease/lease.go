package lease

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/kv"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lifecycle"
)

// How a lease is kept and waited for.
const (
	renewals = 3                      // in the length of a lease
	margin   = 10                     // the part of its length by which the holder stops before the server does
	poll     = 500 * time.Millisecond // a waiter asks, as well as it watches
	retry    = 100 * time.Millisecond // after a renewal that failed
	farewell = 400 * time.Millisecond // for which a leader whose context has ended waits until the lease is given up
)

var errExpired = errors.New("the lease could not be renewed in time")

// Reports takes what no caller sees. Keys are the bucket, and the key in it.
type Reports interface {
	// Unrenewed is told of a renewal that failed and is tried again.
	Unrenewed(key string, err error)
	// Lost is told, once, of a lease that was lost, and not for the end of the client.
	Lost(key string, err error)
	// Deposed is told of a leader that has lost its lease, and of what it returned.
	Deposed(key string, err error)
}

// Leases are those of a client.
type Leases struct {
	life    *lifecycle.Life
	up      func() bool
	holder  string
	reports Reports
}

// New returns what the leases of a client have in common. Up tells whether it is connected, and holder is what it is
// called in the values of their keys.
func New(life *lifecycle.Life, up func() bool, holder string, r Reports) *Leases {
	return &Leases{life: life, up: up, holder: holder, reports: r}
}

// Lease is the right to a key, for a time, that renews itself.
type Lease struct {
	*Leases
	bucket *kv.Bucket
	key    string
	ttl    time.Duration
	value  []byte // of the key
	token  uint64

	begun    time.Time
	expires  atomic.Int64 // since begun, for the holder
	ctx      context.Context
	cancel   context.CancelCauseFunc
	timer    *time.Timer // ends ctx
	released atomic.Bool
	kept     context.Context // ends with ctx, and when the lease is to be given up
	stop     context.CancelFunc
	done     chan struct{} // closed when the lease is not renewed any more

	revision uint64 // of the last renewal; for Release once done is closed
}

// begin starts the keeping of a lease that the server has just given.
func (l *Lease) begin(ctx context.Context) error {
	l.revision = l.token
	l.ctx, l.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	l.ctx = clocked{l.ctx, l}
	l.kept, l.stop = context.WithCancel(l.ctx)
	l.timer = time.AfterFunc(l.left(), func() { l.lose(errExpired) })
	forget, err := l.life.OnClose(func() { l.lose(fault.ErrClosed) })
	if err != nil {
		l.stop()
		l.timer.Stop()
		l.cancel(err)
		return err
	}
	go func() {
		defer close(l.done)
		defer forget()
		defer l.timer.Stop()
		l.keep()
	}()
	return nil
}

// extend lets the lease last from a moment since l.begun, when the request for it was not sent yet.
func (l *Lease) extend(from time.Duration) { l.expires.Store(int64(from + l.ttl - l.ttl/margin)) }

// left is how long the holder may still believe in the lease.
func (l *Lease) left() time.Duration { return time.Duration(l.expires.Load()) - time.Since(l.begun) }

// lose ends the lease's context.
func (l *Lease) lose(cause error) {
	err := &fault.Error{Op: "lock", Target: l.target(), Kind: fault.ErrLockLost, Cause: cause}
	if l.cancel(err); context.Cause(l.ctx) == err && !errors.Is(cause, fault.ErrClosed) { //nolint:errorlint // this very one
		l.reports.Lost(l.target(), cause)
	}
}

// lost returns why the context has ended, or nil when it has not.
func (l *Lease) lost() error {
	if l.ctx.Err() == nil {
		return nil
	}
	return context.Cause(l.ctx)
}

func (l *Lease) target() string { return l.bucket.Name() + "/" + l.key }

// keep renews the lease until it is given up or lost.
func (l *Lease) keep() {
	due := time.NewTimer(l.ttl/renewals - time.Since(l.begun))
	defer due.Stop()
	for l.kept.Err() == nil { // far from the server the next renewal is always due
		select {
		case <-due.C:
		case <-l.kept.Done():
			return
		case <-l.life.Context().Done(): // the connection is closed for good
			l.lose(fault.ErrClosed)
			return
		}
		from := time.Since(l.begun)
		ctx, cancel := context.WithTimeout(l.ctx, l.left())
		revision, err := l.bucket.Write(ctx, l.key, l.value, kv.Write{Expect: true, Revision: l.revision, TTL: l.ttl})
		cancel()
		err = l.bucket.Wrap("renew lock", l.key, err)
		switch {
		case err == nil:
			l.revision = revision
			l.extend(from)
			if !l.timer.Reset(l.left()) || l.left() <= 0 { // it has ended the context, or ought to have
				l.lose(errExpired)
				return
			}
			pause := from + l.ttl/renewals - time.Since(l.begun)
			due.Reset(pause)
			asking, cancel := context.WithTimeout(l.kept, pause)
			if err := l.fits(asking); errors.Is(err, fault.ErrInvalidArgument) {
				l.lose(err)
			}
			cancel()
		case errors.Is(err, fault.ErrConflict) && l.meets(l.ctx):
			due.Reset(0)
		case errors.Is(err, fault.ErrConflict), errors.Is(err, fault.ErrBucketNotFound):
			l.lose(err)
		default:
			l.reports.Unrenewed(l.target(), err)
			due.Reset(retry)
		}
	}
}

// meets takes the revision of an earlier renewal whose answer was not heard, and tells whether there is one: the value is
// no other holder's.
func (l *Lease) meets(ctx context.Context) bool {
	entry, err := l.bucket.Latest(ctx, l.key)
	if err != nil || entry.Revision() <= l.revision || !bytes.Equal(entry.Value(), l.value) {
		return false
	}
	l.revision = entry.Revision()
	return true
}

// clocked is the context of a lease, or of who leads by it. A process that goes on after a pause may look at it before
// the timer has run: Err looks at the clock.
type clocked struct {
	context.Context //nolint:containedctx // it is one
	lease           *Lease
}

func (c clocked) Err() error {
	if c.Context.Err() == nil && c.lease.left() <= 0 {
		c.lease.lose(errExpired)
	}
	return c.Context.Err()
}

// Token returns the revision at which the lease was acquired, which is larger than those of all before.
func (l *Lease) Token() uint64 { return l.token }

// Context returns a context that ends when the lease is lost, for ErrLockLost, or given up.
func (l *Lease) Context() context.Context { return l.ctx }

// Release gives the lease up, or returns ErrLockLost when it was lost before. A second call returns nil.
func (l *Lease) Release(ctx context.Context) error {
	if l.released.Swap(true) {
		return nil
	}
	return l.bucket.Wrap("unlock", l.key, l.giveUp(ctx))
}

func (l *Lease) giveUp(ctx context.Context) error {
	l.stop()
	select {
	case <-l.done: // a renewal on its way would change the revision
	case <-ctx.Done():
		l.cancel(nil) // which ends the renewal, too
		l.forgo(l.value, func() uint64 { <-l.done; return l.revision })
		return fault.Ended(ctx)
	}
	lost := l.lost()
	l.cancel(nil)
	if lost != nil && !errors.Is(lost, fault.ErrClosed) { // a client that is closing still holds it
		return lost
	}
	switch err := l.free(ctx, l.value, l.revision); {
	case errors.Is(err, fault.ErrConflict):
		l.reports.Lost(l.target(), err)
		return &fault.Error{Kind: fault.ErrLockLost, Cause: err}
	case err != nil:
		l.forgo(l.value, func() uint64 { return l.revision })
		return cmp.Or(lost, err)
	}
	return nil
}

// free deletes the key over a revision, or over the one that it has while its value is this very one: that of a writing
// whose answer was not heard.
func (l *Lease) free(ctx context.Context, value []byte, revision uint64) error {
	w := kv.Write{Expect: true, Revision: revision, TTL: l.ttl, Op: jetstream.KeyValuePurge}
	_, err := l.bucket.Write(ctx, l.key, nil, w)
	if !errors.Is(err, fault.ErrConflict) {
		return err
	}
	if entry, failed := l.bucket.Latest(ctx, l.key); failed == nil && bytes.Equal(entry.Value(), value) {
		w.Revision = entry.Revision()
		_, err = l.bucket.Write(ctx, l.key, nil, w)
	}
	return err
}
