package kv

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/ordered"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/sentinel"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// How a follower of keys asks.
const (
	followBatch  = 512
	followExpiry = 3 * time.Second // without a sign of life, whatever the reader is doing
)

// follower reads the updates of a bucket's keys in order over every disturbance: the present
// values, then every change, no revision twice. When the bucket is replaced by another one of its
// name, it begins anew. It belongs to one goroutine, but for isStale.
type follower struct {
	bucket  *Bucket
	reader  *ordered.Reader
	filters []string
	options Watch
	once    bool // only the present values are wanted
	waited  bool // somebody waits until they are reported

	revision uint64    // of the last update
	loaded   bool      // all present values are reported
	told     bool      // that they are up to date, or why not, once
	block    error     // told last, of blocks
	left     uint64    // of the present values, not yet received
	counted  bool      // it is known how many those are
	replaced bool      // and not yet reported
	since    time.Time // the bucket that is there has been read

	live   context.Context // when it ends, nothing is reported any more
	cancel func()          // ends it
	limit  *time.Timer     // ends it when next waits for too long; or nil
	runs   bool            // the limit does
	leave  func()          // the client, and the question for the bucket
	caught bool            // all that the server has is received
	fresh  atomic.Bool     // and the present values are reported
	begun  time.Time
	sign   atomic.Int64  // when it was last so, since begun
	breaks atomic.Uint64 // of the connection when the consumer was made
	check  atomic.Pointer[check]
	mortal atomic.Bool // an update had a time to live of its own
}

// step is what a follower's next returns: an update, a check of what is known, or one of two marks.
type step struct {
	entry    *entry // nil for a mark
	replaced bool   // the bucket is another one; its values follow from the beginning
	check    *check
	// When nothing of that is set, all present values have been reported.
}

// errFollow makes the reader return to the follower.
var errFollow = errors.New("there is something to look at")

// follow creates the consumer. Without a deadline in ctx, which is also the follower's life, the request timeout
// bounds that.
func (b *Bucket) follow(ctx context.Context, filters []string, options Watch, once bool) (*follower, error) {
	f := &follower{bucket: b, filters: slices.Clone(filters), options: options, once: once, begun: time.Now()}
	live, cancel := context.WithCancelCause(ctx)
	f.live, f.cancel = live, func() { cancel(nil) }
	f.leave = func() {}
	err := fault.Ended(ctx)
	if err == nil && !once {
		f.leave, err = b.life.Join(func() { cancel(fault.ErrClosed) })
	}
	if err != nil {
		f.cancel()
		return nil, err
	}
	cfg := jetstream.ConsumerConfig{HeadersOnly: options.MetaOnly, DeliverPolicy: f.wholePolicy(), FilterSubjects: b.subjects(filters)}
	if len(cfg.FilterSubjects) == 1 {
		cfg.FilterSubject, cfg.FilterSubjects = cfg.FilterSubjects[0], nil
	}
	switch {
	case options.From > 0:
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, options.From
	case options.UpdatesOnly:
		cfg.DeliverPolicy = jetstream.DeliverNewPolicy
	}
	f.reader = ordered.New(b.api, ordered.Options{
		Stream: b.stream, Config: cfg, Batch: followBatch, Heartbeat: sentinel.Beat, Silence: sentinel.Silence,
		Lasting: !once, Whole: !options.UpdatesOnly, Replicas: b.facts.Load().direct && cfg.FilterSubject != "",
		Opened: f.opened, Observe: f.observe, Idle: f.idle, Woken: f.woken,
	})
	first, err := f.reader.Start(f.live)
	if err == nil && options.UpdatesOnly {
		f.loaded = true
		f.reader.SkipTo(0)
		f.setFresh(true, nil)
	}
	if err == nil {
		err = f.opened(first)
	}
	if err != nil && !errors.Is(err, errFollow) {
		f.close()
		return nil, err
	}
	if !once {
		ended, leave := f.leave, b.join(f)
		f.leave = func() { leave(); ended() }
	}
	return f, nil
}

func (f *follower) wholePolicy() jetstream.DeliverPolicy {
	if f.options.History {
		return jetstream.DeliverAllPolicy
	}
	return jetstream.DeliverLastPerSubjectPolicy
}

// name is what errors and events call the follower.
func (f *follower) name() string { return strings.Join(f.filters, ",") }

// opened takes note of a consumer. A bucket that is another one than before is read from the beginning.
func (f *follower) opened(o ordered.Opening) error {
	f.breaks.Store(o.Breaks)
	if o.Anew {
		f.revision, f.loaded, f.replaced, f.counted, f.since = 0, false, true, false, time.Now()
		f.reader.Restart(f.wholePolicy())
		return errFollow
	}
	if f.loaded {
		return nil
	}
	f.left, f.counted = o.Pending, true
	return errFollow
}

