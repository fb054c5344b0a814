package nats

import (
	"context"
	"iter"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	keyvalue "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/kv"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/object"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
)

// bucketCall checks a call for a bucket that the caller names, whose stream has a prefix, and waits for the connection.
// The context that it returns has a deadline.
func (c *Client) bucketCall(ctx context.Context, op, prefix, bucket string) (context.Context, context.CancelFunc, error) {
	if most := subjects.MaxName - len(prefix); len(bucket) > most {
		return nil, nil, fail(op, bucket, ErrInvalidArgument, "a bucket's name has at most %d bytes, not %d", most, len(bucket))
	}
	if bucket == "" || strings.Trim(bucket, bucketLetters) != "" {
		bad := jetstream.ErrInvalidBucketName
		if prefix == object.StreamPrefix {
			bad = jetstream.ErrInvalidStoreName
		}
		return nil, nil, fail(op, bucket, ErrInvalidArgument, "%w: it is to consist of letters, digits, - and _", bad)
	}
	if err := c.jetStream(ctx, op, bucket); err != nil {
		return nil, nil, err
	}
	ctx, cancel := c.conn.Deadline(ctx)
	return ctx, cancel, nil
}

// bucketLetters are what the names of buckets consist of.
const bucketLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

// CreateKeyValue creates a bucket and returns its handle. Creating it again with the same
// configuration is no error, with another one it is a *DriftError, which names the fields that differ
// and is ErrAlreadyExists; EnsureKeyValue adapts the bucket. Replicas and Storage come from
// Config.DefaultStreamReplicas and DefaultStorageType where no option sets them. A bucket's name
// consists of letters, digits, - and _; another one is ErrInvalidArgument.
func (c *Client) CreateKeyValue(ctx context.Context, bucket string, opts ...KeyValueOption) (*KeyValue, error) {
	return c.ensureKeyValue(ctx, "create key-value bucket", bucket, opts, true)
}

// ensureKeyValue is EnsureKeyValue or, where a bucket that exists is not to be changed, CreateKeyValue.
func (c *Client) ensureKeyValue(ctx context.Context, op, bucket string, opts []KeyValueOption, create bool) (*KeyValue, error) {
	ctx, cancel, err := c.bucketCall(ctx, op, keyvalue.StreamPrefix, bucket)
	if err != nil {
		return nil, err
	}
	defer cancel()
	want := applied(jetstream.KeyValueConfig{Bucket: bucket}, opts)
	want.Bucket = bucket
	fresh := want
	fresh.Replicas, fresh.Storage = c.streamDefaults(want.Replicas, want.Storage)
	if fresh.History > jetstream.KeyValueMaxHistory {
		return nil, fail(op, bucket, ErrInvalidArgument, "%w", jetstream.ErrHistoryTooLarge)
	}
	asked := time.Now()
	stream, err := c.ensurer(ensureOptions{CreateOnly: create}).KeyValue(ctx, want, fresh)
	if err != nil {
		return nil, ensureFault(op, bucket, err, DriftError{Bucket: bucket, create: create}, jsapi.WrapBucket)
	}
	if fresh.LimitMarkerTTL > 0 && stream.CachedInfo().Config.SubjectDeleteMarkerTTL == 0 { // an older server does not know it
		return nil, fail(op, bucket, ErrInvalidArgument, "%w", jetstream.ErrLimitMarkerTTLNotSupported)
	}
	return c.keyValue(ctx, op, bucket, stream.CachedInfo(), asked)
}

// keyValue returns the handle of a bucket, of whose stream the server has told info when it was asked at that time,
// or is asked for it.
func (c *Client) keyValue(ctx context.Context, op, bucket string, info *jetstream.StreamInfo, asked time.Time) (*KeyValue, error) {
	upstream, err := jsapi.Open(ctx, c.api, bucket, info != nil, jetstream.JetStream.KeyValue)
	if err == nil && info == nil {
		asked = time.Now()
		info, err = c.api.StreamInfo(ctx, keyvalue.StreamPrefix+bucket)
	}
	if err != nil {
		return nil, jsapi.WrapBucket(op, bucket, err)
	}
	return &KeyValue{KeyValue: upstream, client: c, bucket: bucket, keys: c.buckets.Open(info, asked)}, nil
}

// EnsureKeyValue creates a bucket, or changes the one there is to what the options say, by the rules of
// EnsureStream: a field at zero means "as it is", metadata is merged, and what would delete values,
// lower a limit or cannot be changed is a *DriftError that lists every field that differs. Two calls
// that change the same bucket at once both succeed, and the later one wins. The other errors are those
// of CreateKeyValue.
func (c *Client) EnsureKeyValue(ctx context.Context, bucket string, opts ...KeyValueOption) (*KeyValue, error) {
	return c.ensureKeyValue(ctx, "ensure key-value bucket", bucket, opts, false)
}

