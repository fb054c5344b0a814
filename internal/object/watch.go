package object

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/ordered"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// watchBatch is how many updates are asked for at once.
const watchBatch = 256

// Watch says what a watcher reports.
type Watch struct{ History, UpdatesOnly, IgnoreDeletes bool }

// Watcher implements jetstream.ObjectWatcher on the ordered reader. Upstream's is silent for up to 20 s
// after a restart, and for ever when nobody reads it to the end.
type Watcher struct {
	store   *Store
	options Watch
	reader  *ordered.Reader
	updates chan *jetstream.ObjectInfo
	cancel  func()
	present uint64 // how many there were at the start
	marked  bool   // the end of the present state was told
}

// Watch reports what is there and what changes. Ctx is the watcher's life.
func (s *Store) Watch(ctx context.Context, options Watch) (*Watcher, error) {
	const op = "watch"
	w := &Watcher{store: s, options: options, updates: make(chan *jetstream.ObjectInfo)}
	ctx, cancel := context.WithCancelCause(ctx)
	w.cancel = func() { cancel(nil) }
	leave, err := s.life.Join(func() { cancel(fault.ErrClosed) })
	if err != nil {
		w.cancel()
		return nil, s.wrap(op, "", err)
	}
	if err := w.open(ctx); err != nil {
		leave()
		w.cancel()
		return nil, named(op, s.bucket, "", err)
	}
	go func() {
		defer close(w.updates)
		defer leave()
		defer w.cancel()
		defer w.reader.Close()
		w.run(ctx)
	}()
	return w, nil
}

// Updates implements jetstream.ObjectWatcher.
func (w *Watcher) Updates() <-chan *jetstream.ObjectInfo { return w.updates }

// Stop implements jetstream.ObjectWatcher. It may be called more than once.
func (w *Watcher) Stop() error {
	w.cancel()
	return nil
}

// errIdle makes the reader return when the server has nothing to deliver.
var errIdle = errors.New("nothing to deliver")

func (w *Watcher) open(ctx context.Context) error {
	cfg := jetstream.ConsumerConfig{FilterSubject: metaSubject(w.store.bucket, "") + ">"}
	switch {
	case w.options.UpdatesOnly:
		// By number, so that a consumer made after a restart misses nothing.
		bucket, err := w.store.state(ctx)
		if err != nil {
			return err
		}
		w.marked = true // upstream has no nil then
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, bucket.State.LastSeq+1
	case !w.options.History:
		cfg.DeliverPolicy = jetstream.DeliverLastPerSubjectPolicy
	}
	w.reader = ordered.New(w.store.api, ordered.Options{
		Stream: StreamPrefix + w.store.bucket, Config: cfg, Batch: watchBatch, Lasting: true, Opened: ordered.Opening.Same,
		Idle: func(context.Context) error {
			if w.marked {
				return nil
			}
			return errIdle // what was to come was removed meanwhile
		},
	})
	if w.marked {
		w.reader.SkipTo(0)
	}
	first, err := w.reader.Start(ctx)
	w.present = first.Pending
	if err != nil {
		w.reader.Close()
	}
	return err
}

func (w *Watcher) run(ctx context.Context) {
	if w.present == 0 && !w.mark(ctx) {
		return
	}
	for {
		m, d, err := w.reader.Next(ctx)
		switch {
		case errors.Is(err, errIdle):
			if !w.mark(ctx) {
				return
			}
			continue
		case err != nil:
			w.end(ctx, err)
			return
		}
		if info := w.read(d.Store(m)); !info.Deleted || !w.options.IgnoreDeletes {
			if !w.send(ctx, info) {
				return
			}
		}
		if d.Pending == 0 && !w.mark(ctx) {
			return
		}
	}
}

func (w *Watcher) read(m wire.Stored) *jetstream.ObjectInfo {
	v := readVersion(w.store.bucket, m)
	if v.unread != nil {
		w.store.reports.Unread(w.store.bucket, v.info.Name, v.unread)
	}
	return v.info
}

// mark tells once that the present state is reported.
func (w *Watcher) mark(ctx context.Context) bool {
	if w.marked {
		return true
	}
	w.marked = true
	w.reader.SkipTo(0)
	return w.send(ctx, nil)
}

func (w *Watcher) send(ctx context.Context, info *jetstream.ObjectInfo) bool {
	select {
	case w.updates <- info:
		return true
	case <-ctx.Done():
		return false
	}
}

// end reports what no caller sees.
func (w *Watcher) end(ctx context.Context, err error) {
	if ctx.Err() != nil || errors.Is(err, fault.ErrClosed) {
		return
	}
	w.store.reports.Ended(w.store.bucket, metaSubject(w.store.bucket, "")+">", named("watch", w.store.bucket, "", err))
}
