package nats_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

type contextKey struct{}

func TestMessageArrivesWhole(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.WithValue(context.Background(), contextKey{}, "value")
	got := make(chan *nats.Message, 1)
	sub, err := client.Subscribe(ctx, "events.*", func(msg *nats.Message) error { got <- msg; return nil })
	require.NoError(t, err)
	assert.Equal(t, "events.*", sub.Subject())
	assert.Empty(t, sub.Queue())

	sent := &nats.Message{
		Subject: "events.created",
		Reply:   "answers",
		Header:  natsgo.Header{"X": {"1", "2"}},
		Data:    []byte("data"),
	}
	require.NoError(t, client.PublishMsg(context.Background(), sent))
	msg := <-got
	assert.Equal(t, sent.Subject, msg.Subject)
	assert.Equal(t, sent.Reply, msg.Reply)
	assert.Equal(t, sent.Header, msg.Header)
	assert.Equal(t, sent.Data, msg.Data)
	assert.Equal(t, "value", msg.Context().Value(contextKey{}), "the subscription's values")
	require.NoError(t, msg.Context().Err())
	require.NoError(t, sub.Unsubscribe())
	eventually(t, "it ends with the subscription", func() bool { return msg.Context().Err() != nil })
	assert.Equal(t, context.Background(), sent.Context())
}

func TestPublishJSON(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	type order struct{ ID int }
	got := make(chan order, 1)
	_, err := client.Subscribe(ctx, "orders", func(msg *nats.Message) error {
		var o order
		err := msg.DecodeJSON(&o)
		got <- o
		return err
	})
	require.NoError(t, err)
	require.NoError(t, client.PublishJSON(ctx, "orders", order{7}))
	assert.Equal(t, order{7}, <-got)
	require.ErrorIs(t, client.PublishJSON(ctx, "orders", make(chan int)), nats.ErrInvalidArgument)
	require.ErrorContains(t, (&nats.Message{Subject: "x", Data: []byte("{")}).DecodeJSON(new(order)), `decode JSON of "x"`)
}

// Upstream refuses an empty reply with "invalid subject".
func TestPublishWithEmptyReply(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	ctx := context.Background()
	got := make(chan *nats.Message, 1)
	_, err := client.Subscribe(ctx, "x", func(msg *nats.Message) error { got <- msg; return nil })
	require.NoError(t, err)
	require.NoError(t, client.PublishWithReply(ctx, "x", "", []byte("data")))
	assert.Empty(t, (<-got).Reply)
	require.NoError(t, client.PublishWithReply(ctx, "x", "answers", nil))
	assert.Equal(t, "answers", (<-got).Reply)

	require.ErrorIs(t, raw(t, s).PublishRequest("x", "", nil), natsgo.ErrBadSubject)
}

