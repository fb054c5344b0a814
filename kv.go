package nats

import (
	"context"
	"errors"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
)

// KeyValue is a key-value bucket: upstream's jetstream.KeyValue, with the errors of this package,
// watchers that end with their context, with Stop or with the client and leave nothing behind, and
// keys as a sequence. It is safe for concurrent use.
type KeyValue struct {
	jetstream.KeyValue
	client *Client
}

// KeyValueOption changes the configuration of a bucket that is created.
type KeyValueOption func(*jetstream.KeyValueConfig)

// WithKeyValueConfig lets set change the whole of upstream's configuration: History, TTL, Replicas,
// Storage and the rest. The bucket's name is filled in already and stays.
func WithKeyValueConfig(set func(*jetstream.KeyValueConfig)) KeyValueOption {
	return KeyValueOption(set)
}

// CreateKeyValue creates a bucket and returns its handle. Creating it again with the same
// configuration is no error, with another one it is ErrAlreadyExists. Replicas and Storage come
// from Config.DefaultStreamReplicas and DefaultStorageType where no option sets them. A bucket's
// name consists of letters, digits, - and _; another one is ErrInvalidArgument.
func (c *Client) CreateKeyValue(ctx context.Context, bucket string, opts ...KeyValueOption) (*KeyValue, error) {
	const op = "create key-value bucket"
	js, err := c.jetStream(ctx, op, bucket)
	if err != nil {
		return nil, err
	}
	cfg := jetstream.KeyValueConfig{Bucket: bucket}
	for _, opt := range opts {
		if opt != nil {
			opt(&cfg)
		}
	}
	cfg.Bucket = bucket
	cfg.Replicas, cfg.Storage = c.streamDefaults(cfg.Replicas, cfg.Storage)
	kv, err := js.CreateKeyValue(ctx, cfg)
	if err != nil {
		return nil, wrapJetStream(op, bucket, err)
	}
	return &KeyValue{KeyValue: kv, client: c}, nil
}

// GetKeyValue returns the handle of a bucket, or ErrBucketNotFound.
func (c *Client) GetKeyValue(ctx context.Context, bucket string) (*KeyValue, error) {
	const op = "get key-value bucket"
	js, err := c.jetStream(ctx, op, bucket)
	if err != nil {
		return nil, err
	}
	kv, err := js.KeyValue(ctx, bucket)
	if err != nil {
		return nil, wrapJetStream(op, bucket, err)
	}
	return &KeyValue{KeyValue: kv, client: c}, nil
}

// DeleteKeyValue deletes a bucket with all its keys, or returns ErrBucketNotFound.
func (c *Client) DeleteKeyValue(ctx context.Context, bucket string) error {
	const op = "delete key-value bucket"
	js, err := c.jetStream(ctx, op, bucket)
	if err != nil {
		return err
	}
	err = js.DeleteKeyValue(ctx, bucket)
	if errors.Is(err, jetstream.ErrStreamNotFound) { // upstream's text is of two lines
		err = joined{jetstream.ErrBucketNotFound, jetstream.ErrStreamNotFound}
	}
	return wrapJetStream(op, bucket, err)
}

func (kv *KeyValue) wrap(op, key string, err error) error {
	if err == nil {
		return nil
	}
	return wrapJetStream(op, path(kv.Bucket(), key), err)
}

// Get returns the latest value of key. It returns ErrKeyNotFound when there is none or it was
// deleted, and ErrInvalidArgument for a key that cannot be: keys are tokens of letters, digits and
// -/_= joined by dots.
func (kv *KeyValue) Get(ctx context.Context, key string) (jetstream.KeyValueEntry, error) {
	entry, err := kv.KeyValue.Get(ctx, key)
	return entry, kv.wrap("get key", key, err)
}

// GetRevision returns the value that key had at a revision, or ErrKeyNotFound.
func (kv *KeyValue) GetRevision(ctx context.Context, key string, revision uint64) (jetstream.KeyValueEntry, error) {
	entry, err := kv.KeyValue.GetRevision(ctx, key, revision)
	return entry, kv.wrap("get key", key, err)
}

// Put sets key and returns the new revision.
func (kv *KeyValue) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	revision, err := kv.KeyValue.Put(ctx, key, value)
	return revision, kv.wrap("put key", key, err)
}

// PutString is Put of a string.
func (kv *KeyValue) PutString(ctx context.Context, key, value string) (uint64, error) {
	return kv.Put(ctx, key, []byte(value))
}

// Create sets key only if it does not exist or was deleted, and returns the new revision;
// otherwise it returns ErrAlreadyExists.
func (kv *KeyValue) Create(ctx context.Context, key string, value []byte, opts ...jetstream.KVCreateOpt) (uint64, error) {
	revision, err := kv.KeyValue.Create(ctx, key, value, opts...)
	if errors.Is(err, jetstream.ErrKeyExists) {
		return revision, &opError{op: "create key", target: kv.Bucket() + "/" + key, kind: ErrAlreadyExists, cause: err}
	}
	return revision, kv.wrap("create key", key, err)
}

// Update sets key only if its latest revision is the given one, and returns the new revision;
// otherwise it returns ErrConflict.
func (kv *KeyValue) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	revision, err := kv.KeyValue.Update(ctx, key, value, revision)
	return revision, kv.wrap("update key", key, err)
}

// Delete marks key as deleted and keeps its history. Deleting a key that does not exist is no
// error. With jetstream.LastRevision it returns ErrConflict when key has another revision.
func (kv *KeyValue) Delete(ctx context.Context, key string, opts ...jetstream.KVDeleteOpt) error {
	return kv.wrap("delete key", key, kv.KeyValue.Delete(ctx, key, opts...))
}

// Purge is Delete that drops the history as well.
func (kv *KeyValue) Purge(ctx context.Context, key string, opts ...jetstream.KVDeleteOpt) error {
	return kv.wrap("purge key", key, kv.KeyValue.Purge(ctx, key, opts...))
}

// History returns the values that the bucket keeps of key, oldest first, or ErrKeyNotFound.
func (kv *KeyValue) History(ctx context.Context, key string, opts ...jetstream.WatchOpt) ([]jetstream.KeyValueEntry, error) {
	const op = "history of key"
	entries, err := collect(ctx, kv.client, func(ctx context.Context) (upstreamWatcher[jetstream.KeyValueEntry], error) {
		return kv.Watch(ctx, key, slices.Concat(opts, []jetstream.WatchOpt{jetstream.IncludeHistory()})...)
	})
	if err == nil && len(entries) == 0 {
		err = jetstream.ErrKeyNotFound
	}
	return entries, kv.wrap(op, key, err)
}

// PurgeDeletes removes the markers of deleted keys, those of the last 30 minutes excepted unless an
// option says otherwise.
func (kv *KeyValue) PurgeDeletes(ctx context.Context, opts ...jetstream.KVPurgeOpt) error {
	return kv.wrap("purge deletes of", "", kv.KeyValue.PurgeDeletes(ctx, opts...))
}

// Status asks the server for the bucket's configuration and size.
func (kv *KeyValue) Status(ctx context.Context) (jetstream.KeyValueStatus, error) {
	status, err := kv.KeyValue.Status(ctx)
	return status, kv.wrap("status of", "", err)
}
