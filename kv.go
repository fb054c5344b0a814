package nats

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	keyvalue "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/kv"
)

// KeyValue is a key-value bucket: upstream's jetstream.KeyValue, with the errors of this package,
// reads and writes that outlast restarts and elections, watchers that are fresh or say that they are
// not, and more: All, GetMany, Changes, Modify, Cached, Lock, Elect. Code that takes a jetstream.KeyValue
// gets it from Upstream. It is safe for concurrent use.
type KeyValue struct {
	jetstream.KeyValue
	client *Client
	bucket string
	keys   *keyvalue.Bucket
}

// check refuses what cannot be a key, and a nil context.
func (kv *KeyValue) check(ctx context.Context, op string, keys ...string) error {
	return kv.checkKeys(ctx, op, false, keys)
}

// checkKeys is check of keys, or of filters of keys.
func (kv *KeyValue) checkKeys(ctx context.Context, op string, filters bool, keys []string) error {
	if ctx == nil {
		return errNilContext(op, path(kv.bucket, strings.Join(keys, ",")))
	}
	for _, key := range keys {
		if fault := kv.keys.Fault(key, filters); fault != "" {
			return fail(op, path(kv.bucket, key), ErrInvalidArgument, "%w: %s", jetstream.ErrInvalidKey, fault)
		}
	}
	return nil
}

// wrap gives err the operation, the bucket and the key.
func (kv *KeyValue) wrap(op, key string, err error) error {
	if err == nil {
		return nil // and nothing is allocated
	}
	if conflict, ok := errors.AsType[*keyvalue.ConflictError](err); ok {
		return &fault.Error{Op: op, Target: path(kv.bucket, key), Kind: ErrConflict, Cause: &ConflictError{
			Bucket: kv.bucket, Key: key, Expected: conflict.Expected, Revision: conflict.Revision, cause: conflict,
		}}
	}
	return kv.keys.Wrap(op, key, err)
}

// ConflictError is returned when a key was to be written over a revision that is no longer its
// latest. It is ErrConflict and jetstream.ErrKeyRevisionMismatch.
type ConflictError struct {
	// Bucket and Key that were to be written.
	Bucket, Key string
	// Expected is the revision that the writer expected; 0 stands for none.
	Expected uint64
	// Revision is the latest one, which may be that of a deletion; 0 when there is none, or when the
	// server could not be asked.
	Revision uint64

	cause error
}

func (e *ConflictError) Error() string { return e.Unwrap().Error() }

// Unwrap returns the sentinels and the server's answer.
func (e *ConflictError) Unwrap() error { return cmp.Or(e.cause, ErrConflict) } // somebody's own has no cause

// Get returns the latest value of key. It returns ErrKeyNotFound when there is none or it was
// deleted, and ErrInvalidArgument for a key that cannot be: keys are tokens of letters, digits and
// -/_= joined by dots. While disconnected it waits for the connection, and an answer that is lost is
// asked for again, until ctx ends: then it is ErrNotConnected or ErrTimeout. Any replica answers: right
// after a write, one that lags can return the value before.
func (kv *KeyValue) Get(ctx context.Context, key string) (jetstream.KeyValueEntry, error) {
	return kv.get(ctx, key, 0)
}

// GetRevision returns the value that key had at a revision, or ErrKeyNotFound. The other errors are
// those of Get.
func (kv *KeyValue) GetRevision(ctx context.Context, key string, revision uint64) (jetstream.KeyValueEntry, error) {
	return kv.get(ctx, key, revision)
}

func (kv *KeyValue) get(ctx context.Context, key string, revision uint64) (jetstream.KeyValueEntry, error) {
	const op = "get key"
	if err := kv.check(ctx, op, key); err != nil {
		return nil, err
	}
	entry, err := kv.keys.Get(ctx, key, revision)
	return entry, kv.wrap(op, key, err)
}

