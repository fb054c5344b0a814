package kv

import (
	"context"
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

// Write is what a write demands and does beside its value.
type Write struct {
	Expect   bool // that the key's latest revision is this one:
	Revision uint64
	TTL      time.Duration        // 0 for none
	Op       jetstream.KeyValueOp // a value, or a deletion
}

// demand sets the header that makes the server look at the latest revision.
func (w Write) demand(header natsgo.Header) {
	header[jetstream.ExpectedLastSubjSeqHeader] = []string{strconv.FormatUint(w.Revision, 10)}
}

// Write publishes a write until it is stored, once, or refused, and returns the new revision. When the latest
// revision is not the expected one it is a *ConflictError.
func (b *Bucket) Write(ctx context.Context, key string, value []byte, w Write) (uint64, error) {
	header := make(natsgo.Header, 3)
	if w.Expect {
		w.demand(header)
	}
	if w.TTL > 0 {
		header[jetstream.MsgTTLHeader] = []string{w.TTL.String()}
	}
	switch w.Op {
	case jetstream.KeyValueDelete:
		header[operationHeader] = []string{operationDelete}
	case jetstream.KeyValuePurge:
		header[operationHeader] = []string{operationPurge}
		header[jetstream.MsgRollup] = []string{jetstream.MsgRollupSubject}
	}
	ctx, cancel := b.conn.Deadline(ctx)
	defer cancel()
	m := &natsgo.Msg{Subject: b.writePrefix + key, Header: header, Data: value}
	ack, doubted, err := b.publisher.Store(ctx, "", m)
	switch {
	case doubted:
	case errors.Is(err, fault.ErrStreamFull), w.Op != jetstream.KeyValuePut && fault.IsFull(err):
		ack, err = b.squeezed(ctx, key, m, w, err)
	case errors.Is(err, fault.ErrPayloadTooLarge): // with its ID; the limit is for the values of clients that send none
		if bare, failed := b.storeBare(ctx, m); !errors.Is(failed, fault.ErrPayloadTooLarge) {
			ack, err = bare, failed
		}
	}
	switch {
	case err == nil:
		return ack.Sequence, nil
	case w.Expect && fault.Kind(err) == fault.ErrConflict: //nolint:errorlint // a sentinel of our own table
		return 0, b.refused(ctx, key, w, doubted, err)
	case b.origin != "" && (errors.Is(err, natsgo.ErrNoResponders) || errors.Is(err, fault.ErrTimeout)):
		return 0, &fault.Error{Kind: fault.ErrTimeout, Cause: fmt.Errorf(
			"the mirror's writes go to bucket %q, which does not answer: %w", b.origin, err)}
	}
	return 0, err
}

// refused makes the error of a write whose expected revision is not the latest.
func (b *Bucket) refused(ctx context.Context, key string, w Write, doubted bool, err error) error {
	api, ok := errors.AsType[*jetstream.APIError](err)
	if !ok {
		return err
	}
	if doubted {
		// An earlier attempt may have been stored, and another write has replaced it since.
		return &fault.Error{Kind: fault.ErrTimeout, Cause: fault.Joined{conn.ErrUnanswered, api}}
	}
	conflict := &ConflictError{Expected: w.Revision, cause: api}
	if _, err := fmt.Sscanf(api.Description, lastSequenceText, &conflict.Revision); err != nil {
		if entry, err := b.Latest(ctx, key); err == nil {
			conflict.Revision = entry.Revision()
		}
	}
	return conflict
}

// lastSequenceText is how a server that is not in a cluster names the latest revision (nats-server,
// server/errors.json).
const lastSequenceText = "wrong last sequence: %d"

// Create sets a key that does not exist or was deleted, or returns jetstream.ErrKeyExists.
func (b *Bucket) Create(ctx context.Context, key string, value []byte, ttl time.Duration) (uint64, error) {
	absent := func(context.Context, string) (jetstream.KeyValueEntry, error) { return nil, jetstream.ErrKeyNotFound } // at first sight
	return b.contend(ctx, key, ttl, absent, func(latest jetstream.KeyValueEntry) ([]byte, error) {
		if latest != nil && !deleted(latest) {
			return nil, &fault.Error{Kind: fault.ErrAlreadyExists, Cause: jetstream.ErrKeyExists}
		}
		return value, nil
	})
}

// Modify sets a key to what f makes of its value, which is nil when there is none, and begins anew when another
// writer was faster. An error of f ends it and is returned as it is.
func (b *Bucket) Modify(ctx context.Context, key string, ttl time.Duration, f func(old []byte) ([]byte, error)) (uint64, error) {
	return b.contend(ctx, key, ttl, b.last, func(latest jetstream.KeyValueEntry) ([]byte, error) {
		if latest == nil || deleted(latest) {
			return f(nil)
		}
		return f(latest.Value())
	})
}

// The pauses after a lost race: random, up to a bound that doubles.
const (
	contendPause    = 2 * time.Millisecond
	contendPauseMax = 100 * time.Millisecond
)

// contend writes what next makes of the latest entry, which is nil when there is none, and begins again when
// another writer was faster, until ctx ends. The first entry is the one that first returns.
func (b *Bucket) contend(
	ctx context.Context, key string, ttl time.Duration,
	first func(context.Context, string) (jetstream.KeyValueEntry, error), next func(latest jetstream.KeyValueEntry) ([]byte, error),
) (uint64, error) {
	ctx, cancel := b.conn.Deadline(ctx)
	defer cancel()
	read := first
	for bound := contendPause; ; bound = min(2*bound, contendPauseMax) {
		w := Write{Expect: true, TTL: ttl}
		latest, err := read(ctx, key)
		switch {
		case errors.Is(err, jetstream.ErrKeyNotFound):
			latest = nil
		case err != nil:
			return 0, err
		default:
			w.Revision = latest.Revision()
		}
		value, err := next(latest)
		if err != nil {
			return 0, err
		}
		revision, err := b.Write(ctx, key, value, w)
		if _, overtaken := errors.AsType[*ConflictError](err); !overtaken || ctx.Err() != nil {
			return revision, err
		}
		if bound > contendPause { // the first time nothing may be known yet
			pause.Sleep(ctx, rand.N(bound)) //nolint:gosec // not a secret
		}
		read = b.Latest // a replica that lags would cost another race
	}
}
