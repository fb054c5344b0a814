package kv

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// stride is the context of a walk. Without a deadline it ends when a single step takes longer than
// the request timeout; what the caller does between two steps does not count.
type stride struct {
	context.Context //nolint:containedctx // it is one
	cancel          context.CancelCauseFunc
	timer           *time.Timer // nil where the caller has set a deadline
	patience        time.Duration
}

func newStride(ctx context.Context, patience time.Duration) *stride {
	s := &stride{patience: patience}
	s.Context, s.cancel = context.WithCancelCause(ctx)
	if _, ok := ctx.Deadline(); !ok {
		s.timer = time.AfterFunc(s.patience, func() { s.cancel(context.DeadlineExceeded) })
	}
	return s
}

func (s *stride) begin() {
	if s.timer != nil {
		s.timer.Reset(s.patience)
	}
}

func (s *stride) pause() {
	if s.timer != nil {
		s.timer.Stop()
	}
}

func (s *stride) end() {
	s.pause()
	s.cancel(nil)
}

// Present yields the present entries of the keys that match one of the filters, or of all keys. An error ends it.
// Without a deadline in ctx, the request timeout bounds the wait for each entry, and not the loop.
func (b *Bucket) Present(ctx context.Context, filters []string, options Watch) iter.Seq2[*Entry, error] {
	return func(yield func(*Entry, error) bool) {
		walk := newStride(ctx, b.timeout)
		defer walk.end()
		f, err := b.follow(walk, filters, options, true)
		if err != nil {
			yield(nil, err)
			return
		}
		defer f.close()
		for {
			walk.begin()
			next, err := f.next()
			walk.pause()
			switch {
			case err != nil:
				yield(nil, err)
				return
			case next.entry != nil:
				if !yield(next.entry, nil) {
					return
				}
			case !next.replaced:
				return
			}
		}
	}
}

// lister implements jetstream.KeyLister. Upstream's leaves goroutines behind when its keys are not all read.
type lister struct {
	keys     chan string
	follower *follower
}

// List lists the keys that exist. It goes on over disturbances until they are all there, ctx ends, it is stopped, or
// the client ends.
func (b *Bucket) List(ctx context.Context, filters []string, options Watch) (jetstream.KeyLister, error) {
	options.IgnoreDeletes, options.MetaOnly = true, true
	f, err := b.follow(ctx, filters, options, false)
	if err != nil {
		return nil, err
	}
	l := &lister{make(chan string), f}
	go func() {
		defer close(l.keys)
		defer f.close()
		l.run()
	}()
	return l, nil
}

func (l *lister) run() {
	for {
		next, err := l.follower.next()
		switch {
		case err != nil:
			return
		case next.entry != nil:
			select {
			case l.keys <- next.entry.key:
			case <-l.follower.live.Done():
				return
			}
		case next.check == nil && !next.replaced:
			return
		}
	}
}

// Keys implements jetstream.KeyLister.
func (l *lister) Keys() <-chan string { return l.keys }

// Stop implements jetstream.KeyLister.
func (l *lister) Stop() error {
	l.follower.cancel()
	return nil
}

// purgeAtOnce is how many keys PurgeDeletes purges at once.
const purgeAtOnce = 16

// PurgeDeletes removes the history of deleted keys, and the marks of deletions older than age, or of all when that is
// negative. A key that is written meanwhile keeps what was written.
func (b *Bucket) PurgeDeletes(ctx context.Context, age time.Duration) error {
	var deleted []*Entry
	for entry, err := range b.Present(ctx, nil, Watch{MetaOnly: true}) {
		if err != nil {
			return err
		}
		if entry.Deleted() {
			deleted = append(deleted, entry)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var purging sync.WaitGroup
	failed := make(chan error, 1)
	places := make(chan struct{}, purgeAtOnce)
	for _, entry := range deleted {
		end := entry.revision // what is written from now on stays
		if age < 0 || time.Since(entry.Created()) > age {
			end++ // and the marker goes, too
		}
		places <- struct{}{}
		purging.Go(func() {
			if err := b.purgeKey(ctx, entry.key, end, 0); err != nil {
				select {
				case failed <- fmt.Errorf("key %q: %w", entry.key, err):
				default: // after another one
				}
				cancel()
			}
			<-places
		})
	}
	purging.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}
