package nats

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
)

// How a follower of keys asks. It notices a consumer that has died, which says nothing, after the
// silence.
const (
	followBatch     = 512
	followHeartbeat = 500 * time.Millisecond
	followSilence   = 1100 * time.Millisecond // two heartbeats and a little
	followAttempt   = 500 * time.Millisecond
	followExpiry    = 3 * time.Second // without a sign of life, whatever the reader is doing
)

// keyFollower reads the updates of a bucket's keys in order over every disturbance: the present
// values, then every change, no revision twice. When the bucket is replaced by another one of its
// name, it begins anew. It belongs to one goroutine, but for isStale.
type keyFollower struct {
	kv      *KeyValue
	reader  *orderedReader
	filters []string
	options watchOptions
	once    bool // only the present values are wanted

	created  time.Time // of the bucket's stream
	revision uint64    // of the last update
	loaded   bool      // all present values are reported
	told     bool      // that they are up to date, once
	left     uint64    // of the present values, not yet received
	replaced bool      // and not yet reported

	live   context.Context // of the caller: when it ends, nothing is reported any more
	caught bool            // all that the server has is received
	fresh  atomic.Bool     // and the present values are reported
	begun  time.Time
	sign   atomic.Int64  // when it was last so, since begun
	breaks atomic.Uint64 // of the connection when the consumer was made
}

// followStep is what a follower's next returns: an update, or one of two marks.
type followStep struct {
	entry    *keyEntry // nil for a mark
	replaced bool      // the bucket is another one; its values follow from the beginning
	// When entry is nil and replaced is not set, all present values have been reported.
}

// errFollow makes the reader return to the follower.
var errFollow = errors.New("the consumer is new")

// follow creates the consumer. Without a deadline in ctx, which is also the follower's life,
// Config.RequestTimeout bounds that.
func (kv *KeyValue) follow(ctx context.Context, filters []string, options watchOptions, once bool) (*keyFollower, error) {
	for _, filter := range filters {
		if fault := kv.filterFault(filter); fault != "" {
			return nil, fail("watch", path(kv.bucket, filter), ErrInvalidArgument, "%w: %s", jetstream.ErrInvalidKey, fault)
		}
	}
	f := &keyFollower{kv: kv, filters: filters, options: options, once: once, live: ctx, begun: time.Now()}
	if err := fault.Ended(ctx); err != nil {
		return nil, kv.fault("watch", f.name(), err)
	}
	cfg := jetstream.ConsumerConfig{HeadersOnly: options.metaOnly}
	switch subjects := kv.subjects(filters); len(subjects) {
	case 1:
		cfg.FilterSubject = subjects[0]
	default:
		cfg.FilterSubjects = subjects
	}
	switch {
	case options.resumeFromRevision > 0:
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, options.resumeFromRevision
	case options.updatesOnly:
		cfg.DeliverPolicy = jetstream.DeliverNewPolicy
	default:
		cfg.DeliverPolicy = f.wholePolicy()
	}
	r := kv.client.newOrderedReader(kv.stream, cfg, followBatch)
	r.heartbeat, r.silence, r.attempt = followHeartbeat, followSilence, followAttempt
	r.observe = f.observe
	r.whole = !options.updatesOnly
	r.replicas = kv.direct && cfg.FilterSubject != ""
	f.reader = r
	starting, cancel := kv.client.deadline(ctx)
	defer cancel()
	if err := f.start(starting); err != nil {
		r.close()
		return nil, kv.fault("watch", f.name(), err)
	}
	r.opened = f.opened
	return f, nil
}

// start creates the first consumer. A server that has lost its connection meanwhile is asked again.
func (f *keyFollower) start(ctx context.Context) error {
	for {
		if err := f.reader.start(ctx); err != nil {
			return err
		}
		err := f.opened(ctx)
		if f.options.updatesOnly {
			f.loaded, f.revision = true, f.reader.last
			f.setFresh(true, nil)
		}
		if f.reader.config.DeliverPolicy == jetstream.DeliverNewPolicy {
			f.reader.config.DeliverPolicy = f.wholePolicy()
		}
		if f.reader.name != "" {
			return nil
		}
		if err != nil && !errors.Is(err, errFollow) {
			return err
		}
	}
}

func (f *keyFollower) wholePolicy() jetstream.DeliverPolicy {
	if f.options.includeHistory {
		return jetstream.DeliverAllPolicy
	}
	return jetstream.DeliverLastPerSubjectPolicy
}

// name is what errors and events call the follower.
func (f *keyFollower) name() string { return strings.Join(f.filters, ",") }

