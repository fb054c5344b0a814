package nats

import (
	"context"
	"errors"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/ordered"
)

// objectWatchBatch is how many updates are asked for at once.
const objectWatchBatch = 256

// objectWatcher implements jetstream.ObjectWatcher on the ordered reader. Upstream's is silent for up to 20 s
// after a restart, and for ever when nobody reads it to the end.
type objectWatcher struct {
	store   *ObjectStore
	options watchOptions
	reader  *ordered.Reader
	updates chan *jetstream.ObjectInfo
	cancel  context.CancelFunc
	present uint64 // how many there were at the start
	marked  bool   // the end of the present state was told
}

// Watch reports the present objects, then a nil, then every change, until the watcher is stopped,
// ctx ends, or the client is closed: then Updates is closed. Ctx is the watcher's life, not the
// time of the call. The options are upstream's. It goes on over reconnects, restarts and elections, after the
// last update that it has reported; of several changes meanwhile of one object it reports the last. When the
// bucket is deleted it ends, which the logger and an EventAsyncError tell.
func (s *ObjectStore) Watch(ctx context.Context, opts ...jetstream.WatchOpt) (jetstream.ObjectWatcher, error) {
	const op = "watch"
	if ctx == nil {
		return nil, errNilContext(op, s.bucket)
	}
	options, err := watchOptionsOf(opts)
	if err != nil {
		return nil, fail(op, s.bucket, ErrInvalidArgument, "%w", err)
	}
	w := &objectWatcher{store: s, options: options, updates: make(chan *jetstream.ObjectInfo)}
	ctx, w.cancel = context.WithCancel(ctx)
	forget, err := s.client.life.OnClose(w.cancel)
	if err != nil {
		w.cancel()
		return nil, s.wrap(op, "", err)
	}
	if err := w.open(ctx); err != nil {
		forget()
		w.cancel()
		return nil, objectError(op, s.bucket, "", err)
	}
	go func() {
		defer close(w.updates)
		defer forget()
		defer w.cancel()
		defer w.reader.Close()
		w.run(ctx)
	}()
	return w, nil
}

// Updates implements jetstream.ObjectWatcher.
func (w *objectWatcher) Updates() <-chan *jetstream.ObjectInfo { return w.updates }

// Stop implements jetstream.ObjectWatcher. It may be called more than once.
func (w *objectWatcher) Stop() error {
	w.cancel()
	return nil
}

// errObjectsIdle makes the reader return when the server has nothing to deliver.
var errObjectsIdle = errors.New("nothing to deliver")

func (w *objectWatcher) open(ctx context.Context) error {
	c := w.store.client
	cfg := jetstream.ConsumerConfig{FilterSubject: objectMetaSubject(w.store.bucket, "") + ">"}
	switch {
	case w.options.updatesOnly:
		// By number, so that a consumer made after a restart misses nothing.
		bucket, err := c.bucketState(ctx, w.store.bucket, "")
		if err != nil {
			return err
		}
		w.marked = true // upstream has no nil then
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, bucket.State.Last+1
	case !w.options.includeHistory:
		cfg.DeliverPolicy = jetstream.DeliverLastPerSubjectPolicy
	}
	w.reader = ordered.New(c.api, ordered.Options{
		Stream: objectStreamPrefix + w.store.bucket, Config: cfg, Batch: objectWatchBatch, Opened: opened,
		Idle: func(context.Context) error {
			if w.marked {
				return nil
			}
			return errObjectsIdle // what was to come was removed meanwhile
		},
	})
	first, err := w.reader.Start(ctx)
	w.present = first.Pending
	if err != nil {
		w.reader.Close()
	}
	return err
}

func (w *objectWatcher) run(ctx context.Context) {
	if w.present == 0 && !w.mark(ctx) {
		return
	}
	for {
		m, meta, err := w.reader.Next(ctx)
		switch {
		case errors.Is(err, errObjectsIdle):
			if !w.mark(ctx) {
				return
			}
			continue
		case err != nil:
			w.end(ctx, err)
			return
		}
		if info := w.read(m, meta); !info.Deleted || !w.options.ignoreDeletes {
			if !w.send(ctx, info) {
				return
			}
		}
		if meta.NumPending == 0 && !w.mark(ctx) {
			return
		}
	}
}

func (w *objectWatcher) read(m *natsgo.Msg, meta *natsgo.MsgMetadata) *jetstream.ObjectInfo {
	v := readVersion(w.store.bucket, stored(m, meta))
	if v.unread != nil {
		w.store.client.log.Warn("an object's metadata cannot be read", "bucket", w.store.bucket, "object", v.info.Name, "error", v.unread)
	}
	return v.info
}

// mark tells once that the present state is reported.
func (w *objectWatcher) mark(ctx context.Context) bool {
	if w.marked {
		return true
	}
	w.marked = true
	return w.send(ctx, nil)
}

func (w *objectWatcher) send(ctx context.Context, info *jetstream.ObjectInfo) bool {
	select {
	case w.updates <- info:
		return true
	case <-ctx.Done():
		return false
	}
}

// end reports what no caller sees.
func (w *objectWatcher) end(ctx context.Context, err error) {
	c := w.store.client
	if ctx.Err() != nil || errors.Is(err, ErrClosed) {
		return
	}
	err = objectError("watch", w.store.bucket, "", err)
	c.log.Error("the watcher of an object store ended", "bucket", w.store.bucket, "error", err)
	c.emit(Event{Type: EventAsyncError, Subject: objectMetaSubject(w.store.bucket, "") + ">", Err: err})
}
