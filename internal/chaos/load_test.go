package chaos_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/chaos/check"
)

// holding is what a worker has opened by a client.
type holding struct {
	client      *nats.Client
	consumption *nats.Consumption
	keys, locks *nats.KeyValue
	watcher     *nats.KeyWatcher
	cache       *nats.KeyValueCache
	store       *nats.ObjectStore
	objects     jetstream.ObjectWatcher
}

// open tries each until it is there.
func (w *worker) open(ctx context.Context, client *nats.Client) (*holding, bool) {
	h := &holding{client: client}
	try := func(op, id string, f func(context.Context) error) bool {
		return w.until(ctx, op, id, 5*time.Second, f)
	}
	life := context.Background() // what is opened ends with its client
	return h, try("core/subscribe", "", func(context.Context) error {
		_, err := client.Subscribe(life, "core.*", w.receive)
		return err
	}) && try("core/subscribe", "", func(context.Context) error {
		_, err := client.HandleRequests(life, "echo", "echo", func(msg *nats.Message) ([]byte, error) {
			w.saw("core/serve", "", string(msg.Data), 0, 0)
			return msg.Data, nil
		})
		return err
	}) && try("consume/begin", "", func(context.Context) (err error) {
		h.consumption, err = client.Consume(life, check.Orders, check.Consumer, w.handle,
			nats.WithWorkers(8), nats.WithKey(func(msg *nats.Message) string { return msg.Subject }), nats.WithMaxDeliver(4),
			nats.WithBackoff(100*time.Millisecond, 500*time.Millisecond))
		return err
	}) && try("kv/open", "keys", func(ctx context.Context) (err error) {
		h.keys, err = client.GetKeyValue(ctx, "keys")
		return err
	}) && try("kv/watch", "", func(context.Context) (err error) {
		h.watcher, err = h.keys.WatchAll(life)
		return err
	}) && try("kv/cache", "", func(context.Context) (err error) {
		h.cache, err = h.keys.Cached(life)
		return err
	}) && try("locks/open", "locks", func(ctx context.Context) (err error) {
		h.locks, err = client.GetKeyValue(ctx, "locks")
		return err
	}) && try("objects/open", "files", func(ctx context.Context) (err error) {
		h.store, err = client.GetObjectStore(ctx, "files")
		return err
	}) && try("objects/watch", "", func(context.Context) (err error) {
		h.objects, err = h.store.Watch(life)
		return err
	})
}

// begin starts all loads.
func (w *worker) begin(ctx context.Context) {
	w.core(ctx)
	for i := range 2 {
		w.forever(ctx, 15*time.Millisecond, func(n int, random *rand.Rand) { w.publish(i, n, random) })
		w.forever(ctx, 50*time.Millisecond, func(_ int, random *rand.Rand) { w.lock(random) })
	}
	w.forever(ctx, 20*time.Millisecond, func(n int, random *rand.Rand) { w.own(n, random) })
	w.forever(ctx, 30*time.Millisecond, func(n int, random *rand.Rand) { w.shared(n, random) })
	w.forever(ctx, 100*time.Millisecond, func(_ int, random *rand.Rand) { w.useObjects(random) })
	go func() {
		for info := range w.objects.Updates() {
			if info != nil && info.Deleted {
				w.saw("objects/see", info.Name, check.Deleted, 0, 0)
			} else if info != nil {
				w.saw("objects/see", info.Name, info.NUID, 0, 0)
			}
		}
	}()
	go func() {
		for entry := range w.watcher.Updates() {
			if entry != nil {
				w.saw("kv/see", entry.Key(), "", entry.Revision(), 0)
			}
		}
	}()
}

// patience is little as often as much.
func patience(random *rand.Rand) time.Duration {
	return []time.Duration{200 * time.Millisecond, time.Second, 3 * time.Second, 8 * time.Second}[random.IntN(4)]
}

func (w *worker) receive(msg *nats.Message) error {
	n, err := strconv.ParseUint(string(msg.Data), 10, 64)
	w.saw("core/receive", msg.Subject, "", 0, n)
	return err
}

