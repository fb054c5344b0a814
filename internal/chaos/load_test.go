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

// begin starts all loads.
func (w *worker) begin(ctx context.Context) {
	w.core(ctx)
	for i := range 2 {
		w.forever(ctx, 15*time.Millisecond, func(n int, random *rand.Rand) { w.publish(i, n, random) })
	}
	w.loads.Go(func() { w.consume(ctx) })
	w.loads.Go(func() { w.keys(ctx) })
	w.loads.Go(func() { w.locks(ctx) })
	w.loads.Go(func() { w.objects(ctx) })
}

// patience is little as often as much.
func patience(random *rand.Rand) time.Duration {
	return []time.Duration{200 * time.Millisecond, time.Second, 3 * time.Second, 8 * time.Second}[random.IntN(4)]
}

func (w *worker) core(ctx context.Context) {
	w.loads.Go(func() {
		until(ctx, func() error {
			return w.call("core/subscribe", "", "", 5*time.Second, func(call context.Context, _ *check.Record) error {
				_, err := w.client.Subscribe(context.WithoutCancel(call), "core.*", func(msg *nats.Message) error {
					n, err := strconv.ParseUint(string(msg.Data), 10, 64)
					w.saw("core/receive", msg.Subject, "", 0, n)
					return err
				})
				return err
			})
		})
		until(ctx, func() error {
			return w.call("core/subscribe", "", "", 5*time.Second, func(call context.Context, _ *check.Record) error {
				_, err := w.client.HandleRequests(context.WithoutCancel(call), "echo", "echo", func(msg *nats.Message) ([]byte, error) {
					w.saw("core/serve", "", string(msg.Data), 0, 0)
					return msg.Data, nil
				})
				return err
			})
		})
	})
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
				if errs[i] = err; err == nil {
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

func (w *worker) consume(ctx context.Context) {
	until(ctx, func() error {
		return w.call("consume/begin", "", "", 5*time.Second, func(call context.Context, _ *check.Record) error {
			_, err := w.client.Consume(context.WithoutCancel(call), check.Orders, check.Consumer, w.handle,
				nats.WithWorkers(8), nats.WithKey(func(msg *nats.Message) string { return msg.Subject }), nats.WithMaxDeliver(4),
				nats.WithBackoff(100*time.Millisecond, 500*time.Millisecond))
			return err
		})
	})
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

// bucket opens a bucket.
func bucket[B any](ctx context.Context, w *worker, op string, open func(context.Context, string) (B, error), name string) (b B, ok bool) {
	ok = until(ctx, func() error {
		return w.call(op, "", name, 5*time.Second, func(ctx context.Context, _ *check.Record) (err error) {
			b, err = open(ctx, name)
			return err
		})
	})
	return b, ok
}

func (w *worker) locks(ctx context.Context) {
	kv, ok := bucket(ctx, w, "locks/open", w.client.GetKeyValue, "locks")
	if !ok {
		return
	}
	for range 2 {
		w.forever(ctx, 50*time.Millisecond, func(_ int, random *rand.Rand) {
			key := fmt.Sprint("lock", random.IntN(3))
			var lock *nats.Lock
			if w.call("locks/lock", key, "", patience(random), func(ctx context.Context, r *check.Record) (err error) {
				if lock, err = kv.Lock(ctx, key, 2*time.Second); err == nil {
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
				w.write(check.Record{
					Op: "locks/look", Key: key, Seq: lock.Token(), Begin: now.UnixNano(), End: time.Now().UnixNano(),
					Stall: w.stalls.between(now.Add(-20*time.Second), time.Now()),
				})
				time.Sleep(50 * time.Millisecond)
			}
			_ = w.call("locks/unlock", key, "", patience(random), func(ctx context.Context, _ *check.Record) error { return lock.Unlock(ctx) })
		})
	}
}

func (w *worker) objects(ctx context.Context) {
	store, ok := bucket(ctx, w, "objects/open", w.client.GetObjectStore, "files")
	if !ok {
		return
	}
	w.mu.Lock()
	w.store = store
	w.mu.Unlock()
	w.forever(ctx, 100*time.Millisecond, func(_ int, random *rand.Rand) {
		name, seed := fmt.Sprint("file", random.IntN(4)), random.Uint32()
		data := check.Content(uint64(seed), 1+random.IntN(100_000))
		switch p := random.IntN(20); {
		case p < 10:
			_ = w.call("objects/put", name, fmt.Sprint(seed), patience(random), func(ctx context.Context, _ *check.Record) error {
				meta := jetstream.ObjectMeta{
					Name: name, Description: fmt.Sprint(seed), Opts: &jetstream.ObjectMetaOptions{ChunkSize: 16 << 10},
				}
				_, err := store.Put(ctx, meta, &reader{data: data})
				return err
			})
		case p < 12:
			_ = w.call("objects/delete", name, "", patience(random), func(ctx context.Context, _ *check.Record) error {
				return store.Delete(ctx, name)
			})
		case p < 13:
			_ = w.call("objects/sweep", "", "", patience(random), func(ctx context.Context, _ *check.Record) error {
				_, err := store.Sweep(ctx, time.Minute)
				return err
			})
		default:
			_ = w.call("objects/get", name, "", patience(random), func(ctx context.Context, r *check.Record) error {
				return w.read(ctx, store, r)
			})
		}
	})
}

// dump is made when nothing is written any more.
func (w *worker) dump() {
	now := time.Now().UnixNano()
	r := check.Record{Op: "kv/dump", Begin: now, End: now}
	w.mu.Lock()
	cache, store := w.cache, w.store
	w.mu.Unlock()
	if cache == nil || store == nil {
		r.Err = "the worker has not come to its buckets"
	} else {
		cached := map[string]uint64{}
		for key, entry := range cache.All() {
			cached[key] = entry.Revision()
		}
		if text, err := json.Marshal(cached); err == nil {
			r.ID = string(text)
		}
		if cache.Stale() {
			r.Err = "the cache is stale"
		}
		_ = w.call("objects/sweep", "", "", 20*time.Second, func(ctx context.Context, _ *check.Record) error {
			_, err := store.Sweep(ctx, time.Second)
			return err
		})
	}
	w.write(r)
}