// opened finds out whether the consumer that was just made reads the bucket that was read before.
// One that was deleted and created again counts its revisions from 1, and one that lost its last
// writes counts some of them twice: both are read from the beginning.
func (f *keyFollower) opened(ctx context.Context) error {
	f.breaks.Store(f.reader.breaks)
	up, leave := f.kv.client.conn.WhileUp(ctx)
	defer leave()
	info, err := f.info(up)
	if err != nil {
		f.reader.drop() // and try again
		return fault.Ended(ctx)
	}
	switch {
	case f.created.IsZero():
		f.created = info.Created
	case !info.Created.Equal(f.created), info.State.LastSeq < f.revision:
		f.created, f.revision, f.loaded, f.replaced = info.Created, 0, false, true
		f.reader.drop()
		f.reader.last, f.reader.whole = 0, true
		f.reader.config.DeliverPolicy, f.reader.config.OptStartSeq = f.wholePolicy(), 0
		return errFollow
	}
	if f.loaded {
		return nil
	}
	f.left = f.reader.pending
	return errFollow
}

// info asks for the stream's state until the stream's leader answers: an election may be on. With
// replicas to read from it asks once.
func (f *keyFollower) info(ctx context.Context) (*jetstream.StreamInfo, error) {
	for patience := followAttempt; ; patience += followAttempt / 4 {
		asking, cancel := context.WithTimeout(ctx, patience)
		stream, err := f.kv.client.js.Stream(asking, f.kv.stream)
		cancel()
		switch {
		case err == nil:
			return stream.CachedInfo(), nil
		case ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded):
			return nil, err
		case f.loaded && f.reader.replicas: // they may have what was written last
			return nil, err
		}
	}
}

// next returns the next step. It returns an error when ctx ends, when the client is closed and, of a
// follower that wants only the present values, when the bucket is gone; everything else it waits out.
func (f *keyFollower) next(ctx context.Context) (followStep, error) {
	for {
		switch {
		case f.replaced:
			f.replaced = false
			return followStep{replaced: true}, nil
		case !f.loaded && f.reader.name != "" && f.left == 0:
			f.loaded = true
			f.reader.whole = false
			f.reader.last = max(f.reader.last, f.revision)
			f.setFresh(f.caught, nil)
			return followStep{}, nil
		}
		m, meta, err := f.reader.next(ctx)
		switch {
		case errors.Is(err, errFollow):
			continue
		case errors.Is(err, jetstream.ErrStreamNotFound) && !f.once:
			f.setFresh(false, err)
			continue // the reader pauses before it asks again
		case err != nil:
			return followStep{}, err
		}
		if !f.loaded {
			f.left = min(f.left-1, meta.NumPending)
		}
		if meta.Sequence.Stream <= f.revision || len(m.Subject) <= len(f.kv.prefix) {
			continue
		}
		f.revision = meta.Sequence.Stream
		entry := f.kv.entry(m, meta)
		if f.options.ignoreDeletes && entry.deleted() {
			continue
		}
		return followStep{entry: entry}, nil
	}
}

// entry makes an entry of a message that a consumer delivered.
func (kv *KeyValue) entry(m *natsgo.Msg, meta *natsgo.MsgMetadata) *keyEntry {
	return &keyEntry{
		kv: kv, key: m.Subject[len(kv.prefix):], value: m.Data, revision: meta.Sequence.Stream, delta: meta.NumPending,
		created: meta.Timestamp.UnixNano(), operation: operationOf(m.Header),
	}
}

func (f *keyFollower) close() { f.reader.close() }

// observe takes the reader's word on whether all is read.
func (f *keyFollower) observe(fresh bool) {
	f.caught = fresh
	f.setFresh(fresh && f.loaded, nil)
}

// setFresh records whether all that the bucket has is known to be reported, and tells when that
// changes.
func (f *keyFollower) setFresh(fresh bool, cause error) {
	if fresh {
		f.sign.Store(int64(time.Since(f.begun)))
	}
	if f.fresh.Swap(fresh) == fresh || f.once || f.live.Err() != nil || f.kv.client.isClosing() {
		return
	}
	c, name := f.kv.client, path(f.kv.bucket, f.name())
	switch {
	case !f.told: // it was never fresh before
		f.told = fresh
	case fresh:
		c.log.Info("the watched keys are up to date again", "keys", name)
		c.emit(Event{Type: EventWatchFresh, Subject: name})
	default:
		c.log.Warn("the watched keys may be out of date", append(failureAttrs(cause), "keys", name)...)
		c.emit(Event{Type: EventWatchStale, Subject: name, Err: jsapi.Wrap("watch", name, cause)})
	}
}

// isStale tells whether the bucket may have more than was reported.
func (f *keyFollower) isStale() bool {
	if !f.fresh.Load() || time.Since(f.begun)-time.Duration(f.sign.Load()) > followExpiry {
		return true
	}
	up, breaks, _ := f.kv.client.conn.State()
	return !up || breaks != f.breaks.Load()
}
