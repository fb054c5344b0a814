package nats

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
)

// ObjectStore is a bucket of objects of any size: upstream's jetstream.ObjectStore, with the errors
// of this package, downloads of its own and a List to range over. It is safe for concurrent use.
type ObjectStore struct {
	jetstream.ObjectStore
	client *Client
	bucket string
}

// ObjectStoreOption changes the configuration of a bucket that is created.
type ObjectStoreOption func(*jetstream.ObjectStoreConfig)

// WithObjectStoreConfig lets set change the whole of upstream's configuration: TTL, MaxBytes,
// Replicas, Storage and the rest. The bucket's name is filled in already and stays.
func WithObjectStoreConfig(set func(*jetstream.ObjectStoreConfig)) ObjectStoreOption {
	return ObjectStoreOption(set)
}

// CreateObjectStore creates a bucket and returns its handle. Creating it again with the same
// configuration is no error, with another one it is ErrAlreadyExists. Replicas and Storage come
// from Config.DefaultStreamReplicas and DefaultStorageType where no option sets them. A bucket's
// name consists of letters, digits, - and _; another one is ErrInvalidArgument.
func (c *Client) CreateObjectStore(ctx context.Context, bucket string, opts ...ObjectStoreOption) (*ObjectStore, error) {
	const op = "create object store"
	js, err := c.jetStream(ctx, op, bucket)
	if err != nil {
		return nil, err
	}
	cfg := jetstream.ObjectStoreConfig{Bucket: bucket}
	for _, opt := range opts {
		if opt != nil {
			opt(&cfg)
		}
	}
	cfg.Bucket = bucket
	cfg.Replicas, cfg.Storage = c.streamDefaults(cfg.Replicas, cfg.Storage)
	store, err := js.CreateObjectStore(ctx, cfg)
	if err != nil {
		return nil, wrapJetStream(op, bucket, err)
	}
	return &ObjectStore{ObjectStore: store, client: c, bucket: bucket}, nil
}

// GetObjectStore returns the handle of a bucket, or ErrBucketNotFound.
func (c *Client) GetObjectStore(ctx context.Context, bucket string) (*ObjectStore, error) {
	const op = "get object store"
	js, err := c.jetStream(ctx, op, bucket)
	if err != nil {
		return nil, err
	}
	store, err := js.ObjectStore(ctx, bucket)
	if err != nil {
		return nil, wrapJetStream(op, bucket, err)
	}
	return &ObjectStore{ObjectStore: store, client: c, bucket: bucket}, nil
}

// DeleteObjectStore deletes a bucket with all its objects, or returns ErrBucketNotFound.
func (c *Client) DeleteObjectStore(ctx context.Context, bucket string) error {
	const op = "delete object store"
	js, err := c.jetStream(ctx, op, bucket)
	if err != nil {
		return err
	}
	err = js.DeleteObjectStore(ctx, bucket)
	if errors.Is(err, jetstream.ErrStreamNotFound) { // upstream's text is of two lines
		err = joined{jetstream.ErrBucketNotFound, jetstream.ErrStreamNotFound}
	}
	return wrapJetStream(op, bucket, err)
}

func (s *ObjectStore) wrap(op, name string, err error) error {
	return wrapJetStream(op, path(s.bucket, name), err)
}

// Put stores what r yields under meta.Name, in the place of an object of that name, which is read as
// before until the new one is there as a whole. When it fails, nothing is left of it. Without a
// deadline in ctx, Config.RequestTimeout applies to every chunk and not to the whole.
func (s *ObjectStore) Put(ctx context.Context, meta jetstream.ObjectMeta, r io.Reader) (*jetstream.ObjectInfo, error) {
	info, err := s.put(ctx, meta, r)
	return info, s.wrap("put object", meta.Name, err)
}