func TestBadArguments(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	ended, cancel := context.WithCancel(ctx)
	cancel()
	handler := func(*nats.Message) error { return nil }
	var none context.Context

	for name, err := range map[string]error{
		"nil handler":          second(client.Subscribe(ctx, "x", nil)),
		"nil queue handler":    second(client.QueueSubscribe(ctx, "x", "q", nil)),
		"nil message":          client.PublishMsg(ctx, nil),
		"nil request":          second(client.RequestMsg(ctx, nil, 0)),
		"negative timeout":     second(client.Request(ctx, "x", nil, -1)),
		"nil stream":           second(client.CreateStream(ctx, nil)),
		"nil stream update":    second(client.UpdateStream(ctx, nil)),
		"nil consumer":         second(client.CreateConsumer(ctx, "S", nil)),
		"nil stream message":   second(client.PublishMsgToStream(ctx, nil)),
		"nil ack":              client.AckMessage(ctx, nil),
		"empty pull":           second(client.PullMessages(ctx, "S", "c", 0)),
		"stream's name":        second(client.GetStream(ctx, "a.b")),
		"no stream's name":     client.DeleteStream(ctx, ""),
		"consumer's name":      second(client.GetConsumer(ctx, "S", "a b")),
		"no consumer's name":   second(client.GetConsumer(ctx, "S", "")),
		"bucket's name":        second(client.CreateKeyValue(ctx, "a.b")),
		"object bucket's name": second(client.CreateObjectStore(ctx, "a b")),
		"nil context publish":  client.Publish(none, "x", nil),
		"nil context request":  second(client.Request(none, "x", nil, 0)),
		"nil context sub":      second(client.Subscribe(none, "x", handler)),
		"nil context flush":    client.Flush(none),
		"nil context stream":   second(client.GetStream(none, "S")),
		"nil context shutdown": client.Shutdown(none),
	} {
		assert.ErrorIs(t, err, nats.ErrInvalidArgument, name)
	}
	for name, err := range map[string]error{
		"publish":   client.Publish(ended, "x", nil),
		"subscribe": second(client.Subscribe(ended, "x", handler)),
		"request":   second(client.Request(ended, "x", nil, time.Second)),
		"pull":      second(client.PullMessages(ended, "S", "c", 1)),
	} {
		assert.ErrorIs(t, err, context.Canceled, name)
	}
	large := make([]byte, 1<<20+1)
	require.ErrorIs(t, client.Publish(ctx, "x", large), nats.ErrPayloadTooLarge)
	require.ErrorIs(t, client.Publish(ctx, "x", large), natsgo.ErrMaxPayload)
	_, err := nats.NewClient(nil)
	require.ErrorIs(t, err, nats.ErrInvalidConfig)
}

func TestHandlerRunsInOrder(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	var mu sync.Mutex
	var got []string
	_, err := client.Subscribe(ctx, "x", func(msg *nats.Message) error {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, string(msg.Data))
		return nil
	})
	require.NoError(t, err)
	var want []string
	for i := range 1000 {
		want = append(want, fmt.Sprint(i))
		require.NoError(t, client.Publish(ctx, "x", []byte(want[i])))
	}
	eventually(t, "all handled", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(got) == len(want)
	})
	assert.Equal(t, want, got)
}

func TestWithConcurrency(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	var running, most, handled atomic.Int64
	sub, err := client.Subscribe(ctx, "x", func(*nats.Message) error {
		now := running.Add(1)
		for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
		}
		time.Sleep(2 * time.Millisecond) // the work
		running.Add(-1)
		handled.Add(1)
		return nil
	}, nats.WithConcurrency(4))
	require.NoError(t, err)
	for range 200 {
		require.NoError(t, client.Publish(ctx, "x", nil))
	}
	eventually(t, "all handled", func() bool { return handled.Load() == 200 })
	assert.EqualValues(t, 4, most.Load())
	require.NoError(t, sub.Drain(ctx))
	assert.EqualValues(t, 200, sub.Stats().Handled)
}

func TestFailingHandlerIsReported(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	for _, workers := range []int{1, 3} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) {
			t.Parallel()
			var events eventLog
			var log logBuffer
			client := connect(t, s, nil, nats.WithEventHandler(events.handle), nats.WithLogger(log.logger()))
			ctx := context.Background()
			broken := errors.New("out of stock")
			subject := fmt.Sprint("orders.", workers)
			sub, err := client.QueueSubscribe(ctx, subject, "shop", func(msg *nats.Message) error {
				switch string(msg.Data) {
				case "error":
					return broken
				case "panic":
					panic("lost my mind")
				}
				return nil
			}, nats.WithConcurrency(workers))
			require.NoError(t, err)
			for _, data := range []string{"error", "panic", "fine"} {
				require.NoError(t, client.Publish(ctx, subject, []byte(data)))
			}
			eventually(t, "all handled", func() bool { return sub.Stats().Handled == 3 })
			assert.EqualValues(t, 2, sub.Stats().Failed)
			eventually(t, "both events", func() bool { return len(events.of(nats.EventHandlerError)) == 2 })
			for _, e := range events.of(nats.EventHandlerError) {
				assert.Equal(t, subject, e.Subject)
				assert.Equal(t, "shop", e.Queue)
				assert.NotEqual(t, errors.Is(e.Err, broken), errors.Is(e.Err, nats.ErrHandlerPanic))
				assert.False(t, e.Time.IsZero())
			}
			text := log.String()
			assert.Equal(t, 2, strings.Count(text, "message handler failed"))
			assert.Contains(t, text, "out of stock")
			assert.Equal(t, 1, strings.Count(text, "lost my mind"))
			assert.Equal(t, 1, strings.Count(text, "stack="), "one stack")
		})
	}
}

