package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

func stores() []workload {
	all := []workload{putting(), getting(), reading(), cached()}
	for _, o := range []struct{ size, n int }{{1 << 10, 500}, {1 << 20, 50}, {16 << 20, 4}} {
		all = append(all, uploading(o.size, o.n), downloading(o.size, o.n))
	}
	const huge = 1 << 30
	for _, w := range []workload{uploading(huge, 1), downloading(huge, 1)} {
		w.once, w.long = true, true
		all = append(all, w)
	}
	return all
}

// bucket makes a bucket with that many keys, and hands it out both ways.
func (r *round) bucket(keys int) (*nats.KeyValue, jetstream.KeyValue) {
	c, name := r.ours(), unique()
	kv, err := c.CreateKeyValue(r.ctx, name, nats.WithKeyValueStorage(jetstream.MemoryStorage))
	r.check(err)
	r.atEnd(func(ctx context.Context) error { return c.DeleteKeyValue(ctx, name) })
	msgs := func(yield func(*nats.Message) bool) {
		for i := range keys {
			if !yield(&nats.Message{Subject: "$KV." + name + "." + key(i), Data: make([]byte, streamSize)}) {
				return
			}
		}
	}
	for _, err := range c.PublishSeq(r.ctx, msgs) {
		r.check(err)
	}
	_, js := r.raw()
	upstream, err := js.KeyValue(r.ctx, name)
	r.check(err)
	return kv, upstream
}

func key(i int) string { return fmt.Sprintf("service.%05d", i) }

func putting() workload {
	data := make([]byte, streamSize)
	return workload{name: "key-value put", n: 5000, size: streamSize, line: roundTrip, sides: sides{
		"raw": func(r *round) {
			_, kv := r.bucket(0)
			r.each(func() error { _, err := kv.Put(r.ctx, "key", data); return err })
		},
		"ours": func(r *round) {
			kv, _ := r.bucket(0)
			r.each(func() error { _, err := kv.Put(r.ctx, "key", data); return err })
		},
	}}
}

func getting() workload {
	one := key(0)
	return workload{name: "key-value get", n: 5000, size: streamSize, line: roundTrip, sides: sides{
		"raw": func(r *round) {
			_, kv := r.bucket(1)
			r.each(func() error { _, err := kv.Get(r.ctx, one); return err })
		},
		"ours": func(r *round) {
			kv, _ := r.bucket(1)
			r.each(func() error { _, err := kv.Get(r.ctx, one); return err })
		},
	}}
}

// reading reads all keys of a bucket with their values.
func reading() workload {
	return workload{name: "key-value all, 10,000 keys", n: 10_000, size: streamSize, line: oneWay, sides: sides{
		"raw": func(r *round) {
			_, kv := r.bucket(r.n)
			r.measure(func() {
				w, err := kv.WatchAll(r.ctx, jetstream.IgnoreDeletes())
				r.check(err)
				r.check(whole(r.first(w.Updates()), r.n))
				r.check(w.Stop())
			})
		},
		"ours": func(r *round) {
			kv, _ := r.bucket(r.n)
			r.measure(func() { r.check(allOf(kv.All(r.ctx), r.n)) })
		},
		"orbit": func(r *round) { // all that the stream holds are the keys as long as none was deleted
			_, js := r.raw()
			own, _ := r.bucket(r.n)
			r.measure(func() {
				all, err := jetstreamext.GetBatch(r.ctx, js, "KV_"+own.Bucket(), r.n)
				r.check(err)
				r.check(allOf(all, r.n))
			})
		},
	}}
}

