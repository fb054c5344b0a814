package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	watermillnats "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/nats"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// A workload is the same work, done by several sides.
type workload struct {
	name  string
	n     int    // operations in a round
	size  int    // bytes of payload of an operation
	line  string // what of the floor stands in the way of an operation: memcpy, oneWay or roundTrip
	long  bool   // not in a short run
	once  bool   // in the first round only
	idle  bool   // nothing happens, and others may look at that beside it
	sides sides
}

// sides are who does the work, by name: raw, ours, and the peers.
type sides map[string]func(*round)

// A round is one side's turn at a workload.
type round struct {
	ctx     context.Context
	url     string
	n       int
	figures map[string]float64
	ends    []func()

	settle, hold time.Duration // how long what is idle is left alone, and then looked at
	begun        func()        // what is idle is there
	left         bool          // what was begun ends with the process
}

// failure is what check panics with, and run returns.
type failure struct{ error }

// run has one side do its work, and ends what it began.
func (r *round) run(side func(*round)) error {
	r.figures = map[string]float64{}
	err := caught(func() { side(r) })
	if r.left {
		return err
	}
	for _, end := range slices.Backward(r.ends) {
		err = errors.Join(err, caught(end))
	}
	return err
}

// caught is what do fails with.
func caught(do func()) (err error) {
	defer func() {
		switch f := recover().(type) {
		case nil:
		case failure:
			err = f.error
		default:
			panic(f)
		}
	}()
	do()
	return nil
}

// check ends the round when there is an error. It belongs on the goroutine that runs the side.
func (r *round) check(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// atEnd has the round end with do, also when its own time is over.
func (r *round) atEnd(do func(context.Context) error) {
	r.ends = append(r.ends, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), time.Minute)
		defer cancel()
		r.check(do(ctx))
	})
}

// raw connects with nats.go alone.
func (r *round) raw() (*natsgo.Conn, jetstream.JetStream) {
	nc, err := natsgo.Connect(r.url)
	r.check(err)
	r.ends = append(r.ends, nc.Close)
	js, err := jetstream.New(nc)
	r.check(err)
	return nc, js
}

// ours connects with this library.
func (r *round) ours() *nats.Client {
	client, err := nats.NewClient(&nats.Config{URLs: []string{r.url}, JetStreamEnabled: true})
	r.check(err)
	r.ends = append(r.ends, func() { _ = client.Close() }) // what a side leaves unhandled is told here, and meant
	return client
}

// Names are those of this process, and counted.
var (
	process = "bench-" + strconv.Itoa(os.Getpid()) + "-"
	names   atomic.Int64
)

// unique makes a name for a subject, a stream or a bucket.
func unique() string { return process + strconv.FormatInt(names.Add(1), 36) }

// stream makes a stream of its own subject that has its name.
func (r *round) stream() string {
	_, js := r.raw()
	name := unique()
	_, err := js.CreateStream(r.ctx, jetstream.StreamConfig{
		Name: name, Subjects: []string{name}, Storage: jetstream.MemoryStorage, Duplicates: 10 * time.Second, AllowAtomicPublish: true, AllowBatchPublish: true,
	})
	r.check(err)
	r.atEnd(func(ctx context.Context) error { return js.DeleteStream(ctx, name) })
	return name
}

// filled is a stream that holds the round's messages, and some more, so that the last are not waited for, and a
// durable consumer of the same name.
func (r *round) filled() string {
	const more = 2000
	name := r.stream()
	_, js := r.raw()
	for range r.n + more {
		_, err := js.PublishMsgAsync(delivered(name, streamSize), jetstream.WithStallWait(time.Minute))
		r.check(err)
	}
	await(r, js.PublishAsyncComplete())
	info, err := js.CreateConsumer(r.ctx, name, jetstream.ConsumerConfig{
		Durable: name, AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: -1,
	})
	r.check(err)
	if stored := info.CachedInfo().NumPending; stored != uint64(r.n+more) {
		r.check(fmt.Errorf("%d messages of %d are stored", stored, r.n+more))
	}
	return name
}

// delivered is what comes, to all sides alike: watermill asks for its header.
func delivered(subject string, size int) *natsgo.Msg {
	return &natsgo.Msg{Subject: subject, Header: natsgo.Header{watermillnats.WatermillUUIDHdr: {"1"}}, Data: make([]byte, size)}
}

// usage is what the process has used up.
type usage struct {
	at            time.Time
	cpu           time.Duration
	allocs, bytes uint64
}

func used() usage {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{at: time.Now(), cpu: cpuTime(), allocs: m.Mallocs, bytes: m.TotalAlloc}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0 // it cannot fail for the process itself
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure has work do all operations of the round, and takes its time and what it used.
func (r *round) measure(work func()) {
	runtime.GC()
	before := used()
	work()
	took := time.Since(before.at)
	after := used()
	n := float64(r.n)
	r.figures["ns/op"] = float64(took) / n
	r.figures["CPU ns/op"] = float64(after.cpu-before.cpu) / n
	r.figures["B/op"] = float64(after.bytes-before.bytes) / n
	r.figures["allocs/op"] = float64(after.allocs-before.allocs) / n
}

// each measures n operations that follow one another.
func (r *round) each(op func() error) { r.flushed(op, func() error { return nil }) }

// flushed is each, and measures until flush returns as well. A tenth of the operations goes before, unmeasured, for
// connections grow their buffers with the first.
func (r *round) flushed(op, flush func() error) {
	several := func(n int) {
		for range n {
			r.check(op())
		}
		r.check(flush())
	}
	several(r.n / 10)
	r.measure(func() { several(r.n) })
}

// latencies is each, with the time of every operation.
func (r *round) latencies(op func() error) {
	took := make([]time.Duration, 0, r.n+r.n/10)
	r.each(func() error {
		start := time.Now()
		err := op()
		took = append(took, time.Since(start))
		return err
	})
	took = took[r.n/10:]
	slices.Sort(took)
	for name, share := range map[string]float64{"p50 µs": 0.5, "p99 µs": 0.99, "p99.9 µs": 0.999} {
		r.figures[name] = float64(took[int(share*float64(len(took)))]) / 1e3
	}
}

// callers measures n operations of that many goroutines at once.
func (r *round) callers(callers int, op func() error) {
	var next atomic.Int64
	failed := make(chan error, callers)
	r.measure(func() {
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				for next.Add(1) <= int64(r.n) {
					if err := op(); err != nil {
						failed <- err
						return
					}
				}
			})
		}
		wg.Wait()
	})
	select {
	case err := <-failed:
		r.check(err)
	default:
	}
}

// await waits for what comes through a channel, as long as the round lasts.
func await[T any](r *round, from <-chan T) (got T) {
	select {
	case got = <-from:
	case <-r.ctx.Done():
		r.check(context.Cause(r.ctx))
	}
	return got
}

// counted measures until handled has been called for every operation; begin starts what calls it.
func (r *round) counted(begin func(handled func())) {
	var count atomic.Int64
	done := make(chan struct{})
	r.measure(func() {
		begin(func() {
			if count.Add(1) == int64(r.n) {
				close(done)
			}
		})
		select {
		case <-done:
		case <-r.ctx.Done():
			r.check(fmt.Errorf("%d of %d: %w", count.Load(), r.n, context.Cause(r.ctx)))
		}
	})
}
