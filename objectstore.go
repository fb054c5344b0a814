package nats

import (
	"bytes"
	"context"
	"io"
	"iter"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	keyvalue "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/kv"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/object"
)

// ObjectStore is a bucket of objects of any size: upstream's jetstream.ObjectStore, with the errors
// of this package, downloads of its own and a List to range over. It is safe for concurrent use.
type ObjectStore struct {
	jetstream.ObjectStore
	client *Client
	bucket string
	store  *object.Store
}

// Upstream returns the bucket as code takes it that knows jetstream.ObjectStore: with upstream's signatures, and with the
// guarantees and errors of this package. The field ObjectStore is upstream's own.
func (s *ObjectStore) Upstream() jetstream.ObjectStore { return upstreamObjects{s} }

func (s *ObjectStore) wrap(op, name string, err error) error {
	return jsapi.Wrap(op, path(s.bucket, name), err)
}

// check refuses what no object can be called, and a nil context.
func (s *ObjectStore) check(ctx context.Context, op, name string) error {
	switch {
	case ctx == nil:
		return errNilContext(op, path(s.bucket, name))
	case name == "":
		return s.wrap(op, name, jetstream.ErrNameRequired)
	}
	if fault := s.store.Fault(name); fault != "" {
		return fail(op, path(s.bucket, name), ErrInvalidArgument, "%s", fault)
	}
	return nil
}

// Put stores what r yields under meta.Name, in the place of an object of that name, which is read as
// before until the new one is there as a whole. When it fails, nothing is left of it, and what was there
// stays, but in a full bucket: an object that was larger than what r yields, which has to be seekable, is removed first
// when the bucket has no room for both. When ctx ends, or the connection is lost, in the moment in which the new version takes the place of
// the old one, the error does not tell which of them it is; it is one of them, as a whole.
//
// It survives restarts and elections for as long as ctx allows; without a deadline in ctx,
// Config.RequestTimeout applies to every chunk and not to the whole. The chunks have 256 KiB unless
// meta.Opts says otherwise, or the server or the bucket takes no messages of that size, and 8 of them are in memory.
// R is read beside the call, which ends with ctx also when r yields nothing; a Read that does not return keeps its
// goroutine. Of two writers at a time the later one wins.
// The errors are ErrBucketNotFound, ErrStreamFull, ErrTimeout, ErrConnectionLost, ErrNotConnected, the
// source's own, ErrObjectCorrupt when the chunks vanished during the upload, and ErrConflict when another
// writer may have replaced the object already.
func (s *ObjectStore) Put(ctx context.Context, meta jetstream.ObjectMeta, r io.Reader, opts ...ObjectOption) (*jetstream.ObjectInfo, error) {
	const op = "put object"
	switch {
	case meta.Name == "":
		return nil, fail(op, s.bucket, ErrInvalidArgument, "%w", jetstream.ErrBadObjectMeta)
	case meta.Opts != nil && meta.Opts.Link != nil:
		return nil, s.wrap(op, meta.Name, jetstream.ErrLinkNotAllowed)
	case r == nil:
		return nil, fail(op, path(s.bucket, meta.Name), ErrInvalidArgument, "the reader is nil")
	}
	if err := s.check(ctx, op, meta.Name); err != nil {
		return nil, err
	}
	return s.store.Put(ctx, meta, r, s.client.objectOptions(opts))
}

// PutBytes is Put of a byte slice, which is not kept.
func (s *ObjectStore) PutBytes(ctx context.Context, name string, data []byte, opts ...ObjectOption) (*jetstream.ObjectInfo, error) {
	return s.Put(ctx, jetstream.ObjectMeta{Name: name}, bytes.NewReader(data), opts...)
}

// PutString is Put of a string.
func (s *ObjectStore) PutString(ctx context.Context, name, data string, opts ...ObjectOption) (*jetstream.ObjectInfo, error) {
	return s.Put(ctx, jetstream.ObjectMeta{Name: name}, strings.NewReader(data), opts...)
}

// PutFile is Put of a file under its own name, the path included, as upstream has it.
func (s *ObjectStore) PutFile(ctx context.Context, file string, opts ...ObjectOption) (*jetstream.ObjectInfo, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, s.wrap("put file", file, err)
	}
	defer func() { _ = f.Close() }()
	return s.Put(ctx, jetstream.ObjectMeta{Name: file}, f, opts...)
}

// Get opens an object for reading, or returns ErrObjectNotFound. Reading to the end checks the
// digest: ErrObjectCorrupt comes instead of the last bytes when they are not those that were stored,
// so even a reader of exactly the object's size is told. An object that is replaced while it is read
// is ErrConflict, one that is deleted ErrObjectNotFound.
// The reading ends with ctx, with Close, or with the client; without a deadline in ctx it fails
// with ErrTimeout when no chunk comes for Config.RequestTimeout, or with ErrNotConnected when there
// was no connection. Reading to the end closes it.
func (s *ObjectStore) Get(ctx context.Context, name string, opts ...ObjectOption) (jetstream.ObjectResult, error) {
	if err := s.check(ctx, opGetObject, name); err != nil {
		return nil, err
	}
	result, err := s.store.Get(ctx, name, s.client.objectOptions(opts))
	if err != nil {
		return nil, err // not a result that is nil
	}
	return result, nil
}