// GetKeyValue returns the handle of a bucket, or ErrBucketNotFound.
func (c *Client) GetKeyValue(ctx context.Context, bucket string) (*KeyValue, error) {
	const op = "get key-value bucket"
	ctx, cancel, err := c.bucketCall(ctx, op, keyvalue.StreamPrefix, bucket)
	if err != nil {
		return nil, err
	}
	defer cancel()
	return c.keyValue(ctx, op, bucket, nil, time.Time{})
}

// DeleteKeyValue deletes a bucket with all its keys, or returns ErrBucketNotFound.
func (c *Client) DeleteKeyValue(ctx context.Context, bucket string) error {
	return c.deleteBucket(ctx, "delete key-value bucket", keyvalue.StreamPrefix, bucket)
}

func (c *Client) deleteBucket(ctx context.Context, op, prefix, bucket string) error {
	ctx, cancel, err := c.bucketCall(ctx, op, prefix, bucket)
	if err != nil {
		return err
	}
	defer cancel()
	return jsapi.WrapBucket(op, bucket, c.api.Ask(ctx, "STREAM.DELETE."+prefix+bucket, nil, nil))
}

// statusOf asks the server for the state of a bucket, which open finds.
func statusOf[H interface {
	Status(ctx context.Context) (S, error)
}, S any](ctx context.Context, c *Client, op, bucket string, open func(jetstream.JetStream, context.Context, string) (H, error)) (S, error) {
	if err := c.jetStream(ctx, op, bucket); err != nil {
		var none S
		return none, err
	}
	return jsapi.Look(ctx, c.api, func(ctx context.Context, js jetstream.JetStream) (S, error) {
		upstream, err := open(js, ctx, bucket)
		if err != nil {
			var none S
			return none, err
		}
		return upstream.Status(ctx)
	})
}

// KeyValues returns the account's buckets. An error ends the sequence. Without a deadline in ctx,
// Config.RequestTimeout applies.
func (c *Client) KeyValues(ctx context.Context) iter.Seq2[jetstream.KeyValueStatus, error] {
	return listBuckets(ctx, c, "list key-value buckets", func(ctx context.Context, js jetstream.JetStream) (<-chan jetstream.KeyValueStatus, func() error) {
		list := js.KeyValueStores(ctx)
		return list.Status(), list.Error
	})
}

// listBuckets asks upstream for all buckets of a kind.
func listBuckets[S any](
	ctx context.Context, c *Client, op string, list func(context.Context, jetstream.JetStream) (<-chan S, func() error),
) iter.Seq2[S, error] {
	return func(yield func(S, error) bool) {
		var none S
		if err := c.jetStream(ctx, op, ""); err != nil {
			yield(none, err)
			return
		}
		all, err := jsapi.Look(ctx, c.api, func(ctx context.Context, js jetstream.JetStream) (all []S, err error) {
			listed, failure := list(ctx, js)
			for one := range listed {
				all = append(all, one)
			}
			return all, failure()
		})
		if err != nil {
			yield(none, jsapi.Wrap(op, "", err))
			return
		}
		for _, one := range all {
			if !yield(one, nil) {
				return
			}
		}
	}
}

// KeyValueOption changes the configuration of a bucket that is created.
type KeyValueOption func(*jetstream.KeyValueConfig)

// WithKeyValueConfig lets set change the whole of upstream's configuration, for what the other options
// do not cover. The bucket's name is filled in already and stays.
func WithKeyValueConfig(set func(*jetstream.KeyValueConfig)) KeyValueOption {
	return KeyValueOption(set)
}

// WithKeyHistory keeps the last n values of each key, 64 at most. The default is 1.
func WithKeyHistory(n uint8) KeyValueOption {
	return func(c *jetstream.KeyValueConfig) { c.History = n }
}

// WithKeyValueTTL deletes every value d after it was written, without a mark: watchers do not hear of
// it, unless WithKeyTTLs has the server leave marks. The default, 0, keeps values for ever.
func WithKeyValueTTL(d time.Duration) KeyValueOption {
	return func(c *jetstream.KeyValueConfig) { c.TTL = d }
}

// WithKeyTTLs lets single keys have a time to live, as jetstream.KeyTTL gives it to Create, and as
// Lock and Elect need it. A key that has expired leaves a mark for the time of marks, at least a
// second, so that watchers hear of it. It needs server 2.11.
func WithKeyTTLs(marks time.Duration) KeyValueOption {
	return func(c *jetstream.KeyValueConfig) { c.LimitMarkerTTL = marks }
}

// WithKeyValueReplicas stores the bucket on n servers of the cluster: 1, 3 or 5. The default is
// Config.DefaultStreamReplicas.
func WithKeyValueReplicas(n int) KeyValueOption {
	return func(c *jetstream.KeyValueConfig) { c.Replicas = n }
}

// WithKeyValueStorage stores the bucket in files or in memory. The default is
// Config.DefaultStorageType.
func WithKeyValueStorage(storage jetstream.StorageType) KeyValueOption {
	return func(c *jetstream.KeyValueConfig) { c.Storage = storage }
}

// WithKeyValueCompression compresses the bucket's files.
func WithKeyValueCompression() KeyValueOption {
	return func(c *jetstream.KeyValueConfig) { c.Compression = true }
}
