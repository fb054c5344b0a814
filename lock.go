package nats

import (
	"context"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lease"
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
// hands, takes the lock away; the tokens of a new bucket begin anew. So does a bucket that is changed to
// delete its values (WithKeyValueTTL) before the lease is over: the holder learns of it when it renews
// the lease, within a third of its length and three seconds.
type Lock struct {
	kv    *KeyValue
	key   string
	lease *lease.Lease
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
	if err := kv.checkLease(ctx, "lock", key, ttl); err != nil {
		return nil, err
	}
	held, err := kv.client.leases.Acquire(ctx, kv.keys, key, ttl)
	if err != nil {
		return nil, err
	}
	return &Lock{kv, key, held}, nil
}

func (kv *KeyValue) checkLease(ctx context.Context, op, key string, ttl time.Duration) error {
	if err := kv.check(ctx, op, key); err != nil {
		return err
	}
	if ttl < time.Second || ttl%time.Second != 0 {
		return fail(op, path(kv.bucket, key), ErrInvalidArgument, "a lease must be of whole seconds, at least one, not %v", ttl)
	}
	return nil
}

// Token returns the fencing token: the revision at which the lock was acquired. It is larger than those
// of all who held the lock before.
func (l *Lock) Token() uint64 { return l.lease.Token() }

// Context returns a context that ends when the lock is lost or unlocked, before another one can hold it
// by the local clock. Its cause is then ErrLockLost. It carries the values of the context given to Lock,
// which does not end it.
func (l *Lock) Context() context.Context { return l.lease.Context() }

// Unlock ends Context and gives the lock up, so that the next one can take it at once. It returns
// ErrLockLost when it was lost before, so that what was done under it may not have been done alone; the
// beginning of the client's end takes it from nobody.
// Another error says that the server could not be told in time: it is told beside the caller, or the lease ends by
// itself. A second call returns nil at once.
func (l *Lock) Unlock(ctx context.Context) error {
	if ctx == nil {
		return errNilContext("unlock", path(l.kv.bucket, l.key))
	}
	ctx, cancel := l.kv.client.conn.Deadline(ctx)
	defer cancel()
	return l.lease.Release(ctx)
}

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
	o := applied(electOptions{lease: defaultLease}, opts)
	if err := kv.checkLease(ctx, op, key, o.lease); err != nil {
		return err
	}
	if run == nil {
		return fail(op, path(kv.bucket, key), ErrInvalidArgument, "the function is nil")
	}
	return kv.client.leases.Lead(ctx, kv.keys, key, o.lease, func(ctx context.Context, token uint64) error {
		return run(context.WithValue(ctx, fencingKey{}, token))
	})
}

// fencingKey is where the context of run has its token.
type fencingKey struct{}

// FencingToken returns the token of the leader whose context it is, as Lock.Token has it; 0 for any other
// context.
func FencingToken(ctx context.Context) uint64 {
	token, _ := ctx.Value(fencingKey{}).(uint64)
	return token
}

// leaseReports turns what no caller sees into log lines and events.
type leaseReports struct{ c *Client }

func (r leaseReports) Unrenewed(key string, err error) {
	r.c.log.Warn("the lock could not be renewed; trying on", "key", key, "error", err)
}

func (r leaseReports) Lost(string, error) { r.c.totals.lostLocks.Add(1) }

func (r leaseReports) Deposed(key string, err error) {
	r.c.log.Warn("the leadership was lost", "key", key, "error", err)
	r.c.emit(Event{Type: EventLeadershipLost, Subject: key, Err: err})
}