const opGetObject = "get object"

// GetBytes returns an object's content, checked against its digest. When the object is replaced while it
// is read, it reads the new one. The errors are ErrObjectNotFound, ErrObjectCorrupt, ErrTimeout and
// ErrNotConnected as for Get, and ErrConflict when the object is replaced again and again.
func (s *ObjectStore) GetBytes(ctx context.Context, name string, opts ...ObjectOption) ([]byte, error) {
	if err := s.check(ctx, opGetObject, name); err != nil {
		return nil, err
	}
	return s.store.Bytes(ctx, name, s.client.objectOptions(opts))
}

// GetString is GetBytes as a string.
func (s *ObjectStore) GetString(ctx context.Context, name string, opts ...ObjectOption) (string, error) {
	data, err := s.GetBytes(ctx, name, opts...)
	return string(data), err
}

// GetFile downloads an object to a file: whole and checked against its digest, or not at all. It
// writes to a temporary file beside the target, syncs it and renames it into place; an existing
// file keeps its permissions and, where the process may, its owner, a new one gets 0644 less the umask. A link stays
// one: what it leads to is written. The errors are those of GetBytes and of
// the file system; with any of them an existing file is as it was. A process that is killed leaves its
// temporary file, named .nats-*.part.
//
// What is no file, such as a pipe or a device, is written to as it is, as the chunks come: what is wrong with them is
// told when some are written already, and an object that is replaced meanwhile is ErrConflict. A pipe may have its
// reader later, within ctx or Config.RequestTimeout.
func (s *ObjectStore) GetFile(ctx context.Context, name, file string, opts ...ObjectOption) error {
	if err := s.check(ctx, "get object to a file", name); err != nil {
		return err
	}
	return s.store.File(ctx, name, file, s.client.objectOptions(opts))
}

// GetInfo returns what is known of an object, or ErrObjectNotFound. It asks the leader of the bucket's
// stream, so that it sees what any Put has stored before. A link is described itself, not what it leads to.
func (s *ObjectStore) GetInfo(ctx context.Context, name string, opts ...jetstream.GetObjectInfoOpt) (*jetstream.ObjectInfo, error) {
	if err := s.check(ctx, "object info", name); err != nil {
		return nil, err
	}
	return s.store.Info(ctx, name, len(opts) > 0) // upstream's only option shows the deleted ones
}

// Delete deletes an object, or returns ErrObjectNotFound. It deletes what is there when the server gets to
// it, and removes the chunks of that very version.
func (s *ObjectStore) Delete(ctx context.Context, name string) error {
	if err := s.check(ctx, "delete object", name); err != nil {
		return err
	}
	return s.store.Delete(ctx, name)
}

// UpdateMeta changes the name, description, headers or metadata of an object. It returns
// ErrObjectNotFound when there is none, ErrAlreadyExists when the new name is taken, and ErrConflict when
// the object was replaced while it was renamed. Upstream's may name chunks that a Put has removed meanwhile.
// A renaming that is cut may leave both names for the same object; then it can be repeated or turned back,
// and either name can be deleted or replaced: the other one keeps the object.
//
// In a bucket whose objects expire the content is stored anew, by way of this client, for else it would expire before its
// metadata: the object's time begins again.
func (s *ObjectStore) UpdateMeta(ctx context.Context, name string, meta jetstream.ObjectMeta) error {
	const op = "update object"
	if err := s.check(ctx, op, name); err != nil {
		return err
	}
	if err := s.check(ctx, op, meta.Name); err != nil {
		return err
	}
	return s.store.Describe(ctx, name, meta)
}

// AddLink makes name stand for the object that info describes, in this or another bucket. It returns
// ErrAlreadyExists when name is that of an object that is not a link.
func (s *ObjectStore) AddLink(ctx context.Context, name string, info *jetstream.ObjectInfo) (*jetstream.ObjectInfo, error) {
	const op = "add link"
	if err := s.check(ctx, op, name); err != nil {
		return nil, err
	}
	switch {
	case info == nil, info.Name == "":
		return nil, s.wrap(op, name, jetstream.ErrObjectRequired)
	case info.Deleted:
		return nil, s.wrap(op, name, jetstream.ErrNoLinkToDeleted)
	case info.Opts != nil && info.Opts.Link != nil:
		return nil, s.wrap(op, name, jetstream.ErrNoLinkToLink)
	}
	return s.store.Link(ctx, name, &jetstream.ObjectLink{Bucket: info.Bucket, Name: info.Name})
}

