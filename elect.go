package nats

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// ElectOption changes how Elect works.
type ElectOption func(*electOptions)

type electOptions struct{ lease time.Duration }

// defaultLease is the length of a leader's lease.
const defaultLease = 5 * time.Second

// WithLease sets the length of a leader's lease, of whole seconds: how long nobody leads when a leader
// dies. The default is 5 s.
func WithLease(ttl time.Duration) ElectOption { return func(o *electOptions) { o.lease = ttl } }

// Elect takes part in the election of a leader: among all who call it with the same key, one at a time
// runs run. Its context ends when ctx does, when the client is closed, and when the leadership is lost,
// and run must return then; FencingToken returns the leader's token. What a Lock cannot promise, Elect
// cannot either.
//
// When run returns while it leads, the leadership is given up and Elect returns run's error. When run
// returns because the leadership was lost, Elect takes part in the next election; the loss and run's
// error are logged and reported as EventLeadershipLost. When ctx ends, Elect returns its error after run
// has returned. Close waits for that, and the next one leads at once. The other errors are those of Lock.
func (kv *KeyValue) Elect(ctx context.Context, key string, run func(ctx context.Context) error, opts ...ElectOption) error {
	const op = "elect"
	if err := kv.check(ctx, op, key); err != nil {
		return err
	}
	if run == nil {
		return fail(op, path(kv.bucket, key), ErrInvalidArgument, "the function is nil")
	}
	o := electOptions{lease: defaultLease}
	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}
	ended, err := kv.client.life.Begin()
	if err != nil {
		return kv.wrap(op, key, err)
	}
	defer ended()
	for {
		lock, err := kv.Lock(ctx, key, o.lease)
		if err != nil {
			return kv.wrap(op, key, err)
		}
		done, err := kv.lead(ctx, lock, run)
		if done {
			return err
		}
		c := kv.client
		c.log.Warn("the leadership was lost", "key", path(kv.bucket, key), "error", err)
		c.emit(Event{Type: EventLeadershipLost, Subject: path(kv.bucket, key), Err: err})
	}
}

// lead runs run under the lock. It tells whether that was the end: run returned by itself, or ctx or the
// client ended.
func (kv *KeyValue) lead(ctx context.Context, lock *Lock, run func(ctx context.Context) error) (done bool, err error) {
	leading, cancel := context.WithCancelCause(context.WithValue(lock.Context(), fencingKey{}, lock.Token()))
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })()
	released := false
	release := func() error {
		released = true
		return lock.Unlock(context.WithoutCancel(ctx))
	}
	defer func() {
		if !released { // run panics
			_ = release()
		}
	}()
	err = run(lease{leading, lock})
	lost := release()
	switch {
	case ctx.Err() != nil:
		return true, kv.wrap("elect", lock.key, errors.Join(fault.Ended(ctx), other(err, ctx)))
	case errors.Is(context.Cause(lock.ctx), ErrClosed):
		return true, kv.wrap("elect", lock.key, errors.Join(context.Cause(lock.ctx), other(err, lock.ctx)))
	case errors.Is(lost, ErrLockLost) && err != nil:
		return false, fmt.Errorf("%w; %w", lost, err)
	case errors.Is(lost, ErrLockLost):
		return false, lost
	}
	return true, err
}

// other returns err unless it only says that ctx has ended.
func other(err error, ctx context.Context) error { //nolint:revive // err is what it is about
	if errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx)) {
		return nil
	}
	return err
}

// fencingKey is where the context of run has its token.
type fencingKey struct{}

// FencingToken returns the token of the leader whose context it is, as Lock.Token has it; 0 for any other
// context.
func FencingToken(ctx context.Context) uint64 {
	token, _ := ctx.Value(fencingKey{}).(uint64)
	return token
}