// cached reads from memory what a watcher keeps there: raw, from a map.
func cached() workload {
	const keys = 1000
	one := key(keys / 2)
	return workload{name: "key-value get, cached", n: 500_000, size: streamSize, line: memcpy, sides: sides{
		"raw": func(r *round) {
			_, kv := r.bucket(keys)
			w, err := kv.WatchAll(r.ctx)
			r.check(err)
			var mu sync.RWMutex
			present, held := make(chan struct{}), map[string]jetstream.KeyValueEntry{}
			go func() {
				for entry := range w.Updates() {
					if entry == nil {
						close(present)
						continue
					}
					mu.Lock()
					held[entry.Key()] = entry
					mu.Unlock()
				}
			}()
			await(r, present)
			r.each(func() error {
				mu.RLock()
				defer mu.RUnlock()
				if held[one] == nil {
					return jetstream.ErrKeyNotFound
				}
				return nil
			})
			r.check(w.Stop())
		},
		"ours": func(r *round) {
			kv, _ := r.bucket(keys)
			cache, err := kv.Cached(r.ctx)
			r.check(err)
			r.each(func() error { _, err := cache.Get(one); return err })
			r.check(cache.Close())
		},
	}}
}

// objects makes an object store, and hands it out both ways.
func (r *round) objects() (*nats.ObjectStore, jetstream.ObjectStore) {
	c, name := r.ours(), unique()
	own, err := c.CreateObjectStore(r.ctx, name)
	r.check(err)
	r.atEnd(func(ctx context.Context) error { return c.DeleteObjectStore(ctx, name) })
	_, js := r.raw()
	upstream, err := js.ObjectStore(r.ctx, name)
	r.check(err)
	return own, upstream
}

// zeros is an object of that size that is nowhere in memory.
func zeros(size int) io.Reader { return io.LimitReader(zero{}, int64(size)) }

type zero struct{}

func (zero) Read(p []byte) (int, error) { return len(p), nil }

// uploading replaces one object again and again.
func uploading(size, n int) workload {
	meta := jetstream.ObjectMeta{Name: "object"}
	return workload{name: "object put, " + bytesText(size), n: n, size: size, line: oneWay, sides: sides{
		"raw": func(r *round) {
			_, store := r.objects()
			r.peak(func() error { _, err := store.Put(r.ctx, meta, zeros(size)); return err })
		},
		"ours": func(r *round) {
			store, _ := r.objects()
			r.peak(func() error { _, err := store.Put(r.ctx, meta, zeros(size)); return err })
		},
	}}
}

func downloading(size, n int) workload {
	// read reads as most do, in pieces, to the end that says whether the object was whole.
	read := func(result jetstream.ObjectResult, err error) error {
		if err != nil {
			return err
		}
		got, err := io.Copy(io.Discard, onlyReader{result})
		if err == nil {
			err = whole(int(got), size)
		}
		if closed := result.Close(); err == nil {
			err = closed
		}
		return err
	}
	return workload{name: "object get, " + bytesText(size), n: n, size: size, line: oneWay, sides: sides{
		"raw": func(r *round) {
			_, store := r.objects()
			r.put(store, size)
			r.peak(func() error { return read(store.Get(r.ctx, "object")) })
		},
		"ours": func(r *round) {
			store, upstream := r.objects()
			r.put(upstream, size)
			r.peak(func() error { return read(store.Get(r.ctx, "object")) })
		},
	}}
}

func (r *round) put(store jetstream.ObjectStore, size int) {
	_, err := store.Put(r.ctx, jetstream.ObjectMeta{Name: "object"}, zeros(size))
	r.check(err)
}

// peak is each, with the most memory that was in use meanwhile.
func (r *round) peak(op func() error) {
	debug.FreeOSMemory()
	quit, most := make(chan struct{}), make(chan uint64)
	go func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		peak := uint64(0)
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
			select {
			case <-tick.C:
			case <-quit:
				most <- peak
				return
			}
		}
	}()
	defer func() {
		close(quit)
		r.figures["peak MiB"] = float64(<-most) / (1 << 20)
	}()
	r.each(op)
}

// bytesText is a size as one reads it.
func bytesText(n int) string {
	for _, unit := range []string{"B", "KiB", "MiB"} {
		if n < 1<<10 {
			return fmt.Sprintf("%d %s", n, unit)
		}
		n >>= 10
	}
	return fmt.Sprintf("%d GiB", n)
}