func (w *worker) core(ctx context.Context) {
	subject := "core." + w.Name[:2] + "_" + w.Name[3:]
	w.forever(ctx, 20*time.Millisecond, func(n int, random *rand.Rand) {
		_ = w.call("core/publish", subject, "", patience(random), func(ctx context.Context, r *check.Record) error {
			r.N = uint64(n)
			return w.client.Publish(ctx, subject, strconv.AppendInt(nil, int64(n), 10))
		})
	})
	w.forever(ctx, 30*time.Millisecond, func(n int, random *rand.Rand) {
		id := fmt.Sprint(w.Name, "-", n)
		_ = w.call("core/request", "", id, patience(random), func(ctx context.Context, _ *check.Record) error {
			answer, err := w.client.Request(ctx, "echo", []byte(id), time.Minute)
			if err == nil && string(answer.Data) != id {
				w.saw("core/serve", "", "another's answer "+string(answer.Data), 0, 0)
				return fmt.Errorf("another's answer: %s", answer.Data)
			}
			return err
		})
	})
}

// publish stores a message or some, each with a plan for its handler.
func (w *worker) publish(caller, n int, random *rand.Rand) {
	key := fmt.Sprint(w.Name, "-", caller, "-", random.IntN(4))
	id := fmt.Sprint(key, "-", n)
	message := func(i int) (*nats.Message, string) {
		plan := check.PlanOK
		switch p := random.IntN(100); {
		case p < 5:
			plan = check.PlanTwice
		case p < 6:
			plan = check.PlanAlways
		case p < 7:
			plan = check.PlanNever
		}
		one := fmt.Sprint(id, "/", i)
		return &nats.Message{Subject: "orders." + key, Data: check.Body(one, plan)}, one
	}
	limit := patience(random)
	switch way := random.IntN(20); way {
	case 0, 1: // a batch, atomic or not
		var msgs []*nats.Message
		var ids []string
		for i := range 5 {
			msg, one := message(i)
			msgs, ids = append(msgs, msg), append(ids, one)
		}
		w.batch(key, msgs, ids, limit, way == 0)
	case 2:
		msg, one := message(0)
		_ = w.call("stream/publish", key, one, limit, func(ctx context.Context, r *check.Record) error {
			future, err := w.client.PublishAsync(ctx, msg)
			if err != nil {
				return err
			}
			select {
			case ack := <-future.Ok():
				r.Seq = ack.Sequence
				return nil
			case err := <-future.Err():
				return err
			}
		})
	default:
		msg, one := message(0)
		_ = w.call("stream/publish", key, one, limit, func(ctx context.Context, r *check.Record) error {
			ack, err := w.client.PublishMsgToStream(ctx, msg)
			if err == nil {
				r.Seq = ack.Sequence
			}
			return err
		})
	}
}

// batch writes down the fate of each message. Those of a batch that is not atomic need not be in order.
func (w *worker) batch(key string, msgs []*nats.Message, ids []string, limit time.Duration, atomic bool) {
	acks, errs := make([]uint64, len(msgs)), make([]error, len(msgs))
	begin := time.Now()
	_ = w.call("stream/batch", key, "", limit, func(ctx context.Context, _ *check.Record) error {
		if atomic {
			ack, err := w.client.PublishAtomic(ctx, msgs)
			for i := range msgs {
				if errs[i] = err; err == nil && ack.Sequence > 0 { // a duplicate's may not be known
					acks[i] = ack.Sequence - uint64(len(msgs)-1-i)
				}
			}
			return err
		}
		all, err := w.client.PublishBatch(ctx, msgs)
		failed := (*nats.BatchError)(nil)
		if err != nil && !errors.As(err, &failed) {
			for i := range errs {
				errs[i] = err
			}
			return err
		}
		for i, ack := range all {
			if ack != nil {
				acks[i] = ack.Sequence
			}
		}
		if failed != nil {
			for _, one := range failed.Failed {
				errs[one.Index] = one.Err
			}
		}
		return err
	})
	for i := range msgs {
		r := check.Record{Op: "stream/publish", Key: key, ID: ids[i], Seq: acks[i], Begin: begin.UnixNano(), End: time.Now().UnixNano()}
		if r.Fate, r.Err = fate(errs[i]); atomic {
			r.N = 1
		} else {
			r.Key = ids[i]
		}
		w.write(r)
	}
}

