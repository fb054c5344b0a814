package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
)

// keyWrite is what a write demands and does beside its value.
type keyWrite struct {
	expect   bool // that the key's latest revision is this one:
	revision uint64
	ttl      time.Duration // 0 for none
	delete   string        // the value of kvOperationHeader
}

// demand sets the header that makes the server look at the latest revision.
func (w keyWrite) demand(header natsgo.Header) {
	header[jetstream.ExpectedLastSubjSeqHeader] = []string{strconv.FormatUint(w.revision, 10)}
}

// write publishes a write until it is stored or refused, and returns the new revision: stored once, as
// Client.PublishToStream has it.
func (kv *KeyValue) write(ctx context.Context, op, key string, value []byte, w keyWrite) (uint64, error) {
	if err := kv.checkKey(ctx, op, key); err != nil {
		return 0, err
	}
	c := kv.client
	header := make(natsgo.Header, 3)
	if w.expect {
		w.demand(header)
	}
	if w.ttl > 0 {
		header[jetstream.MsgTTLHeader] = []string{w.ttl.String()}
	}
	if w.delete != "" {
		header[kvOperationHeader] = []string{w.delete}
	}
	if w.delete == kvOperationPurge {
		header[jetstream.MsgRollup] = []string{jetstream.MsgRollupSubject}
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	m := &natsgo.Msg{Subject: kv.writePrefix + key, Header: header, Data: value}
	ack, doubted, err := c.publisher.Store(ctx, op, m)
	if !doubted && errors.Is(err, ErrStreamFull) {
		ack, err = kv.squeezed(ctx, op, key, m, w, err)
	}
	switch {
	case err == nil:
		return ack.Sequence, nil
	case w.expect && fault.Kind(err) == ErrConflict: //nolint:errorlint // a sentinel of our own table
		return 0, kv.refused(ctx, op, key, w, doubted, err)
	case kv.origin != "" && (errors.Is(err, natsgo.ErrNoResponders) || errors.Is(err, ErrTimeout)):
		return 0, &fault.Error{Op: op, Target: path(kv.bucket, key), Kind: ErrTimeout, Cause: fmt.Errorf(
			"the mirror's writes go to bucket %q, which does not answer: %w", kv.origin, err)}
	}
	return 0, kv.fault(op, key, err)
}

// refused makes the error of a write whose expected revision is not the latest.
func (kv *KeyValue) refused(ctx context.Context, op, key string, w keyWrite, doubted bool, err error) error {
	var api *jetstream.APIError
	if !errors.As(err, &api) {
		return kv.fault(op, key, err)
	}
	target := path(kv.bucket, key)
	if doubted {
		// An earlier attempt may have been stored, and another write has replaced it since.
		return &fault.Error{Op: op, Target: target, Kind: ErrTimeout, Cause: fault.Joined{conn.ErrUnanswered, api}}
	}
	conflict := &ConflictError{Bucket: kv.bucket, Key: key, Expected: w.revision, cause: api}
	if _, err := fmt.Sscanf(api.Description, lastSequenceText, &conflict.Revision); err != nil {
		if entry, err := kv.latest(ctx, key); err == nil {
			conflict.Revision = entry.revision
		}
	}
	return &fault.Error{Op: op, Target: target, Cause: conflict}
}

// lastSequenceText is how a server that is not in a cluster names the latest revision (nats-server,
// server/errors.json).
const lastSequenceText = "wrong last sequence: %d"

// Put sets key and returns the new revision. A nil error means written once: a write is repeated under
// the same message ID, over restarts, elections and lost answers, until ctx ends. Then the error is
// ErrNotConnected when nothing was sent, and ErrTimeout or ErrConnectionLost when the write may or may
// not be stored. The others are ErrBucketNotFound, ErrPayloadTooLarge, ErrStreamFull for a bucket that
// has no room, and ErrInvalidArgument for a bad key.
//
// With jetstream.KeyTTL the key is deleted after a time of whole seconds, as Create has it. Without it the
// value stays, also where the one before had a time: a time belongs to a value and not to its key.
func (kv *KeyValue) Put(ctx context.Context, key string, value []byte, opts ...jetstream.KVCreateOpt) (uint64, error) {
	return kv.writeFor(ctx, "put key", key, value, keyWrite{}, opts)
}

// writeFor is write with the options of who writes a value.
func (kv *KeyValue) writeFor(ctx context.Context, op, key string, value []byte, w keyWrite, opts []jetstream.KVCreateOpt) (uint64, error) {
	var err error
	if w.ttl, err = kv.ttlOf(op, key, opts); err != nil {
		return 0, err
	}
	return kv.write(ctx, op, key, value, w)
}

// ttlOf returns the time to live that the options give.
func (kv *KeyValue) ttlOf(op, key string, opts []jetstream.KVCreateOpt) (ttl time.Duration, err error) {
	if len(opts) == 0 {
		return 0, nil
	}
	if err := readOptions(opts, map[string]any{"ttl": &ttl}); err != nil {
		return 0, fail(op, path(kv.bucket, key), ErrInvalidArgument, "%w", err)
	}
	return ttl, kv.checkTTL(op, key, ttl)
}

// PutString is Put of a string.
func (kv *KeyValue) PutString(ctx context.Context, key, value string, opts ...jetstream.KVCreateOpt) (uint64, error) {
	return kv.Put(ctx, key, []byte(value), opts...)
}

// PutJSON is Put of the JSON of v. What cannot be encoded is ErrInvalidArgument.
func (kv *KeyValue) PutJSON(ctx context.Context, key string, v any, opts ...jetstream.KVCreateOpt) (uint64, error) {
	const op = "put key"
	data, err := json.Marshal(v)
	if err != nil {
		return 0, fail(op, path(kv.bucket, key), ErrInvalidArgument, "%w", err)
	}
	return kv.writeFor(ctx, op, key, data, keyWrite{}, opts)
}

// Create sets key only if it does not exist or was deleted, and returns the new revision; otherwise
// it returns ErrAlreadyExists. With jetstream.KeyTTL the key is deleted after a time of whole seconds:
// the bucket must allow it, see WithKeyTTLs. The other errors are those of Put.
func (kv *KeyValue) Create(ctx context.Context, key string, value []byte, opts ...jetstream.KVCreateOpt) (uint64, error) {
	const op = "create key"
	ttl, err := kv.ttlOf(op, key, opts)
	if err != nil {
		return 0, err
	}
	absent := func(context.Context, string) (*keyEntry, error) { return nil, jetstream.ErrKeyNotFound } // at first sight
	return kv.contend(ctx, op, key, ttl, absent, func(latest *keyEntry) ([]byte, error) {
		if latest != nil && !latest.deleted() {
			return nil, &fault.Error{Op: op, Target: path(kv.bucket, key), Kind: ErrAlreadyExists, Cause: jetstream.ErrKeyExists}
		}
		return value, nil
	})
}

// checkTTL refuses a time to live that the server would round: it counts in seconds.
func (kv *KeyValue) checkTTL(op, key string, ttl time.Duration) error {
	if ttl < 0 || ttl%time.Second != 0 {
		return fail(op, path(kv.bucket, key), ErrInvalidArgument, "a time to live must be of whole seconds, not %v", ttl)
	}
	return nil
}

// Update sets key only if its latest revision is the given one, and returns the new revision;
// otherwise it returns a *ConflictError with the latest one, which is ErrConflict. A revision of 0 is
// that of a key that has never been, or whose deletion is forgotten. The options, the fate of a time to
// live, and the other errors are those of Put.
func (kv *KeyValue) Update(ctx context.Context, key string, value []byte, revision uint64, opts ...jetstream.KVCreateOpt) (uint64, error) {
	return kv.writeFor(ctx, "update key", key, value, keyWrite{expect: true, revision: revision}, opts)
}

// Delete marks key as deleted and keeps its history. Deleting a key that does not exist is no
// error. With jetstream.LastRevision it returns a *ConflictError when key has another revision. A bucket
// that is full makes room for the mark with the history of the key. The other errors are those of Put.
func (kv *KeyValue) Delete(ctx context.Context, key string, opts ...jetstream.KVDeleteOpt) error {
	return kv.remove(ctx, "delete key", key, kvOperationDelete, opts)
}

// Purge is Delete that drops the history as well. With jetstream.PurgeTTL the mark is deleted after a
// time of whole seconds.
func (kv *KeyValue) Purge(ctx context.Context, key string, opts ...jetstream.KVDeleteOpt) error {
	return kv.remove(ctx, "purge key", key, kvOperationPurge, opts)
}

func (kv *KeyValue) remove(ctx context.Context, op, key, operation string, opts []jetstream.KVDeleteOpt) error {
	w := keyWrite{delete: operation}
	var purge bool
	err := readOptions(opts, map[string]any{"revision": &w.revision, "ttl": &w.ttl, "purge": &purge})
	if err == nil && w.ttl > 0 && operation == kvOperationDelete {
		err = jetstream.ErrTTLOnDeleteNotSupported
	}
	if err != nil {
		return fail(op, path(kv.bucket, key), ErrInvalidArgument, "%w", err)
	}
	if err := kv.checkTTL(op, key, w.ttl); err != nil {
		return err
	}
	w.expect = w.revision != 0
	_, err = kv.write(ctx, op, key, nil, w)
	return err
}

// Modify sets key to what f makes of its value, and begins again with the new value when another
// writer was faster, until ctx ends: no change is lost. The value is nil when there is none. An error
// of f ends it and is returned as it is; f must not change old and may be called many times. Modify
// returns the new revision. An error that is ErrTimeout or ErrConnectionLost leaves open whether the
// change was made. The options, the fate of a time to live, and the other errors are those of Put.
func (kv *KeyValue) Modify(ctx context.Context, key string, f func(old []byte) ([]byte, error), opts ...jetstream.KVCreateOpt) (uint64, error) {
	const op = "modify key"
	if err := kv.checkKey(ctx, op, key); err != nil {
		return 0, err
	}
	if f == nil {
		return 0, fail(op, path(kv.bucket, key), ErrInvalidArgument, "the function is nil")
	}
	ttl, err := kv.ttlOf(op, key, opts)
	if err != nil {
		return 0, err
	}
	return kv.contend(ctx, op, key, ttl, kv.last, func(latest *keyEntry) ([]byte, error) {
		if latest == nil || latest.deleted() {
			return f(nil)
		}
		return f(latest.value)
	})
}

// The pauses after a lost race: random, up to a bound that doubles.
const (
	contendPause    = 2 * time.Millisecond
	contendPauseMax = 100 * time.Millisecond
)

// contend writes what next makes of the latest entry, which is nil when there is none, and begins again when
// another writer was faster, until ctx ends. The first entry is the one that first returns.
func (kv *KeyValue) contend(
	ctx context.Context, op, key string, ttl time.Duration,
	first func(context.Context, string) (*keyEntry, error), next func(latest *keyEntry) ([]byte, error),
) (uint64, error) {
	if err := kv.checkKey(ctx, op, key); err != nil {
		return 0, err
	}
	ctx, cancel := kv.client.deadline(ctx)
	defer cancel()
	read := first
	for bound := contendPause; ; bound = min(2*bound, contendPauseMax) {
		w := keyWrite{expect: true, ttl: ttl}
		latest, err := read(ctx, key)
		switch {
		case errors.Is(err, jetstream.ErrKeyNotFound):
			latest = nil
		case err != nil:
			return 0, kv.fault(op, key, err)
		default:
			w.revision = latest.revision
		}
		value, err := next(latest)
		if err != nil {
			return 0, err
		}
		revision, err := kv.write(ctx, op, key, value, w)
		var conflict *ConflictError
		if !errors.As(err, &conflict) || ctx.Err() != nil {
			return revision, err
		}
		if bound > contendPause { // the first time nothing may be known yet
			pause.Sleep(ctx, rand.N(bound)) //nolint:gosec // not a secret
		}
		read = kv.latest // a replica that lags would cost another race
	}
}
