package nats

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	keyvalue "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/kv"
)

// How a lock is kept and waited for.
const (
	lockRenewals = 3                      // a lease is renewed so many times in its length
	lockMargin   = 10                     // the part of the length by which the holder stops before the server does
	lockPoll     = 500 * time.Millisecond // a waiter asks, as well as it watches
	lockPause    = 100 * time.Millisecond // after an answer that says "not now"
)

// Lock is a lease: the right to a key, for a time, that renews itself. It is made by KeyValue.Lock and is
// safe for concurrent use.
//
// A lease cannot promise that two processes never believe to hold it at the same moment, and no lock
// over a network can: a holder may be suspended between its look at the lock and its deed, for longer
// than the lease, and does its deed when another one holds it. What it promises is that the server
// gives it to one at a time, with tokens that grow, and that Context ends, by the holder's own clock,
// before the server can give it to another one. So where two deeds would do harm, and not only cost time
// or money twice, hand Token to whatever is written to, and let that refuse a token smaller than the
// largest it has seen: a fencing token, as in Kleppmann's "How to do distributed locking". A key
// of the same bucket that is only written with Update is as good.
//
// The lease is counted from before the request that acquired or renewed it was sent, by the monotonic
// clock, and Context ends a tenth of its length earlier than the server's: the margin for clocks that
// run at different rates and for a new leader whose clock differs. The monotonic clock of Linux stands
// while the machine is suspended; then only the token helps. Deleting the bucket, or the key by other
// hands, takes the lock away; the tokens of a new bucket begin anew.
type Lock struct {
	kv     *KeyValue
	key    string
	ttl    time.Duration
	holder []byte
	token  uint64

	begun   time.Time
	expires atomic.Int64 // since begun, for the holder
	ctx     context.Context
	cancel  context.CancelCauseFunc
	timer   *time.Timer // ends ctx
	release sync.Once
	lost    sync.Once
	stop    chan struct{} // closed by Unlock
	done    chan struct{} // closed when the lease is not renewed any more

	revision uint64 // of the last renewal; for Unlock once done is closed
}

// Lock waits until it holds key, as long as ctx lasts, and then renews the lease by itself until Unlock
// or until it is lost. The length of the lease, ttl, is how long the others wait when the holder dies:
// whole seconds, since the server counts in them. The key belongs to locks alone: it must not be
// written in any other way. The bucket must allow keys with a time to live, see WithKeyTTLs.
//
// Waiters watch the key, and also ask twice a second, so that they take a lock at once when it is
// unlocked, and within a second of its end when its holder has died. Which of them gets it is chance.
//
// The errors are ErrInvalidArgument for a bad key or ttl and for a bucket that does not allow it,
// deletes all its values sooner (WithKeyValueTTL), or is a mirror,
// ErrBucketNotFound, and, when ctx ends, ErrTimeout or ErrNotConnected.
func (kv *KeyValue) Lock(ctx context.Context, key string, ttl time.Duration) (*Lock, error) {
	const op = "lock"
	if err := kv.check(ctx, op, key); err != nil {
		return nil, err
	}
	if ttl < time.Second || ttl%time.Second != 0 {
		return nil, fail(op, path(kv.bucket, key), ErrInvalidArgument, "a lease must be of whole seconds, at least one, not %v", ttl)
	}
	holder := []byte(kv.client.nc.Opts.Name + " " + rand.Text())
	var updates <-chan jetstream.KeyValueEntry
	for {
		lock, err := kv.tryLock(ctx, op, key, holder, ttl)
		switch {
		case lock != nil:
			return lock, nil
		case ctx.Err() != nil && err == nil:
			return nil, kv.wrap(op, key, fault.Ended(ctx))
		case err != nil && (ctx.Err() != nil || !passesForLock(err)):
			return nil, kv.wrap(op, key, err)
		}
		if updates == nil {
			watcher, err := kv.Watch(ctx, key, jetstream.MetaOnly())
			if err == nil {
				defer func() { _ = watcher.Stop() }()
				updates = watcher.Updates()
			}
		}
		if err := kv.awaitUnlock(ctx, updates); err != nil {
			return nil, kv.wrap(op, key, err)
		}
	}
}