func (w *worker) handle(msg *nats.Message) (err error) {
	meta, err := msg.Metadata()
	if err != nil {
		return err
	}
	id, plan := check.ReadBody(msg.Data)
	begin := time.Now()
	time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond) // the work
	switch {
	case plan == check.PlanNever:
		err = nats.Permanent(errPlanned)
	case plan == check.PlanAlways, plan == check.PlanTwice && meta.NumDelivered <= 2:
		err = errPlanned
	}
	r := check.Record{
		Op: "consume/handle", Key: msg.Subject, ID: id, Seq: meta.Sequence.Stream, N: meta.NumDelivered,
		Begin: begin.UnixNano(), End: time.Now().UnixNano(),
	}
	r.Fate, r.Err = fate(err)
	w.write(r)
	return err
}

// lock takes a lock, looks at it a while, and gives it back.
func (w *worker) lock(random *rand.Rand) {
	key := fmt.Sprint("lock", random.IntN(3))
	var lock *nats.Lock
	if w.call("locks/lock", key, "", patience(random), func(ctx context.Context, r *check.Record) (err error) {
		if lock, err = w.locks.Lock(ctx, key, check.Lease); err == nil {
			r.Seq = lock.Token()
		}
		return err
	}) != nil {
		return
	}
	for range random.IntN(40) {
		now := time.Now()
		if lock.Context().Err() != nil {
			break
		}
		r := check.Record{Op: "locks/look", Key: key, Seq: lock.Token(), Begin: now.UnixNano(), End: time.Now().UnixNano()}
		r.Stall = w.stalls.Between(now.Add(-20*time.Second), time.Now())
		w.write(r)
		time.Sleep(50 * time.Millisecond)
	}
	_ = w.call("locks/unlock", key, "", patience(random), func(ctx context.Context, _ *check.Record) error { return lock.Unlock(ctx) })
}

func (w *worker) useObjects(random *rand.Rand) {
	name, seed := fmt.Sprint("file", random.IntN(4)), random.Uint32()
	data := check.Content(uint64(seed), 1+random.IntN(100_000))
	switch p := random.IntN(20); {
	case p < 10:
		_ = w.call("objects/put", name, fmt.Sprint(seed), patience(random), func(ctx context.Context, _ *check.Record) error {
			meta := jetstream.ObjectMeta{
				Name: name, Description: fmt.Sprint(seed), Opts: &jetstream.ObjectMetaOptions{ChunkSize: 16 << 10},
			}
			_, err := w.store.Put(ctx, meta, &reader{data: data})
			return err
		})
	case p < 12:
		_ = w.call("objects/delete", name, "", patience(random), func(ctx context.Context, _ *check.Record) error {
			return w.store.Delete(ctx, name)
		})
	case p < 13:
		_ = w.call("objects/sweep", "", "", patience(random), func(ctx context.Context, _ *check.Record) error {
			_, err := w.store.Sweep(ctx, time.Minute)
			return err
		})
	default:
		_ = w.call("objects/get", name, "", patience(random), w.read)
	}
}

// dump is made when nothing is written any more.
func (w *worker) dump() {
	now := time.Now().UnixNano()
	r := check.Record{Op: "kv/dump", Begin: now, End: now}
	cached := map[string]uint64{}
	for key, entry := range w.cache.All() {
		cached[key] = entry.Revision()
	}
	if text, err := json.Marshal(cached); err == nil {
		r.ID = string(text)
	}
	if w.cache.Stale() {
		r.Err = "the cache is stale"
	}
	w.write(r)
	_ = w.call("objects/sweep", "", "", 20*time.Second, func(ctx context.Context, _ *check.Record) error {
		_, err := w.store.Sweep(ctx, time.Second)
		return err
	})
	w.compare()
}
