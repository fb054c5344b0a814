package nats_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// The benchmarks come in pairs, impl=raw (nats.go as one would write it) and impl=client, which run
// one after the other against the same server. `make bench` repeats the whole in rounds and lets
// benchstat compare the columns, so that a machine that gets slower meanwhile does not decide.

// bench is what a pair works with.
type bench struct {
	raw    *natsgo.Conn
	js     jetstream.JetStream
	client *nats.Client
}

var benchSizes = []int{16, 128, 1 << 10, 16 << 10, 64 << 10}

// newBench starts a server in another process and connects to it both ways.
func newBench(b *testing.B, opts ...nats.Option) *bench {
	b.Helper()
	binary, err := os.Executable()
	require.NoError(b, err)
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), benchServer+"="+b.TempDir())
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(b, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(b, err)
	require.NoError(b, cmd.Start())
	b.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	url, err := bufio.NewReader(stdout).ReadString('\n')
	require.NoError(b, err)
	url = strings.TrimSpace(url)

	client, err := nats.NewClient(&nats.Config{URLs: []string{url}, JetStreamEnabled: true}, opts...)
	require.NoError(b, err)
	b.Cleanup(func() { _ = client.Close() })
	nc, err := natsgo.Connect(url)
	require.NoError(b, err)
	b.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	require.NoError(b, err)
	return &bench{raw: nc, js: js, client: client}
}

// pair runs both implementations.
func pair(b *testing.B, name string, bytes int, raw, client func(b *testing.B)) {
	b.Helper()
	for impl, run := range map[string]func(*testing.B){"raw": raw, "client": client} {
		b.Run(fmt.Sprintf("%simpl=%s", name, impl), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(bytes))
			run(b)
		})
	}
}