// passesForLock tells whether an attempt failed for reasons that may pass.
func passesForLock(err error) bool {
	return errors.Is(err, ErrTimeout) || errors.Is(err, ErrConnectionLost) || errors.Is(err, ErrNotConnected) ||
		errors.Is(err, ErrNoResponders)
}

// awaitUnlock returns when the key was deleted, or it is time to ask.
func (kv *KeyValue) awaitUnlock(ctx context.Context, updates <-chan jetstream.KeyValueEntry) error {
	poll := time.NewTimer(lockPoll)
	defer poll.Stop()
	for {
		select {
		case entry, ok := <-updates:
			if !ok {
				updates = nil
			} else if entry != nil && entry.Operation() != jetstream.KeyValuePut {
				return nil
			}
		case <-poll.C:
			return nil
		case <-ctx.Done():
			return fault.Ended(ctx)
		case <-kv.client.life.Ending():
			return ErrClosed
		}
	}
}

// tryLock returns the lock, or nil when somebody else holds it.
func (kv *KeyValue) tryLock(ctx context.Context, op, key string, holder []byte, ttl time.Duration) (*Lock, error) {
	asking, cancel := kv.client.deadline(ctx)
	defer cancel()
	w := keyvalue.Write{Expect: true, TTL: ttl}
	entry, err := kv.keys.Latest(asking, key)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
	case err != nil:
		return nil, kv.wrap(op, key, err)
	case !entry.Deleted():
		return nil, nil
	default:
		w.Revision = entry.Revision()
	}
	if kv.keys.Origin() != "" { // which may delete its values sooner, and does not tell its mirrors that it has
		return nil, fail(op, path(kv.bucket, key), ErrInvalidArgument, "the bucket is a mirror, which cannot have locks; take those of %q", kv.keys.Origin())
	}
	if age, err := kv.keys.MaxAge(asking); err != nil {
		return nil, kv.wrap(op, key, err)
	} else if age > 0 && age < ttl {
		return nil, fail(op, path(kv.bucket, key), ErrInvalidArgument, "the bucket deletes its values after %v, before a lease of %v is over", age, ttl)
	}
	l := &Lock{
		kv: kv, key: key, ttl: ttl, holder: holder, begun: time.Now(),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	l.extend(0)
	writing, stop := context.WithTimeout(ctx, l.left())
	defer stop()
	l.token, err = kv.keys.Write(writing, key, holder, w)
	var api *jetstream.APIError
	switch {
	case errors.Is(err, ErrConflict):
		return nil, nil // somebody was faster
	case errors.As(err, &api) && api.ErrorCode == fault.CodeTTLDisabled:
		return nil, fail(op, path(kv.bucket, key), ErrInvalidArgument, "the bucket does not allow keys with a time to live; create it with WithKeyTTLs: %w", kv.wrap(op, key, err))
	case err != nil:
		return nil, kv.wrap(op, key, err)
	}
	return l.begin(ctx)
}

// begin starts the keeping of a lock that the server has just given.
func (l *Lock) begin(ctx context.Context) (*Lock, error) {
	l.revision = l.token
	l.ctx, l.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	l.ctx = lease{l.ctx, l}
	l.timer = time.AfterFunc(l.left(), func() { l.lose(errLeaseExpired) })
	forget, err := l.kv.client.life.OnClose(func() { l.lose(ErrClosed) })
	if err != nil {
		l.lose(err)
		return nil, err
	}
	go func() {
		defer close(l.done)
		defer forget()
		l.keep()
	}()
	return l, nil
}

// extend lets the lease last from a moment since l.begun, when the request for it was not sent yet.
func (l *Lock) extend(from time.Duration) {
	l.expires.Store(int64(from + l.ttl - l.ttl/lockMargin))
}

// left is how long the holder may still believe in the lease.
func (l *Lock) left() time.Duration { return time.Duration(l.expires.Load()) - time.Since(l.begun) }

// lose ends the lock's context.
func (l *Lock) lose(cause error) {
	l.cancel(&fault.Error{Op: "lock", Target: path(l.kv.bucket, l.key), Kind: ErrLockLost, Cause: cause})
	l.noteLost(cause)
}

// noteLost counts a loss, once, that is not the client's end.
func (l *Lock) noteLost(cause error) {
	if !errors.Is(cause, ErrClosed) {
		l.lost.Do(func() { l.kv.client.totals.lostLocks.Add(1) })
	}
}