// GetMany returns the latest values of the keys, by key, in one round trip for some hundreds of them.
// Keys that do not exist are not in the map: none of them does is no error. The errors are those of
// Get. It needs server 2.11.
func (kv *KeyValue) GetMany(ctx context.Context, keys ...string) (map[string]jetstream.KeyValueEntry, error) {
	const op = "get keys"
	if err := kv.check(ctx, op, keys...); err != nil {
		return nil, err
	}
	entries, err := kv.keys.Many(ctx, keys)
	return entries, kv.wrap(op, "", err)
}

// History returns the values that the bucket keeps of key, oldest first, or ErrKeyNotFound.
func (kv *KeyValue) History(ctx context.Context, key string, opts ...jetstream.WatchOpt) ([]jetstream.KeyValueEntry, error) {
	const op = "history of key"
	options, err := keyvalue.WatchOf(slices.Concat(opts, []jetstream.WatchOpt{jetstream.IncludeHistory()}))
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
		return nil, kv.wrap(op, key, jetstream.ErrKeyNotFound)
	}
	return entries, nil
}

// Put sets key and returns the new revision. A nil error means written once: a write is repeated under
// the same message ID, over restarts, elections and lost answers, until ctx ends. Then the error is
// ErrNotConnected when nothing was sent, and ErrTimeout or ErrConnectionLost when the write may or may
// not be stored. The others are ErrBucketNotFound, ErrPayloadTooLarge, ErrStreamFull for a bucket that
// has no room, and ErrInvalidArgument for a bad key.
//
// With jetstream.KeyTTL the key is deleted after a time of whole seconds, as Create has it. Without it the
// value stays, also where the one before had a time: a time belongs to a value and not to its key.
func (kv *KeyValue) Put(ctx context.Context, key string, value []byte, opts ...jetstream.KVCreateOpt) (uint64, error) {
	return writeKey(ctx, kv, "put key", key, value, keyvalue.Write{}, opts)
}

// writeKey writes what the options do not change.
func writeKey[O any](ctx context.Context, kv *KeyValue, op, key string, value []byte, w keyvalue.Write, opts []O) (uint64, error) {
	if err := checkWrite(ctx, kv, op, key, &w, opts); err != nil {
		return 0, err
	}
	revision, err := kv.keys.Write(ctx, key, value, w)
	return revision, kv.wrap(op, key, err)
}

// checkWrite is check, and sets what upstream's options of a creation or of a deletion say.
func checkWrite[O any](ctx context.Context, kv *KeyValue, op, key string, w *keyvalue.Write, opts []O) error {
	if err := kv.check(ctx, op, key); err != nil || len(opts) == 0 {
		return err
	}
	if err := keyvalue.SetWrite(w, opts); err != nil {
		return fail(op, path(kv.bucket, key), ErrInvalidArgument, "%w", err)
	}
	return nil
}

// PutString is Put of a string.
func (kv *KeyValue) PutString(ctx context.Context, key, value string, opts ...jetstream.KVCreateOpt) (uint64, error) {
	return kv.Put(ctx, key, []byte(value), opts...)
}

// Create sets key only if it does not exist or was deleted, and returns the new revision; otherwise
// it returns ErrAlreadyExists. With jetstream.KeyTTL the key is deleted after a time of whole seconds:
// the bucket must allow it, see WithKeyTTLs. It is ErrConflict when ctx ends before it is clear whether
// a key that is there was deleted. The other errors are those of Put.
func (kv *KeyValue) Create(ctx context.Context, key string, value []byte, opts ...jetstream.KVCreateOpt) (uint64, error) {
	const op = "create key"
	var w keyvalue.Write
	if err := checkWrite(ctx, kv, op, key, &w, opts); err != nil {
		return 0, err
	}
	revision, err := kv.keys.Create(ctx, key, value, w.TTL)
	return revision, kv.wrap(op, key, err)
}