// PutBytes is Put of a byte slice, which is not kept.
func (s *ObjectStore) PutBytes(ctx context.Context, name string, data []byte) (*jetstream.ObjectInfo, error) {
	return s.Put(ctx, jetstream.ObjectMeta{Name: name}, bytes.NewReader(data))
}

// PutString is Put of a string.
func (s *ObjectStore) PutString(ctx context.Context, name, data string) (*jetstream.ObjectInfo, error) {
	return s.Put(ctx, jetstream.ObjectMeta{Name: name}, strings.NewReader(data))
}

// PutFile is Put of a file under its own name, the path included, as upstream has it.
func (s *ObjectStore) PutFile(ctx context.Context, file string) (*jetstream.ObjectInfo, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, s.wrap("put file", file, err)
	}
	defer func() { _ = f.Close() }()
	return s.Put(ctx, jetstream.ObjectMeta{Name: file}, f)
}

// GetInfo returns what is known of an object, or ErrObjectNotFound.
func (s *ObjectStore) GetInfo(ctx context.Context, name string, opts ...jetstream.GetObjectInfoOpt) (*jetstream.ObjectInfo, error) {
	info, err := s.ObjectStore.GetInfo(ctx, name, opts...)
	return info, s.wrap("object info", name, err)
}

// Delete deletes an object, or returns ErrObjectNotFound.
func (s *ObjectStore) Delete(ctx context.Context, name string) error {
	return s.wrap("delete object", name, s.ObjectStore.Delete(ctx, name))
}

// UpdateMeta changes the name, description, headers or metadata of an object. It returns
// ErrObjectNotFound when there is none, and ErrAlreadyExists when the new name is taken.
func (s *ObjectStore) UpdateMeta(ctx context.Context, name string, meta jetstream.ObjectMeta) error {
	return s.wrap("update object", name, s.ObjectStore.UpdateMeta(ctx, name, meta))
}

// AddLink makes name stand for the object that info describes, in this or another bucket.
func (s *ObjectStore) AddLink(ctx context.Context, name string, info *jetstream.ObjectInfo) (*jetstream.ObjectInfo, error) {
	link, err := s.ObjectStore.AddLink(ctx, name, info)
	return link, s.wrap("add link", name, err)
}

// AddBucketLink makes name stand for a bucket, given by its upstream handle: the ObjectStore field.
// Such a link can be listed, but not read.
func (s *ObjectStore) AddBucketLink(ctx context.Context, name string, bucket jetstream.ObjectStore) (*jetstream.ObjectInfo, error) {
	link, err := s.ObjectStore.AddBucketLink(ctx, name, bucket)
	return link, s.wrap("add link", name, err)
}

// Seal makes the bucket read-only for good.
func (s *ObjectStore) Seal(ctx context.Context) error {
	return s.wrap("seal", "", s.ObjectStore.Seal(ctx))
}

// Status asks the server for the bucket's configuration and size.
func (s *ObjectStore) Status(ctx context.Context) (jetstream.ObjectStoreStatus, error) {
	status, err := s.ObjectStore.Status(ctx)
	return status, s.wrap("status of", "", err)
}

// List returns the objects in the bucket. An empty bucket is an empty sequence and no error.
func (s *ObjectStore) List(ctx context.Context, opts ...jetstream.ListObjectsOpt) (iter.Seq[*jetstream.ObjectInfo], error) {
	var watchOpts []jetstream.WatchOpt
	if len(opts) == 0 { // upstream's only option shows the deleted ones
		watchOpts = append(watchOpts, jetstream.IgnoreDeletes())
	}
	objects, err := collect(ctx, s.client, func(ctx context.Context) (upstreamWatcher[*jetstream.ObjectInfo], error) {
		return s.Watch(ctx, watchOpts...)
	})
	if err != nil {
		return nil, s.wrap("list objects of", "", err)
	}
	return slices.Values(objects), nil
}