var errLeaseExpired = errors.New("the lease could not be renewed in time")

// keep renews the lease until Unlock or its loss.
func (l *Lock) keep() {
	const op = "renew lock"
	defer l.timer.Stop()
	due := time.NewTimer(l.ttl/lockRenewals - time.Since(l.begun))
	defer due.Stop()
	for {
		select {
		case <-l.stop:
			return
		default: // far from the server the next renewal is always due
		}
		select {
		case <-due.C:
		case <-l.stop:
			return
		case <-l.ctx.Done():
			return
		case <-l.kv.client.life.Context().Done(): // the connection is closed for good
			l.lose(ErrClosed)
			return
		}
		from := time.Since(l.begun)
		ctx, cancel := context.WithTimeout(l.ctx, l.left())
		revision, err := l.kv.keys.Write(ctx, l.key, l.holder, keyvalue.Write{Expect: true, Revision: l.revision, TTL: l.ttl})
		cancel()
		err = l.kv.wrap(op, l.key, err)
		switch {
		case err == nil:
			l.revision = revision
			l.extend(from)
			if !l.timer.Reset(l.left()) || l.left() <= 0 { // it has ended the context, or ought to have
				l.lose(errLeaseExpired)
				return
			}
			due.Reset(from + l.ttl/lockRenewals - time.Since(l.begun))
		case errors.Is(err, ErrConflict), errors.Is(err, ErrBucketNotFound):
			l.lose(err)
			return
		default:
			l.kv.client.log.Warn("the lock could not be renewed; trying on", "key", path(l.kv.bucket, l.key), "error", err)
			due.Reset(lockPause)
		}
	}
}

// lease is the context of a lock, or of who leads by it. A process that goes on after a pause may look at it before the timer
// has run: Err looks at the clock.
type lease struct {
	context.Context //nolint:containedctx // it is one
	lock            *Lock
}

func (c lease) Err() error {
	if c.Context.Err() == nil && c.lock.left() <= 0 {
		c.lock.lose(errLeaseExpired)
	}
	return c.Context.Err()
}

// Token returns the fencing token: the revision at which the lock was acquired. It is larger than those
// of all who held the lock before.
func (l *Lock) Token() uint64 { return l.token }

// Context returns a context that ends when the lock is lost or unlocked, before another one can hold it
// by the local clock. Its cause is then ErrLockLost. It carries the values of the context given to Lock,
// which does not end it.
func (l *Lock) Context() context.Context { return l.ctx }

// Unlock ends Context and gives the lock up, so that the next one can take it at once. It returns
// ErrLockLost when it was lost before, so that what was done under it may not have been done alone; the
// beginning of the client's end takes it from nobody.
// Another error says that the server could not be told: the lease ends by itself then. A second call
// returns nil.
func (l *Lock) Unlock(ctx context.Context) error {
	const op = "unlock"
	if ctx == nil {
		return errNilContext(op, path(l.kv.bucket, l.key))
	}
	err := error(nil)
	l.release.Do(func() { err = l.unlock(ctx, op) })
	return err
}

func (l *Lock) unlock(ctx context.Context, op string) error {
	close(l.stop)
	ctx, cancel := l.kv.client.deadline(ctx)
	defer cancel()
	select {
	case <-l.done: // a renewal on its way would change the revision
	case <-ctx.Done():
		l.cancel(nil)
		return l.kv.wrap(op, l.key, fault.Ended(ctx))
	}
	lost := error(nil)
	if l.ctx.Err() != nil {
		lost = context.Cause(l.ctx)
	}
	if lost != nil && !errors.Is(lost, ErrClosed) { // a client that is closing still holds the lease
		return lost
	}
	l.cancel(nil)
	_, err := l.kv.keys.Write(ctx, l.key, nil, keyvalue.Write{Expect: true, Revision: l.revision, Op: jetstream.KeyValuePurge, TTL: l.ttl})
	err = l.kv.wrap(op, l.key, err)
	if errors.Is(err, ErrConflict) {
		l.noteLost(err)
		return &fault.Error{Op: op, Target: path(l.kv.bucket, l.key), Kind: ErrLockLost, Cause: err}
	}
	if err != nil && lost != nil {
		return lost
	}
	return err
}