func BenchmarkPublish(b *testing.B) {
	x, ctx := newBench(b), context.Background()
	for _, size := range benchSizes {
		data := make([]byte, size)
		pair(b, fmt.Sprintf("size=%d/", size), size, func(b *testing.B) {
			for b.Loop() {
				if err := x.raw.Publish("bench.publish", data); err != nil {
					b.Fatal(err)
				}
			}
		}, func(b *testing.B) {
			for b.Loop() {
				if err := x.client.Publish(ctx, "bench.publish", data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDeliver measures from a publish to the return of the handler.
func BenchmarkDeliver(b *testing.B) {
	x, ctx := newBench(b), context.Background()
	for _, size := range benchSizes {
		data := make([]byte, size)
		var handled atomic.Int64
		pair(b, fmt.Sprintf("size=%d/", size), size, func(b *testing.B) {
			sub, err := x.raw.Subscribe("bench.raw", func(*natsgo.Msg) { handled.Add(1) })
			require.NoError(b, err)
			defer func() { _ = sub.Unsubscribe() }()
			require.NoError(b, x.raw.Flush())
			benchDeliver(b, x, "bench.raw", data, &handled)
		}, func(b *testing.B) {
			sub, err := x.client.Subscribe(ctx, "bench.client", func(*nats.Message) error { handled.Add(1); return nil })
			require.NoError(b, err)
			defer func() { _ = sub.Unsubscribe() }()
			benchDeliver(b, x, "bench.client", data, &handled)
		})
	}
}

// benchDeliver publishes no faster than messages are handled.
func benchDeliver(b *testing.B, x *bench, subject string, data []byte, handled *atomic.Int64) {
	b.Helper()
	window := int64(max(1, 1<<20/len(data))) // what may be on its way
	handled.Store(0)
	sent := int64(0)
	for b.Loop() {
		if err := x.raw.Publish(subject, data); err != nil {
			b.Fatal(err)
		}
		for sent++; sent-handled.Load() > window; {
			time.Sleep(10 * time.Microsecond) // lets the receiver run
		}
	}
	for handled.Load() < sent {
		time.Sleep(10 * time.Microsecond)
	}
}

func BenchmarkRequest(b *testing.B) {
	x, ctx := newBench(b), context.Background()
	data := make([]byte, 128)
	_, err := x.raw.Subscribe("bench.request", func(m *natsgo.Msg) { _ = m.Respond(data) })
	require.NoError(b, err)
	require.NoError(b, x.raw.Flush())
	pair(b, "", 0, func(b *testing.B) {
		for b.Loop() {
			if _, err := x.raw.Request("bench.request", data, 5*time.Second); err != nil {
				b.Fatal(err)
			}
		}
	}, func(b *testing.B) {
		for b.Loop() {
			if _, err := x.client.Request(ctx, "bench.request", data, 5*time.Second); err != nil {
				b.Fatal(err)
			}
		}
	})
	pair(b, "parallel=16/", 0, func(b *testing.B) {
		parallel(b, func() error { _, err := x.raw.Request("bench.request", data, 5*time.Second); return err })
	}, func(b *testing.B) {
		parallel(b, func() error { _, err := x.client.Request(ctx, "bench.request", data, 5*time.Second); return err })
	})
}

// BenchmarkHandleRequests measures a request and its answer, by who handles it.
func BenchmarkHandleRequests(b *testing.B) {
	x, ctx := newBench(b), context.Background()
	data := make([]byte, 128)
	_, err := x.raw.Subscribe("bench.raw", func(m *natsgo.Msg) { _ = m.Respond(data) })
	require.NoError(b, err)
	require.NoError(b, x.raw.Flush())
	_, err = x.client.Subscribe(ctx, "bench.subscribe", func(msg *nats.Message) error { return msg.Respond(data) })
	require.NoError(b, err)
	handle := func(*nats.Message) ([]byte, error) { return data, nil }
	_, err = x.client.HandleRequests(ctx, "bench.handle", "", handle)
	require.NoError(b, err)
	_, err = x.client.AddService(ctx, nats.ServiceConfig{Name: "bench", Version: "1.0.0"}, nats.Endpoint{Name: "a", Subject: "bench.service", Handler: handle})
	require.NoError(b, err)
	for _, by := range []string{"raw", "subscribe", "handle", "service"} {
		b.Run("by="+by, func(b *testing.B) {
			b.ReportAllocs()
			parallel(b, func() error { _, err := x.raw.Request("bench."+by, data, 5*time.Second); return err })
		})
	}
}

// parallel calls f from 16 goroutines, b.N times in all.
func parallel(b *testing.B, f func() error) {
	b.Helper()
	b.SetParallelism(8) // times GOMAXPROCS, which is 2 or more
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := f(); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkPublishToStream(b *testing.B) {
	x, ctx := newBench(b), context.Background()
	_, err := x.client.CreateStream(ctx, &jetstream.StreamConfig{
		Name: "BENCH", Subjects: []string{"bench.stream"}, Storage: jetstream.MemoryStorage, MaxMsgs: 10_000,
	})
	require.NoError(b, err)
	for _, size := range []int{128, 1 << 10} {
		data := make([]byte, size)
		pair(b, fmt.Sprintf("size=%d/", size), size, func(b *testing.B) {
			for b.Loop() {
				if _, err := x.js.Publish(ctx, "bench.stream", data); err != nil {
					b.Fatal(err)
				}
			}
		}, func(b *testing.B) {
			for b.Loop() {
				if _, err := x.client.PublishToStream(ctx, "bench.stream", data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPull measures one message: pulled in batches and acknowledged without confirmation.
func BenchmarkPull(b *testing.B) {
	x, ctx := newBench(b), context.Background()
	_, err := x.client.CreateStream(ctx, &jetstream.StreamConfig{
		Name: "BENCH", Subjects: []string{"bench.pull"}, Storage: jetstream.MemoryStorage,
	})
	require.NoError(b, err)
	data := make([]byte, 128)
	const batch = 500
	fill := sync.OnceFunc(func() {
		for range 100_000 {
			_, err := x.js.PublishAsync("bench.pull", data, jetstream.WithStallWait(time.Minute))
			require.NoError(b, err)
		}
		<-x.js.PublishAsyncComplete()
	})
	// A fresh consumer reads the stream from its beginning, again and again.
	consumer := func(b *testing.B) jetstream.Consumer {
		b.StopTimer()
		defer b.StartTimer()
		fill()
		_ = x.client.DeleteConsumer(ctx, "BENCH", "bench")
		c, err := x.client.CreateConsumer(ctx, "BENCH", &jetstream.ConsumerConfig{Name: "bench", MaxAckPending: -1})
		require.NoError(b, err)
		return c
	}
	pair(b, fmt.Sprintf("batch=%d/", batch), 0, func(b *testing.B) {
		c := consumer(b)
		for left := b.N; left > 0; {
			messages, err := c.Fetch(min(batch, left), jetstream.FetchMaxWait(5*time.Second))
			require.NoError(b, err)
			n := 0
			for m := range messages.Messages() {
				if err := m.Ack(); err != nil {
					b.Fatal(err)
				}
				n++
			}
			if left -= n; n == 0 {
				c = consumer(b)
			}
		}
	}, func(b *testing.B) {
		consumer(b)
		for left := b.N; left > 0; {
			messages, err := x.client.PullMessages(ctx, "BENCH", "bench", min(batch, left))
			require.NoError(b, err)
			for _, m := range messages {
				if err := m.Ack(); err != nil {
					b.Fatal(err)
				}
			}
			if left -= len(messages); len(messages) == 0 {
				consumer(b)
			}
		}
	})
}

func BenchmarkKeyValue(b *testing.B) {
	x, ctx := newBench(b), context.Background()
	kv, err := x.client.CreateKeyValue(ctx, "bench")
	require.NoError(b, err)
	upstream, err := x.js.KeyValue(ctx, "bench")
	require.NoError(b, err)
	data := make([]byte, 128)
	pair(b, "op=put/", 0, func(b *testing.B) {
		for b.Loop() {
			if _, err := upstream.Put(ctx, "key", data); err != nil {
				b.Fatal(err)
			}
		}
	}, func(b *testing.B) {
		for b.Loop() {
			if _, err := kv.Put(ctx, "key", data); err != nil {
				b.Fatal(err)
			}
		}
	})
	pair(b, "op=get/", 0, func(b *testing.B) {
		for b.Loop() {
			if _, err := upstream.Get(ctx, "key"); err != nil {
				b.Fatal(err)
			}
		}
	}, func(b *testing.B) {
		for b.Loop() {
			if _, err := kv.Get(ctx, "key"); err != nil {
				b.Fatal(err)
			}
		}
	})
}
