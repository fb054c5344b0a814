package nats

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// What one request for many keys asks for: the server allows 1024 keys, and the request must not be
// larger than its max_payload.
const (
	manyKeys  = 512
	manyBytes = 64 << 10
)

// errIncomplete says that the server has not sent all messages that it was asked for.
var errIncomplete = errors.New("the answer is incomplete")

// GetMany returns the latest values of the keys, by key, in one round trip for some hundreds of them.
// Keys that do not exist are not in the map: none of them does is no error. The errors are those of
// Get. It needs server 2.11.
func (kv *KeyValue) GetMany(ctx context.Context, keys ...string) (map[string]jetstream.KeyValueEntry, error) {
	const op = "get keys"
	for _, key := range keys {
		if err := kv.checkKey(ctx, op, key); err != nil {
			return nil, err
		}
	}
	if ctx == nil {
		return nil, errNilContext(op, kv.bucket)
	}
	ctx, cancel := kv.client.deadline(ctx)
	defer cancel()
	entries := make(map[string]jetstream.KeyValueEntry, len(keys))
	most := min(manyBytes, int(kv.client.conn.MaxPayload())/2) // what is around the keys takes some, too
	for rest := keys; len(rest) > 0; {
		n, size := 0, 0
		for n < len(rest) && n < manyKeys && (n == 0 || size+len(kv.prefix)+len(rest[n]) < most) {
			size += len(kv.prefix) + len(rest[n])
			n++
		}
		if err := kv.getMany(ctx, rest[:n], entries); err != nil {
			return nil, kv.fault(op, "", err)
		}
		rest = rest[n:]
	}
	return entries, nil
}

// getMany adds the entries of keys, and asks again for what the server leaves out or what is lost.
func (kv *KeyValue) getMany(ctx context.Context, keys []string, entries map[string]jetstream.KeyValueEntry) error {
	if !kv.direct { // then only one at a time can be asked for
		for _, key := range keys {
			entry, err := kv.last(ctx, key)
			switch {
			case errors.Is(err, jetstream.ErrKeyNotFound):
			case err != nil:
				return err
			case !entry.deleted():
				entries[key] = entry
			}
		}
		return nil
	}
	c, done := kv.client, make(map[string]bool, len(keys))
	var last error
	for sending := 1; ; sending++ {
		if ctx.Err() != nil {
			return c.api.Unanswered(ctx, ErrTimeout, last)
		}
		if err := c.conn.Wait(ctx); err != nil {
			return c.api.Unanswered(ctx, err, last)
		}
		left := slices.DeleteFunc(slices.Clone(keys), func(key string) bool { return done[key] })
		if len(left) == 0 {
			return nil
		}
		err := kv.askMany(ctx, left, pause.Doubled(sending), func(entry *keyEntry) {
			done[entry.key] = true
			if !entry.deleted() {
				entries[entry.key] = entry
			}
		})
		switch {
		case err == nil, errors.Is(err, jetstream.ErrKeyNotFound):
			return nil
		case errors.Is(err, conn.ErrUnanswered), errors.Is(err, conn.ErrBroken), errors.Is(err, errIncomplete):
		case !jsapi.Passes(err):
			return err
		case c.api.Missing(ctx, kv.prefix+keys[0]):
			return jetstream.ErrStreamNotFound
		default:
			pause.Sleep(ctx, jsapi.Pause)
		}
		last = err
	}
}

// askMany asks once and takes the answers as they come.
func (kv *KeyValue) askMany(ctx context.Context, keys []string, patience time.Duration, take func(*keyEntry)) error {
	request := wire.Get{LastOf: make([]string, len(keys))}
	for i, key := range keys {
		request.LastOf[i] = kv.prefix + key
	}
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	c := kv.client
	ctx, leave := c.conn.WhileUp(ctx)
	defer leave()
	answers := make(chan *natsgo.Msg, len(keys)+1)
	inbox := c.nc.NewInbox()
	sub, err := c.conn.Subscribe(ctx, inbox, nil, answers)
	if err != nil {
		return err
	}
	defer c.conn.Unsubscribe(sub)
	if err := c.conn.Publish(ctx, c.api.Subject("DIRECT.GET."+kv.stream), inbox, nil, body); err != nil {
		return err
	}
	for {
		waiting, cancel := context.WithTimeout(ctx, patience)
		select {
		case m := <-answers:
			cancel()
			if complete, ends := wire.EndOfBatch(m); complete && ends {
				return nil
			} else if ends {
				return errIncomplete
			}
			entry, err := kv.directEntry(m)
			switch {
			case wire.Vanished(m):
				return errIncomplete
			case err != nil:
				return err
			}
			take(entry)
		case <-waiting.Done():
			cancel()
			if errors.Is(context.Cause(ctx), ErrConnectionLost) {
				return conn.ErrBroken
			}
			return conn.ErrUnanswered
		}
	}
}
