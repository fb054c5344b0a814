package nats

import (
	"context"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/object"
)

// ObjectStoreOption changes the configuration of a bucket that is created.
type ObjectStoreOption func(*jetstream.ObjectStoreConfig)

// WithObjectStoreConfig lets set change the whole of upstream's configuration: TTL, MaxBytes,
// Replicas, Storage and the rest. The bucket's name is filled in already and stays.
func WithObjectStoreConfig(set func(*jetstream.ObjectStoreConfig)) ObjectStoreOption {
	return ObjectStoreOption(set)
}

// WithObjectStoreTTL lets objects expire so long after they were stored. 0 keeps them for ever.
func WithObjectStoreTTL(d time.Duration) ObjectStoreOption {
	return func(c *jetstream.ObjectStoreConfig) { c.TTL = d }
}

// WithObjectStoreMaxBytes bounds the bucket's size, in bytes with all that goes with them. A Put beyond is
// ErrStreamFull. 0 sets no bound.
func WithObjectStoreMaxBytes(n int64) ObjectStoreOption {
	return func(c *jetstream.ObjectStoreConfig) { c.MaxBytes = n }
}

// WithObjectStoreReplicas stores the bucket on n servers of the cluster: 1, 3 or 5. The default is
// Config.DefaultStreamReplicas.
func WithObjectStoreReplicas(n int) ObjectStoreOption {
	return func(c *jetstream.ObjectStoreConfig) { c.Replicas = n }
}

// WithObjectStoreStorage stores the bucket in files or in memory. The default is
// Config.DefaultStorageType.
func WithObjectStoreStorage(storage jetstream.StorageType) ObjectStoreOption {
	return func(c *jetstream.ObjectStoreConfig) { c.Storage = storage }
}

// WithObjectStoreCompression compresses the bucket's files.
func WithObjectStoreCompression() ObjectStoreOption {
	return func(c *jetstream.ObjectStoreConfig) { c.Compression = true }
}

// objectStoreConfig returns what the options set and the same with the client's defaults.
func (c *Client) objectStoreConfig(bucket string, opts []ObjectStoreOption) (set, full jetstream.ObjectStoreConfig) {
	set = applied(set, opts)
	set.Bucket = bucket
	full = set
	full.Replicas, full.Storage = c.streamDefaults(set.Replicas, set.Storage)
	full.Replicas = max(full.Replicas, 1)
	return set, full
}

// CreateObjectStore creates a bucket and returns its handle. Creating it again with the same
// configuration is no error, with another one it is a *DriftError, which names the fields that differ and
// is ErrAlreadyExists; EnsureObjectStore adapts the bucket. A bucket's name consists of letters, digits,
// - and _; another one is ErrInvalidArgument.
func (c *Client) CreateObjectStore(ctx context.Context, bucket string, opts ...ObjectStoreOption) (*ObjectStore, error) {
	return c.ensureObjectStore(ctx, "create object store", bucket, opts, true)
}

// ensureObjectStore is EnsureObjectStore or, where a bucket that exists is not to be changed, CreateObjectStore.
func (c *Client) ensureObjectStore(ctx context.Context, op, bucket string, opts []ObjectStoreOption, create bool) (*ObjectStore, error) {
	ctx, cancel, err := c.bucketCall(ctx, op, object.StreamPrefix, bucket)
	if err != nil {
		return nil, err
	}
	defer cancel()
	want, fresh := c.objectStoreConfig(bucket, opts)
	if err := c.ensurer(ensureOptions{CreateOnly: create}).ObjectStore(ctx, want, fresh); err != nil {
		differs := DriftError{Bucket: bucket, Stream: object.StreamPrefix + bucket, create: create}
		return nil, ensureFault(op, bucket, err, differs, jsapi.Wrap)
	}
	return c.boundObjectStore(ctx, op, bucket, true)
}

// EnsureObjectStore creates a bucket, or changes the one there is to what the options say. What they leave
// at zero stays as it is, so no field can be set to zero here. A change that lowers a limit, or cannot be
// made, is not made: it is a *DriftError that lists every field that differs. The other errors are those of
// CreateObjectStore.
func (c *Client) EnsureObjectStore(ctx context.Context, bucket string, opts ...ObjectStoreOption) (*ObjectStore, error) {
	return c.ensureObjectStore(ctx, "ensure object store", bucket, opts, false)
}

// GetObjectStore returns the handle of a bucket, or ErrBucketNotFound.
func (c *Client) GetObjectStore(ctx context.Context, bucket string) (*ObjectStore, error) {
	const op = "get object store"
	ctx, cancel, err := c.bucketCall(ctx, op, object.StreamPrefix, bucket)
	if err != nil {
		return nil, err
	}
	defer cancel()
	return c.boundObjectStore(ctx, op, bucket, false)
}

// boundObjectStore returns the handle of a bucket, of which a server may have told already that it is there.
func (c *Client) boundObjectStore(ctx context.Context, op, bucket string, known bool) (*ObjectStore, error) {
	upstream, err := jsapi.Open(ctx, c.api, bucket, known, jetstream.JetStream.ObjectStore)
	if err != nil {
		return nil, jsapi.Wrap(op, bucket, err)
	}
	store := object.Open(c.api, c.publisher, c.life, bucket, c.cfg.RequestTimeout, objectReports{c})
	return &ObjectStore{ObjectStore: upstream, client: c, bucket: bucket, store: store}, nil
}