// AddBucketLink makes name stand for a bucket. Such a link can be listed, but not read.
func (s *ObjectStore) AddBucketLink(ctx context.Context, name string, bucket *ObjectStore) (*jetstream.ObjectInfo, error) {
	const op = "add link"
	if err := s.check(ctx, op, name); err != nil {
		return nil, err
	}
	if bucket == nil {
		return nil, fail(op, path(s.bucket, name), ErrInvalidArgument, "%w", jetstream.ErrBucketRequired)
	}
	return s.store.Link(ctx, name, &jetstream.ObjectLink{Bucket: bucket.bucket})
}

// Seal makes the bucket read-only for good. A bucket that is sealed already stays so.
func (s *ObjectStore) Seal(ctx context.Context) error {
	const op = "seal"
	if err := s.client.jetStream(ctx, op, s.bucket); err != nil {
		return err
	}
	_, err := jsapi.Look(ctx, s.client.api, func(ctx context.Context, js jetstream.JetStream) (any, error) {
		upstream, err := js.ObjectStore(ctx, s.bucket)
		if err == nil {
			err = upstream.Seal(ctx)
		}
		if err != nil && upstream != nil {
			if status, unknown := upstream.Status(ctx); unknown == nil && status.Sealed() {
				err = nil // by another attempt, whose answer may be late
			}
		}
		return nil, err
	})
	return s.wrap(op, "", err)
}

// Status asks the server for the bucket's configuration and size.
func (s *ObjectStore) Status(ctx context.Context) (jetstream.ObjectStoreStatus, error) {
	const op = "status of"
	status, err := statusOf(ctx, s.client, op, s.bucket, jetstream.JetStream.ObjectStore)
	return status, s.wrap(op, "", err)
}

// List returns the objects in the bucket. An empty bucket is an empty sequence and no error. Of an object whose
// metadata another client wrote in a way that this one cannot read, it has the name and what else can be read:
// GetInfo and Get call such an object ErrObjectCorrupt. Without a deadline in ctx, Config.RequestTimeout bounds
// each pause and not the whole.
func (s *ObjectStore) List(ctx context.Context, opts ...jetstream.ListObjectsOpt) (iter.Seq[*jetstream.ObjectInfo], error) {
	if ctx == nil {
		return nil, errNilContext("list objects of", s.bucket)
	}
	objects, err := s.store.List(ctx, len(opts) > 0) // upstream's only option shows the deleted ones
	if err != nil {
		return nil, err
	}
	return slices.Values(objects), nil
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
	options, err := keyvalue.WatchOf(opts)
	if err != nil {
		return nil, fail(op, s.bucket, ErrInvalidArgument, "%w", err)
	}
	watcher, err := s.store.Watch(ctx, object.Watch{
		History: options.History, UpdatesOnly: options.UpdatesOnly, IgnoreDeletes: options.IgnoreDeletes,
	})
	if err != nil {
		return nil, err // not a watcher that is nil
	}
	return watcher, nil
}

// Sweep removes the chunks that no object needs: what processes left that were killed, or lost the server for
// good, in the middle of an upload, an overwriting or a deletion. It returns how many chunks it removed. It
// leaves alone what was uploaded within the last olderThan, by the server's clock, which is to be longer than
// any upload pauses between two chunks; an upload that pauses for longer loses its chunks and fails with
// ErrObjectCorrupt. An hour is a good value for a job that runs every day.
//
// It is safe beside uploads, downloads and other Sweeps, and leaves alone the chunks of objects whose metadata
// another client wrote in a way that this one cannot read. When it cannot tell which chunks such an object has, it
// removes nothing: ErrObjectCorrupt with the object's name. A duration of less than a second is ErrInvalidArgument,
// a missing bucket ErrBucketNotFound. Without a deadline in ctx, Config.RequestTimeout bounds each pause and each
// question to the server, and not the whole. When it fails in the middle, the number tells what is done.
func (s *ObjectStore) Sweep(ctx context.Context, olderThan time.Duration) (int, error) {
	if ctx == nil {
		return 0, errNilContext("sweep", s.bucket)
	}
	return s.store.Sweep(ctx, olderThan)
}

// objectReports turns what no caller sees into log lines and events.
type objectReports struct{ c *Client }

func (r objectReports) LeftBehind(bucket, subject string, err error) {
	r.c.log.Warn("object chunks are left behind; Sweep removes them", "bucket", bucket, "subject", subject, "error", err)
	r.c.emit(Event{Type: EventAsyncError, Subject: subject, Err: err})
}

func (r objectReports) Swept(bucket, upload string, chunks int) {
	r.c.log.Info("swept an orphan's chunks", "bucket", bucket, "upload", upload, "chunks", chunks)
}

func (r objectReports) Unread(bucket, name string, err error) {
	r.c.log.Warn("an object's metadata cannot be read", "bucket", bucket, "object", name, "error", err)
}

func (r objectReports) Unmarked(bucket, name string) {
	r.c.log.Warn("an object was deleted in a full bucket that has no room for the mark", "bucket", bucket, "object", name)
}

func (r objectReports) Ended(bucket, subject string, err error) {
	r.c.log.Error("the watcher of an object store ended", "bucket", bucket, "error", err)
	r.c.emit(Event{Type: EventAsyncError, Subject: subject, Err: err})
}