// next returns the next step. It returns an error when its life ends, when the client is closed and, of a
// follower that wants only the present values, when the bucket is gone; everything else it waits out.
func (f *follower) next() (step, error) {
	for {
		switch {
		case f.replaced:
			f.replaced = false
			return step{replaced: true}, nil
		case !f.loaded && f.counted && f.left == 0:
			f.loaded, f.waited = true, false
			f.reader.SkipTo(f.revision)
			f.setFresh(f.caught, nil)
			return step{}, nil
		}
		if f.loaded {
			if check := f.check.Swap(nil); check != nil && check.asked.After(f.since) {
				return step{check: check}, nil
			}
		}
		var m *natsgo.Msg
		var d wire.Delivery
		var err error
		if f.limit != nil {
			m, d, err = f.readInTime()
		} else { // many may wait here, each with a stack that one more call would double
			m, d, err = f.reader.Next(f.live)
		}
		switch {
		case errors.Is(err, errFollow):
			continue
		case !f.once && !f.waited && blockOf(err) != nil:
			f.setFresh(false, err)
			continue // the reader pauses before it asks again
		case err != nil:
			return step{}, err
		}
		if !f.loaded {
			f.left = d.Pending
		}
		if d.Sequence <= f.revision || len(m.Subject) <= len(f.bucket.prefix) {
			continue
		}
		f.revision = d.Sequence
		update := f.bucket.entry(d.Store(m), d.Pending)
		if update.seconds > 0 {
			f.mortal.Store(true)
		}
		if f.options.IgnoreDeletes && deleted(update) {
			continue
		}
		return step{entry: update}, nil
	}
}

// readInTime returns the next message. The limit runs from where it has to be waited for first until it comes.
func (f *follower) readInTime() (m *natsgo.Msg, d wire.Delivery, err error) {
	if m, d, err = f.reader.Ready(f.live); m == nil && err == nil {
		if !f.runs {
			f.limit.Reset(f.bucket.timeout)
			f.runs = true
		}
		m, d, err = f.reader.Next(f.live)
	}
	if m != nil && f.runs {
		f.limit.Stop()
		f.runs = false
	}
	return m, d, err
}

func (f *follower) close() {
	f.cancel()
	f.reader.Close()
	f.leave()
}

// idle takes the server's word that it has nothing to deliver: what of the present values is still to come
// has expired.
func (f *follower) idle(context.Context) error {
	if f.loaded {
		return nil
	}
	f.left = 0
	return errFollow
}

// woken makes the reader return when there is something to look at.
func (f *follower) woken() error {
	if f.loaded && f.check.Load() != nil {
		return errFollow
	}
	return nil
}

// observe takes the reader's word on whether all is read.
func (f *follower) observe(fresh bool) {
	f.caught = fresh
	f.setFresh(fresh && f.loaded, nil)
}

// blocks are what keeps a follower from reading until somebody mends it.
var blocks = []error{jetstream.ErrStreamNotFound, fault.ErrOneAnswer, natsgo.ErrPermissionViolation, natsgo.ErrMaxSubscriptionsExceeded}

func blockOf(err error) error {
	for _, block := range blocks {
		if errors.Is(err, block) {
			return block
		}
	}
	return nil
}

// setFresh records whether all that the bucket has is known to be reported, and tells when that
// changes.
func (f *follower) setFresh(fresh bool, cause error) {
	if fresh {
		f.sign.Store(int64(time.Since(f.begun)))
	}
	changed := f.fresh.Swap(fresh) != fresh
	if block := blockOf(cause); fresh || block != nil && block != f.block { //nolint:errorlint // one of blocks
		f.block = block
		changed = changed || block != nil
	}
	if !changed || f.once || f.live.Err() != nil || f.bucket.life.IsDraining() {
		return
	}
	keys := fault.Path(f.bucket.name, f.name())
	switch {
	case !f.told && cause == nil: // it was never fresh before
		f.told = fresh
	case fresh:
		f.bucket.reports.Fresh(keys)
	default:
		f.told = true
		f.bucket.reports.Stale(keys, jsapi.Wrap("watch", keys, cause))
	}
}

// isStale tells whether the bucket may have more than was reported.
func (f *follower) isStale() bool {
	silence := min(time.Since(f.begun)-time.Duration(f.sign.Load()), f.reader.ServerSilence())
	if !f.fresh.Load() || silence > followExpiry {
		return true
	}
	if check := f.check.Load(); check != nil && check.names != nil {
		return true
	}
	up, breaks, _ := f.bucket.conn.State()
	return !up || breaks != f.breaks.Load()
}
