package nats

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// KeyValue is a key-value bucket: upstream's jetstream.KeyValue, with the errors of this package,
// reads and writes that outlast restarts and elections, watchers that are fresh or say that they are
// not, and more: All, GetMany, Changes, Modify, Cached, Lock, Elect. It is safe for concurrent use.
type KeyValue struct {
	jetstream.KeyValue
	client      *Client
	bucket      string
	stream      string
	prefix      string // of the subjects of keys
	writePrefix string // of the subjects to which they are written
	direct      bool   // every replica answers reads
	ttl         time.Duration
}

// newKeyValue asks the server what a handle has to know of its bucket.
func (c *Client) newKeyValue(ctx context.Context, upstream jetstream.KeyValue) (*KeyValue, error) {
	status, err := upstream.Status(ctx)
	if err != nil {
		return nil, err
	}
	kv := &KeyValue{KeyValue: upstream, client: c, bucket: upstream.Bucket(), stream: kvStreamPrefix + upstream.Bucket()}
	cfg, err := bucketConfig(status)
	if err != nil {
		return nil, err
	}
	kv.direct, kv.ttl = cfg.AllowDirect || cfg.MirrorDirect, cfg.MaxAge
	source := kv.bucket
	if cfg.Mirror != nil {
		source = strings.TrimPrefix(cfg.Mirror.Name, kvStreamPrefix)
	}
	kv.prefix = kvSubjectPrefix + source + "."
	kv.writePrefix = kv.prefix
	switch {
	case cfg.Mirror != nil && cfg.Mirror.External != nil && cfg.Mirror.External.APIPrefix != "":
		kv.writePrefix = cfg.Mirror.External.APIPrefix + "." + kv.prefix
	case c.jsPrefix != jetstream.DefaultAPIPrefix:
		kv.writePrefix = c.jsPrefix + kv.prefix
	}
	return kv, nil
}

// bucketConfig returns the configuration of a bucket's stream.
func bucketConfig(status jetstream.KeyValueStatus) (*jetstream.StreamConfig, error) {
	known, ok := status.(*jetstream.KeyValueBucketStatus) // upstream has no other
	if !ok {
		return nil, fmt.Errorf("unknown status %T", status)
	}
	return &known.StreamInfo().Config, nil
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
	return entries, kv.fault(op, key, err)
}

// PurgeDeletes removes the markers of deleted keys, those of the last 30 minutes excepted unless an
// option says otherwise.
func (kv *KeyValue) PurgeDeletes(ctx context.Context, opts ...jetstream.KVPurgeOpt) error {
	return kv.fault("purge deletes of", "", kv.KeyValue.PurgeDeletes(ctx, opts...))
}

// Status asks the server for the bucket's configuration and size.
func (kv *KeyValue) Status(ctx context.Context) (jetstream.KeyValueStatus, error) {
	status, err := kv.KeyValue.Status(ctx)
	return status, kv.fault("status of", "", err)
}
