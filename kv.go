package nats

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
)

// KeyValue is a key-value bucket: upstream's jetstream.KeyValue, with the errors of this package,
// reads and writes that outlast restarts and elections, watchers that are fresh or say that they are
// not, and more: All, GetMany, Changes, Modify, Cached, Lock, Elect. Code that takes a jetstream.KeyValue
// gets it from Upstream. It is safe for concurrent use.
type KeyValue struct {
	jetstream.KeyValue
	client      *Client
	bucket      string
	stream      string
	prefix      string                      // of the subjects of keys
	writePrefix string                      // of the subjects to which they are written
	getPrefix   string                      // of those on which any replica is asked for them
	origin      string                      // the bucket that this one mirrors, or empty
	direct      bool                        // every replica answers reads
	facts       atomic.Pointer[bucketFacts] // as last told
}

// newKeyValue asks the server what a handle has to know of its bucket.
func (c *Client) newKeyValue(ctx context.Context, upstream jetstream.KeyValue) (*KeyValue, error) {
	asked := time.Now()
	status, err := upstream.Status(ctx)
	if err != nil {
		return nil, err
	}
	info, err := bucketInfo(status)
	if err != nil {
		return nil, err
	}
	return c.boundKeyValue(upstream, info, asked), nil
}

// boundKeyValue returns the handle of a bucket of whose stream the server has told info.
func (c *Client) boundKeyValue(upstream jetstream.KeyValue, info *jetstream.StreamInfo, asked time.Time) *KeyValue {
	kv := &KeyValue{KeyValue: upstream, client: c, bucket: upstream.Bucket(), stream: kvStreamPrefix + upstream.Bucket()}
	cfg := info.Config
	kv.facts.Store(factsOf(info, asked))
	kv.direct = cfg.AllowDirect || cfg.MirrorDirect
	source := kv.bucket
	if cfg.Mirror != nil {
		source = strings.TrimPrefix(cfg.Mirror.Name, kvStreamPrefix)
		kv.origin = source
	}
	kv.prefix = kvSubjectPrefix + source + "."
	kv.writePrefix = kv.prefix
	kv.getPrefix = c.api.Subject("DIRECT.GET." + kv.stream + "." + kv.prefix)
	switch {
	case cfg.Mirror != nil && cfg.Mirror.External != nil && cfg.Mirror.External.APIPrefix != "":
		kv.writePrefix = cfg.Mirror.External.APIPrefix + "." + kv.prefix
	case c.api.Subject("") != jetstream.DefaultAPIPrefix:
		kv.writePrefix = c.api.Subject(kv.prefix)
	}
	return kv
}

// bucketInfo returns what upstream knows of a bucket's stream.
func bucketInfo(status jetstream.KeyValueStatus) (*jetstream.StreamInfo, error) {
	known, ok := status.(*jetstream.KeyValueBucketStatus) // upstream has no other
	if !ok {
		return nil, fmt.Errorf("unknown status %T", status)
	}
	return known.StreamInfo(), nil
}

// History returns the values that the bucket keeps of key, oldest first, or ErrKeyNotFound.
func (kv *KeyValue) History(ctx context.Context, key string, opts ...jetstream.WatchOpt) ([]jetstream.KeyValueEntry, error) {
	const op = "history of key"
	options, err := watchOptionsOf(slices.Concat(opts, []jetstream.WatchOpt{jetstream.IncludeHistory()}))
	if err != nil {
		return nil, fail(op, path(kv.bucket, key), ErrInvalidArgument, "%w", err)
	}
	var entries []jetstream.KeyValueEntry
	for entry, err := range kv.present(ctx, op, []string{key}, options) {
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry)
	}
	if len(entries) == 0 {
		return nil, kv.fault(op, key, jetstream.ErrKeyNotFound)
	}
	return entries, nil
}

// PurgeDeletes removes the history of deleted keys, and the markers of their deletion, those of the last
// 30 minutes excepted unless an option says otherwise. A key that is written meanwhile keeps what was
// written; upstream's deletes that, too. Without a deadline in ctx, Config.RequestTimeout bounds each step.
func (kv *KeyValue) PurgeDeletes(ctx context.Context, opts ...jetstream.KVPurgeOpt) error {
	const op = "purge deletes of"
	age := purgeAge
	for _, opt := range opts {
		switch opt := opt.(type) {
		case nil:
		case jetstream.DeleteMarkersOlderThan: // upstream has no other
			if opt != 0 {
				age = time.Duration(opt)
			}
		default:
			return fail(op, kv.bucket, ErrInvalidArgument, "%w: unknown option %T", jetstream.ErrInvalidOption, opt)
		}
	}
	var deleted []*keyEntry
	for entry, err := range kv.present(ctx, op, nil, watchOptions{metaOnly: true}) {
		if err != nil {
			return err
		}
		if entry.deleted() {
			deleted = append(deleted, entry)
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var purging sync.WaitGroup
	failed := make(chan error, 1)
	places := make(chan struct{}, purgeAtOnce)
	for _, entry := range deleted {
		end := entry.revision // what is written from now on stays
		if age < 0 || time.Since(entry.Created()) > age {
			end++ // and the marker goes, too
		}
		places <- struct{}{}
		purging.Go(func() {
			if err := kv.purgeKey(ctx, entry.key, end, 0); err != nil {
				select {
				case failed <- kv.fault(op, entry.key, err):
				default: // after another one
				}
				cancel()
			}
			<-places
		})
	}
	purging.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// purgeAtOnce is how many keys PurgeDeletes purges at once.
const purgeAtOnce = 16

// purgeAge is how old a deletion is whose marker PurgeDeletes removes unless an option says otherwise.
const purgeAge = 30 * time.Minute

// Status asks the server for the bucket's configuration and size.
func (kv *KeyValue) Status(ctx context.Context) (jetstream.KeyValueStatus, error) {
	ctx, cancel, err := kv.client.bucketCall(ctx, "status of", kv.bucket)
	if err != nil {
		return nil, err
	}
	defer cancel()
	status, err := jsapi.Look(ctx, kv.client.api, func(ctx context.Context, js jetstream.JetStream) (jetstream.KeyValueStatus, error) {
		upstream, err := js.KeyValue(ctx, kv.bucket)
		if err != nil {
			return nil, err
		}
		return upstream.Status(ctx)
	})
	return status, kv.fault("status of", "", err)
}
