package main

import (
	"fmt"
	"runtime"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// held are things that wait, for nothing comes.
func held() (all []workload) {
	for _, n := range []int{100, 1000, 10_000} {
		for _, w := range []workload{subscriptions(), watchers(), consumptions()} {
			w.name, w.n, w.once, w.long = fmt.Sprintf("%d idle %s", n, w.name), n, n > 1000, n > 100
			w.idle = true
			all = append(all, w)
		}
	}
	return all
}

// holding begins n of them and looks, once they are there, at what each costs and at what they do while nothing happens.
// What a client makes once, for the first, is not counted.
func (r *round) holding(nc *natsgo.Conn, begin func()) {
	memory := func() float64 {
		runtime.GC()
		runtime.GC() // what pools held, goes with the second
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc + m.StackInuse)
	}
	first := max(1, r.n/10)
	for range first {
		begin()
	}
	time.Sleep(r.settle / 10)
	n := float64(r.n - first)
	goroutines, before, start := float64(runtime.NumGoroutine()), memory(), time.Now()
	for range r.n - first {
		begin()
	}
	r.check(nc.FlushTimeout(time.Minute))
	r.figures["begin µs each"] = float64(time.Since(start)) / 1e3 / n
	if r.begun != nil {
		r.begun()
	}
	time.Sleep(r.settle)
	r.figures["KiB each"] = (memory() - before) / 1024 / n
	r.figures["goroutines each"] = (float64(runtime.NumGoroutine()) - goroutines) / n
	messages, cpu := nc.Stats(), cpuTime()
	time.Sleep(r.hold)
	after := nc.Stats()
	r.figures["messages/s"] = float64(after.InMsgs+after.OutMsgs-messages.InMsgs-messages.OutMsgs) / r.hold.Seconds()
	r.figures["CPU ms/s"] = float64(cpuTime()-cpu) / 1e6 / r.hold.Seconds()
}

func subscriptions() workload {
	return workload{name: "subscriptions", sides: sides{
		"raw": func(r *round) {
			nc, _ := r.raw()
			r.holding(nc, func() {
				_, err := nc.Subscribe(unique(), func(*natsgo.Msg) {})
				r.check(err)
			})
		},
		"ours": func(r *round) {
			c := r.ours()
			r.holding(c.Conn(), func() {
				_, err := c.Subscribe(r.ctx, unique(), func(*nats.Message) error { return nil })
				r.check(err)
			})
		},
	}}
}

func watchers() workload {
	return workload{name: "watchers", sides: sides{
		"raw": func(r *round) {
			names := r.buckets()
			nc, js := r.raw()
			kv := spread(names, func(name string) jetstream.KeyValue {
				kv, err := js.KeyValue(r.ctx, name)
				r.check(err)
				return kv
			})
			r.holding(nc, func() {
				w, err := kv().Watch(r.ctx, key(0))
				r.check(err)
				r.first(w.Updates())
			})
		},
		"ours": func(r *round) {
			names := r.buckets()
			c := r.ours()
			kv := spread(names, func(name string) *nats.KeyValue {
				kv, err := c.GetKeyValue(r.ctx, name)
				r.check(err)
				return kv
			})
			r.holding(c.Conn(), func() {
				w, err := kv().Watch(r.ctx, key(0))
				r.check(err)
				r.first(w.Updates())
			})
		},
	}}
}

// first reads what a watcher reports of the present, and counts.
func (r *round) first(updates <-chan jetstream.KeyValueEntry) (n int) {
	for await(r, updates) != nil {
		n++
	}
	return n
}

// each is for how many of n there is a stream or bucket, which takes a thousand consumers.
const each = 500

// buckets end after the clients that are made later.
func (r *round) buckets() []string {
	names := make([]string, 1+r.n/each)
	for i := range names {
		own, _ := r.bucket(1)
		names[i] = own.Bucket()
	}
	return names
}

// spread opens all and returns one after the other.
func spread[T any](names []string, open func(name string) T) (next func() T) {
	all := make([]T, len(names))
	for i, name := range names {
		all[i] = open(name)
	}
	n := 0
	return func() T {
		n++
		return all[n/each]
	}
}

func (r *round) streams() (next func() string) {
	return spread(make([]string, 1+r.n/each), func(string) string { return r.stream() })
}

func consumptions() workload {
	return workload{name: "consumptions", sides: sides{
		"raw": func(r *round) {
			nc, js := r.raw()
			stream := r.streams()
			r.holding(nc, func() {
				consumer, err := js.CreateConsumer(r.ctx, stream(), jetstream.ConsumerConfig{Durable: unique(), AckPolicy: jetstream.AckExplicitPolicy})
				r.check(err)
				_, err = consumer.Consume(func(jetstream.Msg) {})
				r.check(err)
			})
		},
		"ours": func(r *round) {
			c, stream := r.ours(), r.streams()
			r.holding(c.Conn(), func() {
				_, err := c.Consume(r.ctx, stream(), unique(), func(*nats.Message) error { return nil },
					nats.WithConsumerConfig(&jetstream.ConsumerConfig{AckPolicy: jetstream.AckExplicitPolicy}))
				r.check(err)
			})
		},
	}}
}
