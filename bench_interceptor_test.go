package nats_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// passing is an interceptor that does nothing.
var passing = nats.Interceptor{
	Publish: func(ctx context.Context, msg *nats.Message, next func(context.Context, *nats.Message) error) error {
		return next(ctx, msg)
	},
	Stored: func(context.Context, *nats.Message, *jetstream.PubAck, error) {},
	Request: func(ctx context.Context, msg *nats.Message, next func(context.Context, *nats.Message) (*nats.Message, error)) (*nats.Message, error) {
		return next(ctx, msg)
	},
	Handle:   func(msg *nats.Message, next nats.Handler) error { return next(msg) },
	Received: func(context.Context, nats.Pull) {},
	Settled:  func(*nats.Message, nats.Settlement) {},
}

// BenchmarkInterceptor measures every path without interceptors, with one and with two.
func BenchmarkInterceptor(b *testing.B) {
	for n := range 3 {
		opts := make([]nats.Option, n)
		for i := range opts {
			opts[i] = nats.WithInterceptor(passing)
		}
		x, ctx, data := newBench(b, opts...), context.Background(), make([]byte, 128)
		run := func(path string, f func(b *testing.B)) {
			b.Run(fmt.Sprintf("%s/interceptors=%d", path, n), func(b *testing.B) {
				b.ReportAllocs()
				f(b)
			})
		}
		each := func(path string, f func() error) {
			run(path, func(b *testing.B) {
				for b.Loop() {
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		_, err := x.client.CreateStream(ctx, &jetstream.StreamConfig{
			Name: "INTERCEPTED", Subjects: []string{"intercepted"}, Storage: jetstream.MemoryStorage, MaxMsgs: 10_000, AllowAtomicPublish: true,
		})
		require.NoError(b, err)
		_, err = x.raw.Subscribe("bench.request", func(m *natsgo.Msg) { _ = m.Respond(m.Data) })
		require.NoError(b, err)
		batch := make([]*nats.Message, 100)
		for i := range batch {
			batch[i] = &nats.Message{Subject: "intercepted", Data: data}
		}

		each("publish", func() error { return x.client.Publish(ctx, "bench.publish", data) })
		each("request", func() error { _, err := x.client.Request(ctx, "bench.request", data, 0); return err })
		each("stream", func() error { _, err := x.client.PublishToStream(ctx, "intercepted", data); return err })
		each("async", func() error { _, err := x.client.PublishAsync(ctx, batch[0]); return err })
		each("batch-of-100", func() error { _, err := x.client.PublishBatch(ctx, batch); return err })
		each("atomic-of-100", func() error { _, err := x.client.PublishAtomic(ctx, batch); return err })
		run("deliver", func(b *testing.B) {
			var handled atomic.Int64
			sub, err := x.client.Subscribe(ctx, "bench.deliver", func(*nats.Message) error { handled.Add(1); return nil })
			require.NoError(b, err)
			defer func() { _ = sub.Unsubscribe() }()
			benchDeliver(b, x, "bench.deliver", data, &handled)
		})
		fillBench(b, x, "CONSUMED", jetstream.MemoryStorage, 128)
		run("consume", func(b *testing.B) {
			benchConsume(b, x, "CONSUMED", func(handled func()) (stop func()) {
				consumption, err := x.client.Consume(ctx, "CONSUMED", "bench", func(*nats.Message) error { handled(); return nil })
				require.NoError(b, err)
				return func() { _ = consumption.Stop(ctx) }
			})
		})
	}
}
