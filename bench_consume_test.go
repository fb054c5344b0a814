package nats_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// benchMessages is how many messages a pass over a stream handles. The stream has some more, so that the
// last are not waited for.
const (
	benchMessages = 50_000
	benchMore     = 2_000
)

// benchConsume measures one message from the stream to its acknowledgement. A fresh consumer reads
// the stream from its beginning as often as it takes; start begins to consume it and returns how to
// end that.
func benchConsume(b *testing.B, x *bench, stream string, start func(handled func()) (stop func())) {
	b.Helper()
	ctx := context.Background()
	for left := b.N; left > 0; {
		b.StopTimer()
		_ = x.client.DeleteConsumer(ctx, stream, "bench")
		_, err := x.client.CreateConsumer(ctx, stream, &jetstream.ConsumerConfig{Name: "bench", MaxAckPending: -1})
		require.NoError(b, err)
		n := min(left, benchMessages)
		var count atomic.Int64
		done := make(chan struct{})
		b.StartTimer()
		stop := start(func() {
			if count.Add(1) == int64(n) {
				close(done)
			}
		})
		<-done
		b.StopTimer()
		stop()
		b.StartTimer()
		left -= n
	}
}

// fillBench makes a stream with messages for one pass.
func fillBench(b *testing.B, x *bench, name string, storage jetstream.StorageType, size int) {
	b.Helper()
	_, err := x.client.CreateStream(context.Background(), &jetstream.StreamConfig{
		Name: name, Subjects: []string{"bench." + name}, Storage: storage,
	})
	require.NoError(b, err)
	data := make([]byte, size)
	for range benchMessages + benchMore {
		_, err := x.js.PublishAsync("bench."+name, data, jetstream.WithStallWait(time.Minute))
		require.NoError(b, err)
	}
	<-x.js.PublishAsyncComplete()
}

func BenchmarkConsume(b *testing.B) {
	x, ctx := newBench(b), context.Background()
	for _, storage := range benchStorages {
		for _, size := range []int{128, 1 << 10} {
			name := fmt.Sprintf("%v-%d", storage, size)
			fillBench(b, x, name, storage, size)
			pair(b, fmt.Sprintf("storage=%v/size=%d/", storage, size), size, func(b *testing.B) {
				benchConsume(b, x, name, func(handled func()) func() {
					consumer, err := x.js.Consumer(ctx, name, "bench")
					require.NoError(b, err)
					consuming, err := consumer.Consume(func(m jetstream.Msg) {
						if err := m.Ack(); err != nil {
							b.Error(err)
						}
						handled()
					})
					require.NoError(b, err)
					return consuming.Stop
				})
			}, func(b *testing.B) {
				benchConsume(b, x, name, func(handled func()) func() {
					consumption, err := x.client.Consume(ctx, name, "bench", func(*nats.Message) error { handled(); return nil })
					require.NoError(b, err)
					return func() { _ = consumption.Stop(ctx) }
				})
			})
		}
	}
}

// BenchmarkPullAndAck measures one message of a batch of 500 and its acknowledgement.
func BenchmarkPullAndAck(b *testing.B) {
	x, ctx := newBench(b), context.Background()
	const batch = 500
	for _, storage := range benchStorages {
		for _, size := range []int{128, 1 << 10} {
			name := fmt.Sprintf("%v-%d", storage, size)
			fillBench(b, x, name, storage, size)
			pair(b, fmt.Sprintf("storage=%v/size=%d/", storage, size), size, func(b *testing.B) {
				benchConsume(b, x, name, func(handled func()) func() {
					consumer, err := x.js.Consumer(ctx, name, "bench")
					require.NoError(b, err)
					return untilStopped(func() {
						pulled, err := consumer.Fetch(batch)
						if err != nil {
							b.Error(err)
							return
						}
						for msg := range pulled.Messages() {
							if err := msg.Ack(); err != nil {
								b.Error(err)
							}
							handled()
						}
					})
				})
			}, func(b *testing.B) {
				benchConsume(b, x, name, func(handled func()) func() {
					return untilStopped(func() {
						pulled, err := x.client.PullMessages(ctx, name, "bench", batch)
						if err != nil {
							b.Error(err)
						}
						for _, msg := range pulled {
							if err := msg.Ack(); err != nil {
								b.Error(err)
							}
							handled()
						}
					})
				})
			})
		}
	}
}

// untilStopped calls f again and again until stop is called. There is always more to pull.
func untilStopped(f func()) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				return
			default:
				f()
			}
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}

// BenchmarkConsumeWorkers measures what workers are worth to a handler that waits for 1 ms.
func BenchmarkConsumeWorkers(b *testing.B) {
	x, ctx := newBench(b), context.Background()
	fillBench(b, x, "workers", jetstream.MemoryStorage, 128)
	for _, workers := range []int{1, 4, 16} {
		b.Run(fmt.Sprintf("workers=%d", workers), func(b *testing.B) {
			b.ReportAllocs()
			benchConsume(b, x, "workers", func(handled func()) func() {
				consumption, err := x.client.Consume(ctx, "workers", "bench", func(*nats.Message) error {
					time.Sleep(time.Millisecond)
					handled()
					return nil
				}, nats.WithWorkers(workers))
				require.NoError(b, err)
				return func() { _ = consumption.Stop(ctx) }
			})
		})
	}
}