func TestPanickingEventHandlerIsSurvived(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	var log logBuffer
	var calls atomic.Int64
	client := connect(t, s, nil, nats.WithLogger(log.logger()), nats.WithEventHandler(func(nats.Event) {
		calls.Add(1)
		panic("in the hook")
	}))
	eventually(t, "connected", func() bool { return calls.Load() == 1 })
	s.Stop()
	eventually(t, "disconnected", func() bool { return calls.Load() >= 2 })
	assert.Contains(t, log.String(), "in the hook")
	s.Restart()
	eventually(t, "reconnected", func() bool { return calls.Load() >= 3 && client.IsConnected() })
}

func TestSubscriptionEndsWithItsContext(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx, cancel := context.WithCancelCause(context.Background())
	var handled atomic.Int64
	sub, err := client.Subscribe(ctx, "x", func(*nats.Message) error { handled.Add(1); return nil })
	require.NoError(t, err)
	require.NoError(t, sub.Err())
	reason := errors.New("going home")
	cancel(reason)
	eventually(t, "unsubscribed", func() bool { return client.Stats().Subscriptions == 0 })
	require.ErrorIs(t, sub.Err(), reason)
	require.NoError(t, client.Publish(context.Background(), "x", nil))
	require.NoError(t, client.Flush(context.Background()))
	assert.Zero(t, handled.Load())
}

func TestUnsubscribeDropsAndDrainHandles(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	run := func(end func(*nats.Subscription) error) (handled int) {
		var n atomic.Int64
		release := make(chan struct{})
		sub, err := client.Subscribe(ctx, "x", func(*nats.Message) error { <-release; n.Add(1); return nil })
		require.NoError(t, err)
		for range 10 {
			require.NoError(t, client.Publish(ctx, "x", nil))
		}
		require.NoError(t, client.Flush(ctx))
		eventually(t, "a handler runs", func() bool {
			return sub.Stats() == nats.SubscriptionStats{Pending: 9, InFlight: 1, PendingBytes: sub.Stats().PendingBytes}
		})
		time.AfterFunc(500*time.Millisecond, func() { close(release) }) // end has begun
		require.NoError(t, end(sub))
		require.ErrorIs(t, sub.Err(), nats.ErrUnsubscribed)
		eventually(t, "the end", func() bool { return client.Stats().Subscriptions == 0 })
		require.NoError(t, sub.Unsubscribe(), "again")
		return int(n.Load())
	}
	assert.Equal(t, 1, run((*nats.Subscription).Unsubscribe))
	assert.Equal(t, 10, run(func(s *nats.Subscription) error { return s.Drain(ctx) }))
}

func TestDrainTimeoutOfOneSubscription(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	release := make(chan struct{})
	defer close(release)
	sub, err := client.Subscribe(ctx, "x", func(*nats.Message) error { <-release; return nil })
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, client.Publish(ctx, "x", nil))
	}
	require.NoError(t, client.Flush(ctx))
	eventually(t, "a handler runs", func() bool { return sub.Stats().InFlight == 1 && sub.Stats().Pending == 2 })
	err = sub.Drain(within(t, 30*time.Millisecond))
	require.ErrorIs(t, err, nats.ErrDrainTimeout)
	require.ErrorContains(t, err, "1 handlers still running, 2 messages not handled")
}