// Watch reports the present objects, then a nil, then every change, until the watcher is stopped,
// ctx ends, or the client is closed: then Updates is closed. Ctx is the watcher's life, not the
// time of the call. The options are upstream's.
func (s *ObjectStore) Watch(ctx context.Context, opts ...jetstream.WatchOpt) (jetstream.ObjectWatcher, error) {
	w, err := watch(s.client, ctx, func(ctx context.Context) (upstreamWatcher[*jetstream.ObjectInfo], error) {
		return s.ObjectStore.Watch(ctx, opts...)
	})
	if err != nil {
		return nil, s.wrap("watch", "", err)
	}
	return w, nil
}

// Get opens an object for reading, or returns ErrObjectNotFound. Reading to the end checks the
// digest: ErrObjectCorrupt comes instead of the last bytes when they are not those that were stored,
// so even a reader of exactly the object's size is told. An object that is replaced while it is read
// is ErrConflict, one that is deleted ErrObjectNotFound.
// The reading ends with ctx, with Close, or with the client; without a deadline in ctx it fails
// with ErrTimeout when no chunk comes for Config.RequestTimeout, or with ErrNotConnected when there
// was no connection. Reading to the end closes it.
func (s *ObjectStore) Get(ctx context.Context, name string, opts ...jetstream.GetObjectOpt) (jetstream.ObjectResult, error) {
	result, err := s.open(ctx, name, opts)
	if err != nil {
		return nil, s.wrap("get object", name, err)
	}
	return result, nil
}

// GetBytes returns an object's content, checked against its digest. The errors are
// ErrObjectNotFound and ErrObjectCorrupt.
func (s *ObjectStore) GetBytes(ctx context.Context, name string, opts ...jetstream.GetObjectOpt) ([]byte, error) {
	result, err := s.open(ctx, name, opts)
	if err != nil {
		return nil, s.wrap("get object", name, err)
	}
	defer func() { _ = result.Close() }()
	// Once, for the size and the room in which ReadFrom meets the end; what the chunks cannot hold is
	// not allocated on the word of the metadata alone.
	size := min(result.info.Size, uint64(result.info.Chunks)*uint64(max(s.client.nc.MaxPayload(), 0)))
	data := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
	if _, err := data.ReadFrom(result); err != nil {
		return nil, err
	}
	return data.Bytes(), nil
}

// GetString is GetBytes as a string.
func (s *ObjectStore) GetString(ctx context.Context, name string, opts ...jetstream.GetObjectOpt) (string, error) {
	data, err := s.GetBytes(ctx, name, opts...)
	return string(data), err
}

// GetFile downloads an object to a file: whole and checked against its digest, or not at all. It
// writes to a temporary file beside the target, syncs it and renames it into place; an existing
// file keeps its permissions, a new one gets 0644 less the umask.
func (s *ObjectStore) GetFile(ctx context.Context, name, file string, opts ...jetstream.GetObjectOpt) error {
	result, err := s.open(ctx, name, opts)
	if err != nil {
		return s.wrap("get object", name, err)
	}
	defer func() { _ = result.Close() }()
	return s.wrap("get object to a file", name, writeFile(file, result))
}

// writeFile replaces file by what r yields, unless r fails.
func writeFile(file string, r io.Reader) (err error) {
	if target, err := filepath.EvalSymlinks(file); err == nil {
		file = target // a link stays one
	}
	temp, err := os.OpenFile(tempName(file), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644) //nolint:gosec // a download is no secret; the umask decides
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = temp.Close()
			_ = os.Remove(temp.Name())
		}
	}()
	if info, err := os.Stat(file); err == nil {
		if err := temp.Chmod(info.Mode().Perm()); err != nil { // the umask does not apply
			return err
		}
	}
	if _, err := io.Copy(temp, r); err != nil {
		return err
	}
	if err := temp.Sync(); err != nil {
		return err
	}
	if err := temp.Close(); err != nil {
		return err
	}
	if err := os.Rename(temp.Name(), file); err != nil {
		return err
	}
	return syncDir(filepath.Dir(file))
}
