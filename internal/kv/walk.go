package kv

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
)

// Present yields the present entries of the keys that match one of the filters, or of all keys. An error ends it.
// Without a deadline in ctx, the request timeout bounds the wait for each entry, also for those that are passed over, and
// not the loop.
func (b *Bucket) Present(ctx context.Context, filters []string, options Watch) iter.Seq2[jetstream.KeyValueEntry, error] {
	return func(body func(jetstream.KeyValueEntry, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		var limit *time.Timer
		if _, ok := ctx.Deadline(); !ok {
			limit = time.AfterFunc(b.timeout, func() { cancel(context.DeadlineExceeded) })
			defer limit.Stop()
		}
		var f *follower
		loop, err := b.life.Loop(func() { cancel(fault.ErrClosed) }, func() {
			if f != nil {
				f.reader.Close()
			}
		})
		if err != nil {
			body(nil, err)
			return
		}
		defer loop.Over()
		yield := func(entry jetstream.KeyValueEntry, err error) bool {
			return loop.Work(func() bool { return body(entry, err) })
		}
		if f, err = b.follow(ctx, filters, options, true); err != nil {
			yield(nil, err)
			return
		}
		defer f.close()
		f.limit, f.runs = limit, limit != nil
		for {
			next, err := f.next()
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
	*Watcher
	keys chan string
}

// List lists the keys that exist. It goes on over disturbances until they are all there, ctx ends, it is stopped, or
// the client ends.
func (b *Bucket) List(ctx context.Context, filters []string, options Watch) (jetstream.KeyLister, error) {
	options.IgnoreDeletes, options.MetaOnly = true, true
	watcher, err := b.Watch(ctx, filters, options)
	if err != nil {
		return nil, err
	}
	l := &lister{watcher, make(chan string)}
	go func() {
		defer close(l.keys)
		defer watcher.follower.cancel()
		for entry := range watcher.updates {
			if entry == nil { // these are all
				return
			}
			select {
			case l.keys <- entry.Key():
			case <-watcher.follower.live.Done():
			}
		}
	}()
	return l, nil
}

func (l *lister) Keys() <-chan string { return l.keys }

// purgeAtOnce is how many keys PurgeDeletes purges at once.
const purgeAtOnce = 16

// PurgeDeletes removes the history of deleted keys, and the marks of deletions older than age, or of all when that is
// negative. A key that is written meanwhile keeps what was written.
func (b *Bucket) PurgeDeletes(ctx context.Context, age time.Duration) error {
	var gone []jetstream.KeyValueEntry
	for entry, err := range b.Present(ctx, nil, Watch{MetaOnly: true}) {
		if err != nil {
			return err
		}
		if deleted(entry) && subjects.Fault(entry.Key(), false) == "" { // some clients can store on wildcards, which match others
			gone = append(gone, entry)
		}
	}
	now, err := b.now(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var failure error
	var first sync.Once
	var purging sync.WaitGroup
	places := make(chan struct{}, purgeAtOnce)
	for _, entry := range gone {
		end := entry.Revision() // what is written from now on stays
		if age < 0 || now.age(entry.Created().UnixNano()) > age {
			end++ // and the marker goes, too
		}
		places <- struct{}{}
		purging.Go(func() {
			if err := b.purgeKey(ctx, entry.Key(), end, 0); err != nil {
				first.Do(func() { failure = fmt.Errorf("key %q: %w", entry.Key(), err) })
				cancel()
			}
			<-places
		})
	}
	purging.Wait()
	return failure
}
