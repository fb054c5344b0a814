package nats

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
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
	for _, opt := range opts {
		if opt != nil {
			opt(&set)
		}
	}
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
	ctx, cancel, err := c.namedBucketCall(ctx, op, object.StreamPrefix, bucket)
	if err != nil {
		return nil, err
	}
	defer cancel()
	want, fresh := c.objectStoreConfig(bucket, opts)
	if err := c.ensurer(ensureOptions{CreateOnly: create}).ObjectStore(ctx, want, fresh); err != nil {
		differs := DriftError{Bucket: bucket, Stream: object.StreamPrefix + bucket, create: create}
		return nil, ensureFault(op, bucket, err, differs, jsapi.Wrap)
	}
	return c.boundObjectStore(ctx, op, bucket)
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
	ctx, cancel, err := c.namedBucketCall(ctx, op, object.StreamPrefix, bucket)
	if err != nil {
		return nil, err
	}
	defer cancel()
	return c.boundObjectStore(ctx, op, bucket)
}

// boundObjectStore returns the handle of a bucket that exists.
func (c *Client) boundObjectStore(ctx context.Context, op, bucket string) (*ObjectStore, error) {
	store, err := jsapi.Look(ctx, c.api, func(ctx context.Context, js jetstream.JetStream) (jetstream.ObjectStore, error) {
		return js.ObjectStore(ctx, bucket)
	})
	if err != nil {
		return nil, jsapi.Wrap(op, bucket, err)
	}
	return c.objectStore(bucket, store), nil
}

// DeleteObjectStore deletes a bucket with all its objects, or returns ErrBucketNotFound.
func (c *Client) DeleteObjectStore(ctx context.Context, bucket string) error {
	const op = "delete object store"
	ctx, cancel, err := c.namedBucketCall(ctx, op, object.StreamPrefix, bucket)
	if err != nil {
		return err
	}
	defer cancel()
	err = c.api.Ask(ctx, "STREAM.DELETE."+object.StreamPrefix+bucket, nil, &jsapi.Refusal{})
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		err = fault.Joined{jetstream.ErrBucketNotFound, err}
	}
	return jsapi.Wrap(op, bucket, err)
}

// ObjectStores returns the state of every bucket of objects in the account. An error ends the sequence.
// Without a deadline in ctx, Config.RequestTimeout applies.
func (c *Client) ObjectStores(ctx context.Context) iter.Seq2[jetstream.ObjectStoreStatus, error] {
	return listBuckets(ctx, c, "list object stores", func(ctx context.Context, js jetstream.JetStream) (<-chan jetstream.ObjectStoreStatus, func() error) {
		list := js.ObjectStores(ctx)
		return list.Status(), list.Error
	})
}