// Update sets key only if its latest revision is the given one, and returns the new revision;
// otherwise it returns a *ConflictError with the latest one, which is ErrConflict. A revision of 0 is
// that of a key that has never been, or whose deletion is forgotten. The options, the fate of a time to
// live, and the other errors are those of Put.
func (kv *KeyValue) Update(ctx context.Context, key string, value []byte, revision uint64, opts ...jetstream.KVCreateOpt) (uint64, error) {
	return writeKey(ctx, kv, "update key", key, value, keyvalue.Write{Expect: true, Revision: revision}, opts)
}

// Modify sets key to what f makes of its value, and begins again with the new value when another
// writer was faster, until ctx ends: no change is lost. The value is nil when there is none. An error
// of f ends it and is returned as it is; f must not change old and may be called many times. Modify
// returns the new revision. An error that is ErrTimeout or ErrConnectionLost leaves open whether the
// change was made, one that is ErrConflict that others were faster to the end of ctx. The options, the fate
// of a time to live, and the other errors are those of Put.
func (kv *KeyValue) Modify(ctx context.Context, key string, f func(old []byte) ([]byte, error), opts ...jetstream.KVCreateOpt) (uint64, error) {
	const op = "modify key"
	var w keyvalue.Write
	if err := checkWrite(ctx, kv, op, key, &w, opts); err != nil {
		return 0, err
	}
	if f == nil {
		return 0, fail(op, path(kv.bucket, key), ErrInvalidArgument, "the function is nil")
	}
	var own error
	revision, err := kv.keys.Modify(ctx, key, w.TTL, func(old []byte) (value []byte, err error) {
		value, own = f(old)
		return value, own
	})
	if own != nil {
		return 0, own
	}
	return revision, kv.wrap(op, key, err)
}

// Delete marks key as deleted and keeps its history. Deleting a key that does not exist is no
// error. With jetstream.LastRevision it returns a *ConflictError when key has another revision. A bucket
// that is full makes room for the mark with the history of the key. The other errors are those of Put.
func (kv *KeyValue) Delete(ctx context.Context, key string, opts ...jetstream.KVDeleteOpt) error {
	_, err := writeKey(ctx, kv, "delete key", key, nil, keyvalue.Write{Op: jetstream.KeyValueDelete}, opts)
	return err
}

// Purge is Delete that drops the history as well. With jetstream.PurgeTTL the mark is deleted after a
// time of whole seconds.
func (kv *KeyValue) Purge(ctx context.Context, key string, opts ...jetstream.KVDeleteOpt) error {
	_, err := writeKey(ctx, kv, "purge key", key, nil, keyvalue.Write{Op: jetstream.KeyValuePurge}, opts)
	return err
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
	if ctx == nil {
		return errNilContext(op, kv.bucket)
	}
	return kv.wrap(op, "", kv.keys.PurgeDeletes(ctx, age))
}

// purgeAge is how old a deletion is whose marker PurgeDeletes removes unless an option says otherwise.
const purgeAge = 30 * time.Minute

// Status asks the server for the bucket's configuration and size.
func (kv *KeyValue) Status(ctx context.Context) (jetstream.KeyValueStatus, error) {
	const op = "status of"
	status, err := statusOf(ctx, kv.client, op, kv.bucket, jetstream.JetStream.KeyValue)
	return status, kv.wrap(op, "", err)
}

// keyReports turns what no caller sees into log lines and events.
type keyReports struct{ c *Client }

func (r keyReports) Stale(keys string, err error) {
	r.c.totals.staleWatchers.Add(1)
	r.c.log.Warn("the watched keys may be out of date", append(fault.Attrs(err), "keys", keys)...)
	r.c.emit(Event{Type: EventWatchStale, Subject: keys, Err: err})
}

func (r keyReports) Fresh(keys string) {
	r.c.log.Info("the watched keys are up to date again", "keys", keys)
	r.c.emit(Event{Type: EventWatchFresh, Subject: keys})
}

func (r keyReports) Blind(bucket string, err error) {
	r.c.log.Warn("the state of the bucket may not be asked for, so a purge of it is not noticed", "bucket", bucket, "error", err)
}
