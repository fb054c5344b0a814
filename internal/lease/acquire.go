package lease

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/kv"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
)

// Acquire waits until it holds the key, as long as ctx lasts. The lease lasts until it is released, or lost.
func (s *Leases) Acquire(ctx context.Context, b *kv.Bucket, key string, ttl time.Duration) (*Lease, error) {
	return s.acquire(ctx, "lock", b, key, ttl)
}

func (s *Leases) acquire(ctx context.Context, op string, b *kv.Bucket, key string, ttl time.Duration) (*Lease, error) {
	l := &Lease{Leases: s, bucket: b, key: key, ttl: ttl, done: make(chan struct{})}
	var freed <-chan struct{}
	var known error // why it was not to be had, when that was heard last
	for {
		held, err := l.attempt(ctx)
		if !held && err == nil {
			err = errHeld
		}
		last := b.Wrap(op, key, err)
		switch {
		case held && err == nil:
			return l, nil
		case err == errHeld: //nolint:errorlint // this very one
			known = err
		case ctx.Err() != nil && known != nil && passes(last): // while it asked again
			return nil, b.Wrap(op, key, fault.Joined{fault.Ended(ctx), known})
		case ctx.Err() != nil || !passes(last):
			return nil, last
		}
		if freed == nil {
			watching, stop := context.WithCancel(ctx)
			defer stop()
			freed = l.watch(watching)
		}
		if end := s.await(ctx, freed); end != nil {
			return nil, b.Wrap(op, key, fault.Joined{end, err})
		}
	}
}

var errHeld = errors.New("another one holds it")

// passes tells whether an attempt failed for reasons that may pass.
func passes(err error) bool {
	return errors.Is(err, fault.ErrTimeout) || errors.Is(err, fault.ErrConnectionLost) || errors.Is(err, fault.ErrNotConnected) ||
		errors.Is(err, fault.ErrNoResponders)
}

// watch tells of deletions of the key, until ctx ends: beside the caller, who goes on asking while no watcher is to be had.
func (l *Lease) watch(ctx context.Context) <-chan struct{} {
	freed := make(chan struct{}, 1)
	go func() {
		for ctx.Err() == nil {
			watcher, err := l.bucket.Watch(ctx, []string{l.key}, kv.Watch{MetaOnly: true})
			if err != nil {
				pause.Sleep(ctx, poll)
				continue
			}
			for entry := range watcher.Updates() {
				if entry != nil && entry.Operation() != jetstream.KeyValuePut {
					select {
					case freed <- struct{}{}:
					default:
					}
				}
			}
		}
	}()
	return freed
}

// await returns when the key was deleted, or it is time to ask.
func (s *Leases) await(ctx context.Context, freed <-chan struct{}) error {
	select {
	case <-freed:
	case <-time.After(poll):
	case <-ctx.Done():
		return fault.Ended(ctx)
	case <-s.life.Ending():
		return fault.ErrClosed
	}
	return nil
}

// attempt takes the key and begins to keep it. Close waits for it: what is taken meanwhile is given back.
func (l *Lease) attempt(ctx context.Context) (held bool, err error) {
	ctx, done, err := l.life.Attend(ctx, l.up)
	if err != nil {
		return false, err
	}
	defer done()
	if held, err = l.take(ctx); !held {
		return false, err
	}
	if err = l.begin(ctx); err != nil {
		_ = l.free(ctx, l.value, l.token)
	}
	return true, err
}

// forgo sees to it, beside the caller, that a value which may have been stored over a revision, or may still be, holds
// nothing: a deletion over that revision, which may have to be waited for, makes it come too late, or is refused when it
// has come.
func (l *Lease) forgo(value []byte, revision func() uint64) {
	ctx, cancel := context.WithTimeout(context.Background(), l.ttl)
	ctx, done, err := l.life.Attend(ctx, l.up)
	if err != nil {
		cancel()
		return
	}
	go func() {
		defer cancel()
		defer done()
		_ = l.free(ctx, value, revision())
	}()
}

// take writes the key if nobody holds it.
func (l *Lease) take(ctx context.Context) (held bool, err error) {
	w := kv.Write{Expect: true, TTL: l.ttl}
	entry, err := l.bucket.Latest(ctx, l.key)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
	case err != nil:
		return false, err
	case entry.Operation() == jetstream.KeyValuePut:
		return false, nil
	default:
		w.Revision = entry.Revision()
	}
	if origin := l.bucket.Origin(); origin != "" { // which may delete its values sooner, and does not tell its mirrors that it has
		return false, fault.New("", "", fault.ErrInvalidArgument, "the bucket is a mirror, which cannot have locks; take those of %q", origin)
	}
	if err := l.fits(ctx); err != nil {
		return false, err
	}
	l.begun, l.value = time.Now(), []byte(l.holder+" "+rand.Text()) // of this very take
	l.extend(0)
	writing, cancel := context.WithTimeout(ctx, l.left())
	defer cancel()
	l.token, err = l.bucket.Write(writing, l.key, l.value, w)
	if fault.Classify(err, nil).IsUncertain() {
		l.forgo(l.value, func() uint64 { return w.Revision })
	}
	switch {
	case errors.Is(err, fault.ErrConflict):
		return false, nil // somebody was faster
	case fault.CodeOf(err) == fault.CodeTTLDisabled:
		return false, fault.New("", "", fault.ErrInvalidArgument, "the bucket does not allow keys with a time to live; create it with WithKeyTTLs: %w", l.bucket.Wrap("lock", l.key, err))
	}
	return err == nil, err
}

// fits returns an error when the bucket may delete the key before the lease is over.
func (l *Lease) fits(ctx context.Context) error {
	age, err := l.bucket.MaxAge(ctx)
	if err == nil && age > 0 && age < l.ttl {
		err = fault.New("", "", fault.ErrInvalidArgument, "the bucket deletes its values after %v, before a lease of %v is over", age, l.ttl)
	}
	return err
}