// DeleteObjectStore deletes a bucket with all its objects, or returns ErrBucketNotFound.
func (c *Client) DeleteObjectStore(ctx context.Context, bucket string) error {
	return c.deleteBucket(ctx, "delete object store", object.StreamPrefix, bucket)
}

// ObjectStores returns the state of every bucket of objects in the account. An error ends the sequence.
// Without a deadline in ctx, Config.RequestTimeout applies.
func (c *Client) ObjectStores(ctx context.Context) iter.Seq2[jetstream.ObjectStoreStatus, error] {
	return listBuckets(ctx, c, "list object stores", func(ctx context.Context, js jetstream.JetStream) (<-chan jetstream.ObjectStoreStatus, func() error) {
		list := js.ObjectStores(ctx)
		return list.Status(), list.Error
	})
}

// ObjectOption changes one upload or download.
type ObjectOption func(*objectOptions)

type objectOptions = object.Options

// WithProgress lets an upload or download report how far it is: report is called with the bytes that are
// stored, or read, and with how many there are in all, -1 while an upload does not know. It is called once
// for every chunk, from the goroutine of the call or, for Get, of the Read, so it should not take long; and
// at least once, so that the last call of a success has done == total. A download that starts anew, because
// the object was replaced under it, counts from the beginning. A panic of report is logged and goes no
// further.
//
// The total of an upload is known for byte slices, strings and files, and for a reader that has a method Len
// or is an *os.File.
func WithProgress(report func(done, total int64)) ObjectOption {
	return func(o *objectOptions) { o.Progress = report }
}

// WithDeletedObject lets a download of a deleted object yield no bytes, as jetstream.GetObjectShowDeleted
// does, instead of ErrObjectNotFound.
func WithDeletedObject() ObjectOption {
	return func(o *objectOptions) { o.Deleted = true }
}

// WithUnverifiedObject lets a download yield content that cannot be checked: that of an object whose digest is
// missing or is not SHA-256, and that of an object of whose metadata only a part can be read, as another client may
// have written them. They are ErrObjectCorrupt otherwise. What can be checked is checked all the same.
func WithUnverifiedObject() ObjectOption {
	return func(o *objectOptions) { o.Unverified = true }
}

// objectOptions applies the options. What a callback panics with goes no further.
func (c *Client) objectOptions(opts []ObjectOption) objectOptions {
	o := applied(objectOptions{}, opts)
	if report := o.Progress; report != nil {
		o.Progress = func(done, total int64) { c.contain("WithProgress", func() { report(done, total) }) }
	}
	return o
}

// upstreamObjects is a bucket with upstream's signatures.
type upstreamObjects struct{ *ObjectStore }

func (u upstreamObjects) Put(ctx context.Context, meta jetstream.ObjectMeta, r io.Reader) (*jetstream.ObjectInfo, error) {
	return u.ObjectStore.Put(ctx, meta, r)
}

func (u upstreamObjects) PutBytes(ctx context.Context, name string, data []byte) (*jetstream.ObjectInfo, error) {
	return u.ObjectStore.PutBytes(ctx, name, data)
}

func (u upstreamObjects) PutString(ctx context.Context, name, data string) (*jetstream.ObjectInfo, error) {
	return u.ObjectStore.PutString(ctx, name, data)
}

func (u upstreamObjects) PutFile(ctx context.Context, file string) (*jetstream.ObjectInfo, error) {
	return u.ObjectStore.PutFile(ctx, file)
}

func (u upstreamObjects) Get(ctx context.Context, name string, opts ...jetstream.GetObjectOpt) (jetstream.ObjectResult, error) {
	return u.ObjectStore.Get(ctx, name, ownOptions(opts)...)
}

func (u upstreamObjects) GetBytes(ctx context.Context, name string, opts ...jetstream.GetObjectOpt) ([]byte, error) {
	return u.ObjectStore.GetBytes(ctx, name, ownOptions(opts)...)
}

func (u upstreamObjects) GetString(ctx context.Context, name string, opts ...jetstream.GetObjectOpt) (string, error) {
	return u.ObjectStore.GetString(ctx, name, ownOptions(opts)...)
}

func (u upstreamObjects) GetFile(ctx context.Context, name, file string, opts ...jetstream.GetObjectOpt) error {
	return u.ObjectStore.GetFile(ctx, name, file, ownOptions(opts)...)
}

// ownOptions translates upstream's only option, which shows the deleted ones.
func ownOptions(opts []jetstream.GetObjectOpt) (own []ObjectOption) {
	for _, opt := range opts {
		if opt != nil {
			own = append(own, WithDeletedObject())
		}
	}
	return own
}

func (u upstreamObjects) AddBucketLink(ctx context.Context, name string, bucket jetstream.ObjectStore) (*jetstream.ObjectInfo, error) {
	if bucket == nil {
		return u.ObjectStore.AddBucketLink(ctx, name, nil)
	}
	status, err := bucket.Status(ctx)
	if err != nil {
		return nil, u.wrap("add link", name, err)
	}
	return u.ObjectStore.AddBucketLink(ctx, name, &ObjectStore{bucket: status.Bucket()})
}

func (u upstreamObjects) List(ctx context.Context, opts ...jetstream.ListObjectsOpt) ([]*jetstream.ObjectInfo, error) {
	objects, err := u.ObjectStore.List(ctx, opts...)
	if err != nil {
		return nil, err
	}
	all := slices.Collect(objects)
	if len(all) == 0 {
		return nil, jetstream.ErrNoObjectsFound
	}
	return all, nil
}
