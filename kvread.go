package nats

import (
	"context"
	"encoding/json"
	"errors"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// Get returns the latest value of key. It returns ErrKeyNotFound when there is none or it was
// deleted, and ErrInvalidArgument for a key that cannot be: keys are tokens of letters, digits and
// -/_= joined by dots. While disconnected it waits for the connection, and an answer that is lost is
// asked for again, until ctx ends: then it is ErrNotConnected or ErrTimeout. Any replica answers: right
// after a write, one that lags can return the value before.
func (kv *KeyValue) Get(ctx context.Context, key string) (jetstream.KeyValueEntry, error) {
	const op = "get key"
	if err := kv.checkKey(ctx, op, key); err != nil {
		return nil, err
	}
	ctx, cancel := kv.client.deadline(ctx)
	defer cancel()
	entry, err := kv.last(ctx, key)
	if err == nil && entry.deleted() {
		err = jetstream.ErrKeyNotFound
	}
	if err != nil {
		return nil, kv.fault(op, key, err)
	}
	return entry, nil
}

// GetRevision returns the value that key had at a revision, or ErrKeyNotFound. The other errors are
// those of Get.
func (kv *KeyValue) GetRevision(ctx context.Context, key string, revision uint64) (jetstream.KeyValueEntry, error) {
	const op = "get key"
	if revision == 0 {
		return kv.Get(ctx, key)
	}
	if err := kv.checkKey(ctx, op, key); err != nil {
		return nil, err
	}
	ctx, cancel := kv.client.deadline(ctx)
	defer cancel()
	entry, err := kv.ask(ctx, key, wire.Get{Sequence: revision})
	if err == nil && (entry.deleted() || entry.key != key) {
		err = jetstream.ErrKeyNotFound
	}
	if err != nil {
		return nil, kv.fault(op, key, err)
	}
	return entry, nil
}

// last returns the latest entry of key, which may be its deletion, or jetstream.ErrKeyNotFound.
func (kv *KeyValue) last(ctx context.Context, key string) (*keyEntry, error) {
	if !kv.direct {
		return kv.latest(ctx, key)
	}
	return kv.request(ctx, kv.prefix+key, kv.getPrefix+key, nil, kv.directEntry)
}

// latest is last as the leader knows it.
func (kv *KeyValue) latest(ctx context.Context, key string) (*keyEntry, error) {
	return kv.asked(ctx, key, "STREAM.MSG.GET.", wire.Get{LastFor: kv.prefix + key}, kv.storedEntry)
}

func (kv *KeyValue) ask(ctx context.Context, key string, body wire.Get) (*keyEntry, error) {
	if !kv.direct {
		return kv.asked(ctx, key, "STREAM.MSG.GET.", body, kv.storedEntry)
	}
	return kv.asked(ctx, key, "DIRECT.GET.", body, kv.directEntry)
}

func (kv *KeyValue) asked(ctx context.Context, key, verb string, body wire.Get, parse func(*natsgo.Msg) (*keyEntry, error)) (*keyEntry, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	return kv.request(ctx, kv.prefix+key, kv.client.api.Subject(verb+kv.stream), data, parse)
}

// request asks the server for an entry until it answers or ctx ends, which must have a deadline.
func (kv *KeyValue) request(ctx context.Context, subject, api string, body []byte, parse func(*natsgo.Msg) (*keyEntry, error)) (*keyEntry, error) {
	entry, _, end, err := jsapi.Send(ctx, kv.client.api, &natsgo.Msg{Subject: api, Data: body}, subject, parse)
	if end != nil {
		return nil, kv.client.api.Unanswered(ctx, end, err)
	}
	return entry, err
}

// directEntry reads a message that a replica sent.
func (kv *KeyValue) directEntry(m *natsgo.Msg) (*keyEntry, error) {
	return kv.found(wire.ParseDirect(m))
}

// storedEntry reads a message that the leader sent.
func (kv *KeyValue) storedEntry(m *natsgo.Msg) (*keyEntry, error) {
	return kv.found(wire.ParseStored(m))
}

func (kv *KeyValue) found(m wire.Stored, err error) (*keyEntry, error) {
	switch {
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return nil, jetstream.ErrKeyNotFound
	case err != nil:
		return nil, err
	}
	e := &keyEntry{kv: kv, value: m.Data, revision: m.Sequence, lifetime: lifetime{created: m.Time.UnixNano()}, operation: operationOf(m.Header)}
	if len(m.Subject) > len(kv.prefix) {
		e.key = m.Subject[len(kv.prefix):]
	}
	return e, nil
}
