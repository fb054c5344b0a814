package nats_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// Publishing to streams. Every message has an ID, on both sides: without one a retry stores it twice.

var benchStorages = []jetstream.StorageType{jetstream.MemoryStorage, jetstream.FileStorage}

// eachStream calls f for every storage and size with the subject of a fresh stream.
func (x *bench) eachStream(b *testing.B, f func(prefix, subject string, data []byte)) {
	b.Helper()
	for _, storage := range benchStorages {
		name := "BENCH_" + storage.String()
		_, err := x.client.CreateStream(context.Background(), &jetstream.StreamConfig{
			Name: name, Subjects: []string{name}, Storage: storage, MaxMsgs: 10_000, Duplicates: 10 * time.Second,
		})
		require.NoError(b, err)
		for _, size := range []int{128, 1 << 10} {
			f(fmt.Sprintf("storage=%s/size=%d/", storage, size), name, make([]byte, size))
		}
	}
}

// ids makes message IDs as cheaply as the client does.
func ids() func() string {
	prefix, n := rand.Text()[:16]+".", uint64(0)
	return func() string {
		n++
		id := make([]byte, 0, 64)
		return string(strconv.AppendUint(append(id, prefix...), n, 36))
	}
}

func BenchmarkPublishToStreamID(b *testing.B) {
	x, ctx := newBench(b), context.Background()
	x.eachStream(b, func(prefix, subject string, data []byte) {
		id := ids()
		pair(b, prefix, len(data), func(b *testing.B) {
			for b.Loop() {
				if _, err := x.js.Publish(ctx, subject, data, jetstream.WithMsgID(id())); err != nil {
					b.Fatal(err)
				}
			}
		}, func(b *testing.B) {
			for b.Loop() {
				if _, err := x.client.PublishToStream(ctx, subject, data, jetstream.WithMsgID(id())); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}

// BenchmarkPublishBatch compares with the loop that one writes by hand with upstream's asynchronous
// publish, in batches of 1,000 messages.
func BenchmarkPublishBatch(b *testing.B) {
	x, ctx := newBench(b), context.Background()
	const batch = 1000
	x.eachStream(b, func(prefix, subject string, data []byte) {
		id := ids()
		pair(b, prefix, len(data), func(b *testing.B) {
			futures := make([]jetstream.PubAckFuture, 0, batch)
			for left := b.N; left > 0; left -= batch {
				futures = futures[:0]
				for range min(batch, left) {
					future, err := x.js.PublishAsync(subject, data, jetstream.WithMsgID(id()), jetstream.WithStallWait(time.Minute))
					require.NoError(b, err)
					futures = append(futures, future)
				}
				for _, future := range futures {
					select {
					case <-future.Ok():
					case err := <-future.Err():
						b.Fatal(err)
					}
				}
			}
		}, func(b *testing.B) {
			msgs := make([]*nats.Message, batch)
			for i := range msgs {
				msgs[i] = &nats.Message{Subject: subject, Data: data}
			}
			for left := b.N; left > 0; left -= batch {
				if _, err := x.client.PublishBatch(ctx, msgs[:min(batch, left)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}

// BenchmarkPublishAsync keeps a window of futures open.
func BenchmarkPublishAsync(b *testing.B) {
	x, ctx := newBench(b), context.Background()
	const window = 1000
	await := func(b *testing.B, future jetstream.PubAckFuture) {
		select {
		case <-future.Ok():
		case err := <-future.Err():
			b.Fatal(err)
		}
	}
	run := func(b *testing.B, publish func() (jetstream.PubAckFuture, error)) {
		futures := make([]jetstream.PubAckFuture, window)
		for i := range b.N {
			if old := futures[i%window]; old != nil {
				await(b, old)
			}
			future, err := publish()
			require.NoError(b, err)
			futures[i%window] = future
		}
		for _, future := range futures[:min(window, b.N)] {
			await(b, future)
		}
	}
	x.eachStream(b, func(prefix, subject string, data []byte) {
		id := ids()
		pair(b, prefix, len(data), func(b *testing.B) {
			run(b, func() (jetstream.PubAckFuture, error) {
				return x.js.PublishAsync(subject, data, jetstream.WithMsgID(id()))
			})
		}, func(b *testing.B) {
			msg := &nats.Message{Subject: subject, Data: data}
			run(b, func() (jetstream.PubAckFuture, error) { return x.client.PublishAsync(ctx, msg) })
		})
	})
}

// BenchmarkPublishSequential is what a batch is compared with: one after the other.
func BenchmarkPublishSequential(b *testing.B) {
	x, ctx := newBench(b), context.Background()
	x.eachStream(b, func(prefix, subject string, data []byte) {
		b.Run(prefix+"impl=client", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := x.client.PublishToStream(ctx, subject, data); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}

// BenchmarkPublishCallers has that many callers wait for their acknowledgements at once, with an ID and, at least
// once, without.
func BenchmarkPublishCallers(b *testing.B) {
	x, ctx := newBench(b), context.Background()
	_, err := x.client.CreateStream(ctx, &jetstream.StreamConfig{
		Name: "BENCH_CALLERS", Subjects: []string{"callers"}, MaxMsgs: 10_000, Duplicates: 10 * time.Second,
	})
	require.NoError(b, err)
	data := make([]byte, 128)
	run := func(b *testing.B, callers int, publish func() error) {
		var wg sync.WaitGroup
		var next atomic.Int64
		for range callers {
			wg.Go(func() {
				for next.Add(1) <= int64(b.N) {
					if err := publish(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	for _, callers := range []int{1, 16, 256, 2000} {
		var n atomic.Uint64
		prefix := rand.Text()[:16] + "."
		id := func() string { return prefix + strconv.FormatUint(n.Add(1), 36) }
		name := fmt.Sprintf("callers=%d/", callers)
		pair(b, name+"id=yes/", len(data), func(b *testing.B) {
			run(b, callers, func() error { _, err := x.js.Publish(ctx, "callers", data, jetstream.WithMsgID(id())); return err })
		}, func(b *testing.B) {
			run(b, callers, func() error { _, err := x.client.PublishToStream(ctx, "callers", data); return err })
		})
		pair(b, name+"id=no/", len(data), func(b *testing.B) {
			run(b, callers, func() error { _, err := x.js.Publish(ctx, "callers", data); return err })
		}, func(b *testing.B) {
			run(b, callers, func() error {
				_, err := x.client.PublishToStream(ctx, "callers", data, nats.WithoutMessageID())
				return err
			})
		})
	}
}
