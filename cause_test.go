package nats_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// A context may end for a reason of its owner's. The error has it, and is as well what that of any other
// context is: a caller who looks for context.Canceled, for a timeout, finds it.
func TestContextsWithACauseOfTheirOwn(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	proxy := natstest.NewProxy(t, s.URL())
	client := connect(t, s, func(c *nats.Config) { c.URLs = []string{proxy.URL()}; c.DrainTimeout = 100 * time.Millisecond })
	ctx := context.Background()
	newStream(t, client, 10)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "c"})
	kv, err := client.CreateKeyValue(ctx, "kv", nats.WithKeyTTLs(time.Second))
	require.NoError(t, err)
	cache, err := kv.Cached(ctx)
	require.NoError(t, err)
	t.Cleanup(func() { _ = cache.Close() })
	objects, err := client.CreateObjectStore(ctx, "objects")
	require.NoError(t, err)
	_, err = objects.PutBytes(ctx, "o", make([]byte, 1<<20))
	require.NoError(t, err)
	pulled, err := client.PullMessages(ctx, "ORDERS", "c", 2)
	require.NoError(t, err)
	handler := func(*nats.Message) error { return nil }
	_, err = client.Subscribe(ctx, "y", handler)
	require.NoError(t, err)
	calls := map[string]func(ctx context.Context) error{
		"Publish":   func(ctx context.Context) error { return client.Publish(ctx, "x", nil) },
		"Subscribe": func(ctx context.Context) error { return second(client.Subscribe(ctx, "x", handler)) },
		"Request":   func(ctx context.Context) error { return second(client.Request(ctx, "y", nil, time.Minute)) },
		"Ping":      client.Ping,
		"Flush":     client.Flush,
		"CreateStream": func(ctx context.Context) error {
			return second(client.CreateStream(ctx, &jetstream.StreamConfig{Name: "T"}))
		},
		"EnsureStream": func(ctx context.Context) error {
			return second(client.EnsureStream(ctx, &jetstream.StreamConfig{Name: "T"}))
		},
		"GetStream":       func(ctx context.Context) error { return second(client.GetStream(ctx, "ORDERS")) },
		"PurgeStream":     func(ctx context.Context) error { return client.PurgeStream(ctx, "ORDERS") },
		"PublishToStream": func(ctx context.Context) error { return second(client.PublishToStream(ctx, "orders.x", nil)) },
		"PublishBatch": func(ctx context.Context) error {
			return second(client.PublishBatch(ctx, []*nats.Message{{Subject: "orders.x"}}))
		},
		"PublishAtomic": func(ctx context.Context) error {
			return second(client.PublishAtomic(ctx, []*nats.Message{{Subject: "orders.x"}}))
		},
		"PublishAsync": func(ctx context.Context) error {
			future, err := client.PublishAsync(ctx, &nats.Message{Subject: "orders.x"})
			if err != nil {
				return err
			}
			return <-future.Err()
		},
		"GetConsumer":   func(ctx context.Context) error { return second(client.GetConsumer(ctx, "ORDERS", "c")) },
		"AckMessage":    func(ctx context.Context) error { return client.AckMessage(ctx, pulled[0]) },
		"AckSync":       func(ctx context.Context) error { return pulled[1].AckSync(ctx) },
		"Consume":       func(ctx context.Context) error { return second(client.Consume(ctx, "ORDERS", "c", handler)) },
		"GetKeyValue":   func(ctx context.Context) error { return second(client.GetKeyValue(ctx, "kv")) },
		"KV Get":        func(ctx context.Context) error { return second(kv.Get(ctx, "k")) },
		"KV Put":        func(ctx context.Context) error { return second(kv.Put(ctx, "k", nil)) },
		"KV Delete":     func(ctx context.Context) error { return kv.Delete(ctx, "k") },
		"KV ListKeys":   func(ctx context.Context) error { return second(kv.ListKeys(ctx)) },
		"KV GetMany":    func(ctx context.Context) error { return second(kv.GetMany(ctx, "k", "l")) },
		"KV Status":     func(ctx context.Context) error { return second(kv.Status(ctx)) },
		"KV Lock":       func(ctx context.Context) error { return second(kv.Lock(ctx, "lock", time.Second)) },
		"cache WaitFor": func(ctx context.Context) error { return cache.WaitFor(ctx, 1000) },
		"Object Put":    func(ctx context.Context) error { return second(objects.PutBytes(ctx, "p", make([]byte, 10))) },
		"Object Get":    func(ctx context.Context) error { return second(objects.GetBytes(ctx, "o")) },
		"Object Info":   func(ctx context.Context) error { return second(objects.GetInfo(ctx, "o")) },
		"Object List":   func(ctx context.Context) error { return second(objects.List(ctx)) },
		"Object Delete": func(ctx context.Context) error { return objects.Delete(ctx, "o") },
		"ReplayDeadLetters": func(ctx context.Context) error {
			return second(client.ReplayDeadLetters(ctx, "ORDERS"))
		},
		"ReadStream": func(ctx context.Context) error {
			for _, err := range client.ReadStream(ctx, "ORDERS", nats.WithReadFollow()) {
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	proxy.BlackHole()
	mine := errors.New("the deploy takes too long")
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Run("cancelled before", func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(context.Background())
				cancel(mine)
				err := call(ctx)
				require.ErrorIs(t, err, mine)
				require.ErrorIs(t, err, context.Canceled)
				assert.NotErrorIs(t, err, nats.ErrTimeout)
			})
			if name == "Publish" {
				return // it waits for nothing
			}
			t.Run("cancelled meanwhile", func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(context.Background())
				time.AfterFunc(50*time.Millisecond, func() { cancel(mine) })
				err := call(ctx)
				require.ErrorIs(t, err, mine)
				require.ErrorIs(t, err, context.Canceled)
			})
			t.Run("over meanwhile", func(t *testing.T) {
				ctx, cancel := context.WithTimeoutCause(context.Background(), 50*time.Millisecond, mine)
				defer cancel()
				err := call(ctx)
				require.ErrorIs(t, err, mine)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.ErrorIs(t, err, nats.ErrTimeout)
			})
		})
	}
}
