package nats_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// An interceptor knows what call it stands around, and a handler whose message it has.
func TestInterceptorCalls(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var calls []nats.Call
	note := func(msg *nats.Message) {
		mu.Lock()
		defer mu.Unlock()
		calls = append(calls, msg.Call())
	}
	type key struct{}
	client := connect(t, natstest.RunServer(t), nil, nats.WithValue(key{}, "mine"), nats.WithInterceptor(nats.Interceptor{
		Publish: func(ctx context.Context, msg *nats.Message, next func(context.Context, *nats.Message) error) error {
			note(msg)
			return next(ctx, msg)
		},
		Request: func(ctx context.Context, msg *nats.Message, next func(context.Context, *nats.Message) (*nats.Message, error)) (*nats.Message, error) {
			note(msg)
			return next(ctx, msg)
		},
		Handle: func(msg *nats.Message, next nats.Handler) error {
			assert.Equal(t, []any{"mine", nats.Call(0)}, []any{msg.Value(key{}), msg.Call()})
			return next(msg)
		},
	}))
	ctx := within(t, time.Minute)
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, AllowAtomicPublish: true})
	require.NoError(t, err)
	queues := make(chan string, 1)
	_, err = client.QueueSubscribe(ctx, "ask", "askers", func(msg *nats.Message) error {
		queues <- msg.Queue()
		return msg.Respond(nil)
	})
	require.NoError(t, err)
	_, err = client.Request(ctx, "ask", nil, 0)
	require.NoError(t, err)
	assert.Equal(t, "askers", <-queues)
	for _, err := range client.RequestMany(ctx, "ask", nil, nats.WithMaxReplies(1)) {
		require.NoError(t, err)
	}
	require.NoError(t, client.Publish(ctx, "a", nil))
	msgs := []*nats.Message{{Subject: "orders.1"}}
	_, err = client.PublishMsgToStream(ctx, msgs[0])
	require.NoError(t, err)
	_, err = client.PublishBatch(ctx, msgs)
	require.NoError(t, err)
	_, err = client.PublishAtomic(ctx, msgs)
	require.NoError(t, err)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", DeliverPolicy: jetstream.DeliverLastPolicy})
	var healed atomic.Bool
	consume(t, client, func(*nats.Message) error {
		if healed.Load() {
			return nil
		}
		return nats.Permanent(errPoison)
	})
	eventually(t, "a dead letter", func() bool { return client.Stats().DeadLettered == 1 })
	healed.Store(true)
	_, err = client.ReplayDeadLetters(ctx, "ORDERS")
	require.NoError(t, err)

	mu.Lock()
	defer mu.Unlock()
	assert.Equal(t, []nats.Call{
		nats.CallRequest, nats.CallRespond, nats.CallRequest, nats.CallRespond, nats.CallPublish, nats.CallPublishToStream,
		nats.CallPublishAsync, nats.CallPublishAtomic, nats.CallDeadLetter, nats.CallReplay,
	}, calls)
}

// While nobody is enabled nothing is done for interceptors, and their messages allocate as if there were none.
func TestInterceptorEnabled(t *testing.T) {
	var enabled atomic.Bool
	var seen trail
	gated := seen.interceptor("gated")
	gated.Enabled = enabled.Load
	var told atomic.Int32
	gated.Received = func(context.Context, nats.Pull) { told.Add(1) }
	gated.Settled = func(*nats.Message, nats.Settlement) { told.Add(1) }
	bad := nats.Interceptor{Publish: gated.Publish, Enabled: func() bool { panic("bad") }}
	server := natstest.RunServer(t)
	plain, idle := connect(t, server, nil), connect(t, server, nil, nats.WithInterceptor(gated), nats.WithInterceptor(gated))
	ctx := within(t, 5*patience)
	_, err := plain.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, AllowAtomicPublish: true})
	require.NoError(t, err)
	for _, name := range []string{"plain", "gated"} {
		newConsumer(t, plain, jetstream.ConsumerConfig{Name: name})
	}
	_, err = plain.PublishBatch(ctx, slices.Repeat([]*nats.Message{{Subject: "orders.1"}}, 1000))
	require.NoError(t, err)
	for client, subject := range map[*nats.Client]string{plain: "ask.plain", idle: "ask.gated"} {
		_, err = client.HandleRequests(ctx, subject, "", func(*nats.Message) ([]byte, error) { return nil, nil })
		require.NoError(t, err)
	}
	calls := map[string]func(client *nats.Client, asked string) error{
		"Publish": func(client *nats.Client, _ string) error { return client.Publish(ctx, "a", nil) },
		"Request": func(client *nats.Client, asked string) error {
			_, err := client.Request(ctx, asked, nil, 0)
			return err
		},
		"PublishToStream": func(client *nats.Client, _ string) error {
			_, err := client.PublishToStream(ctx, "orders.1", nil)
			return err
		},
		"PublishBatch": func(client *nats.Client, _ string) error {
			_, err := client.PublishBatch(ctx, []*nats.Message{{Subject: "orders.1"}})
			return err
		},
	}
	calls["PullMessages and Ack"] = func(client *nats.Client, asked string) error {
		pulled, err := client.PullMessages(ctx, "ORDERS", strings.TrimPrefix(asked, "ask."), 1)
		return errors.Join(err, pulled[0].Ack())
	}
	for name, call := range calls {
		least := func(client *nats.Client, asked string) float64 { // the server allocates, too, and the race detector empties pools
			var runs []float64
			for range 400 {
				runs = append(runs, testing.AllocsPerRun(1, func() { require.NoError(t, call(client, asked)) }))
			}
			return slices.Min(runs)
		}
		assert.InDelta(t, least(plain, "ask.plain"), least(idle, "ask.gated"), 1, name)
	}
	assert.Empty(t, seen.steps)
	assert.Zero(t, told.Load())

	enabled.Store(true)
	for _, call := range calls {
		require.NoError(t, call(idle, "ask.gated"))
	}
	seen.take(t, 24)
	assert.EqualValues(t, 4, told.Load(), "of two interceptors")

	careless := connect(t, server, nil, nats.WithInterceptor(bad))
	require.NoError(t, careless.Publish(ctx, "a", nil), "a panic in Enabled is not the caller's")
}