func TestMessages(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		for i := 0; ctx.Err() == nil; i++ {
			_ = client.Publish(ctx, "ticks", []byte(fmt.Sprint(i)))
			time.Sleep(time.Millisecond) // the rate of the ticks
		}
	}()
	n := 0
	for msg, err := range client.Messages(ctx, "ticks") {
		require.NoError(t, err)
		assert.Equal(t, "ticks", msg.Subject)
		if n++; n == 5 {
			break
		}
	}
	eventually(t, "unsubscribed by break", func() bool { return client.Stats().Subscriptions == 0 })
	for _, err := range client.Messages(ctx, "ticks") {
		require.NoError(t, err)
		cancel()
	}
	for _, err := range client.Messages(context.Background(), "a b") {
		require.ErrorIs(t, err, nats.ErrInvalidSubject)
	}
}

// Upstream returns nil and reports to the asynchronous error handler only.
// Headers and payload belong to the caller before and after each call.
func TestCallersMemoryIsLeftAlone(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	got := make(chan *nats.Message, 10)
	_, err := client.Subscribe(ctx, "x", func(msg *nats.Message) error { got <- msg; return nil })
	require.NoError(t, err)
	header, data := natsgo.Header{"K": {"v"}}, []byte("data")
	msg := &nats.Message{Subject: "x", Header: header, Data: data}
	for _, send := range []func() error{
		func() error { return client.PublishMsg(ctx, msg) },
		func() error { _, err := client.RequestMsg(ctx, msg, time.Second); return ignoreTimeout(err) },
		func() error { return client.Publish(ctx, "x", data) },
	} {
		require.NoError(t, send())
		assert.Equal(t, &nats.Message{Subject: "x", Header: header, Data: data}, msg)
		assert.True(t, maps.EqualFunc(natsgo.Header{"K": {"v"}}, header, slices.Equal))
		for i := range data {
			data[i] = '!'
		}
		assert.Equal(t, "data", string((<-got).Data))
		copy(data, "data")
	}
}

func ignoreTimeout(err error) error {
	if errors.Is(err, nats.ErrTimeout) {
		return nil
	}
	return err
}

func TestSubscribeWhileDisconnected(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	s.Stop()
	eventually(t, "disconnected", func() bool { return !client.IsConnected() })
	handler := func(*nats.Message) error { return nil }
	_, err := client.Subscribe(within(t, 50*time.Millisecond), "x", handler)
	require.ErrorIs(t, err, nats.ErrNotConnected)
	eventually(t, "given up", func() bool { return client.Stats().Subscriptions == 0 })

	done := make(chan error, 1)
	go func() {
		_, err := client.Subscribe(context.Background(), "x", handler)
		done <- err
	}()
	s.Restart()
	require.NoError(t, <-done)
	require.NoError(t, client.Publish(context.Background(), "x", nil))
	eventually(t, "handled", func() bool { return client.Stats().InMsgs == 1 })
}

func TestPublishWhileDisconnected(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	ctx := context.Background()
	proxy := natstest.NewProxy(t, s.URL()) // it keeps its port, that of a stopped server may become another one's
	buffering := connect(t, s, func(c *nats.Config) {
		c.URLs, c.ReconnectBufferSize, c.DrainTimeout = []string{proxy.URL()}, 1000, 10*time.Millisecond
	})
	failing := connect(t, s, func(c *nats.Config) { c.URLs, c.PublishWhenDisconnected = []string{proxy.URL()}, "fail" })
	proxy.Cut()
	eventually(t, "disconnected", func() bool { return !buffering.IsConnected() && !failing.IsConnected() })
	require.ErrorIs(t, failing.Publish(ctx, "x", nil), nats.ErrNotConnected)
	var err error
	for range 1000 {
		if err = buffering.Publish(ctx, "x", []byte("data")); err != nil {
			break
		}
	}
	require.ErrorIs(t, err, nats.ErrBufferFull)
	require.ErrorIs(t, err, natsgo.ErrReconnectBufExceeded)
}
