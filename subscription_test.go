package nats_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

type carried struct{}

// done tells whether a subscription ends within the patience.
func done(s *nats.Subscription) bool {
	select {
	case <-s.Done():
		return true
	case <-time.After(patience):
		return false
	}
}

// At SIGTERM a service's context ends: what was received is handled, by handlers whose contexts live on.
func TestHandlersOutliveTheContextOfSubscribe(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, pub := connect(t, s, nil), raw(t, s)
	ctx, cancel := context.WithCancelCause(context.WithValue(context.Background(), carried{}, "value"))
	ctx, stop := context.WithTimeout(ctx, time.Hour)
	defer stop()
	var handled atomic.Int64
	begun, release := make(chan struct{}, 100), make(chan struct{})
	var last context.Context
	sub, err := client.Subscribe(ctx, "a", func(msg *nats.Message) error {
		begun <- struct{}{}
		<-release
		last = msg.Context()
		_, limited := last.Deadline()
		assert.False(t, limited)
		assert.Equal(t, "value", last.Value(carried{}))
		if assert.NoError(t, last.Err()) {
			handled.Add(1)
		}
		return client.Publish(last, "b", nil)
	})
	require.NoError(t, err)
	for range 50 {
		require.NoError(t, pub.Publish("a", nil))
	}
	require.NoError(t, pub.Flush())
	<-begun
	eventually(t, "all received", func() bool { return sub.Stats().Pending == 49 })
	deployed := errors.New("a new version comes")
	cancel(deployed)
	eventually(t, "it ends", func() bool { return errors.Is(sub.Err(), deployed) })
	eventually(t, "the server knows", func() bool { return client.Conn().NumSubscriptions() == 0 })
	require.NoError(t, pub.Publish("a", nil))
	require.NoError(t, pub.Flush())
	select {
	case <-sub.Done():
		assert.Fail(t, "done before its handlers are")
	default:
	}
	close(release)
	require.True(t, done(sub))
	assert.EqualValues(t, 50, handled.Load())
	require.ErrorIs(t, sub.Err(), deployed)
	eventually(t, "the contexts end", func() bool { return last.Err() != nil })
	require.ErrorIs(t, context.Cause(last), deployed)
}

// The graceful end takes drain_timeout at most: then contexts end, and what was left is told.
func TestTheEndOfTheContextIsBounded(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	events := &eventLog{}
	client := connect(t, s, func(c *nats.Config) { c.DrainTimeout = 100 * time.Millisecond }, nats.WithEventHandler(events.handle))
	ctx, cancel := context.WithCancel(context.Background())
	begun := make(chan struct{}, 10)
	sub, err := client.Subscribe(ctx, "a", func(msg *nats.Message) error {
		begun <- struct{}{}
		<-msg.Context().Done()
		return nil
	})
	require.NoError(t, err)
	for range 3 {
		require.NoError(t, client.Publish(ctx, "a", nil))
	}
	<-begun
	eventually(t, "all received", func() bool { return sub.Stats().Pending == 2 })
	cancel()
	require.True(t, done(sub))
	assert.Empty(t, begun)
	eventually(t, "told", func() bool { return len(events.of(nats.EventAsyncError)) == 1 })
	e := events.of(nats.EventAsyncError)[0]
	assert.Equal(t, "a", e.Subject)
	require.ErrorIs(t, e.Err, nats.ErrDrainTimeout)
	assert.ErrorContains(t, e.Err, "1 handlers still running, 2 messages not handled")
}

// A handler may end its goroutine, as testing's FailNow does: the next message is handled all the same.
func TestHandlersThatEndTheirGoroutine(t *testing.T) {
	t.Parallel()
	for _, workers := range []int{1, 3} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) {
			t.Parallel()
			s := natstest.RunServer(t)
			events, log := &eventLog{}, &logBuffer{}
			client := connect(t, s, nil, nats.WithEventHandler(events.handle), nats.WithLogger(log.logger()))
			sub, err := client.Subscribe(context.Background(), "a", func(msg *nats.Message) error {
				if string(msg.Data) != "fine" {
					runtime.Goexit()
				}
				return nil
			}, nats.WithConcurrency(workers))
			require.NoError(t, err)
			for _, data := range []string{"", "", "fine", "", "fine"} {
				require.NoError(t, client.Publish(context.Background(), "a", []byte(data)))
			}
			eventually(t, "all handled", func() bool { return sub.Stats().Handled == 5 })
			assert.EqualValues(t, 3, sub.Stats().Failed)
			assert.Zero(t, sub.Stats().InFlight)
			require.NoError(t, sub.Drain(within(t, patience)))
			eventually(t, "told", func() bool { return len(events.of(nats.EventHandlerError)) == 3 })
			require.ErrorIs(t, events.of(nats.EventHandlerError)[0].Err, nats.ErrHandlerPanic)
			assert.Contains(t, log.String(), "subscription_test.go", "where it was")
		})
	}
}

// Nats.go subscribes a subscription that is being drained again when the connection is made anew, and then
// forgets it: the server gives a queue group's share to nobody.
func TestDrainOverAReconnectLeavesNothingOnTheServer(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, member := connect(t, s, nil), connect(t, s, nil)
	ctx := context.Background()
	var received atomic.Int64
	_, err := member.QueueSubscribe(ctx, "a", "g", func(*nats.Message) error { received.Add(1); return nil })
	require.NoError(t, err)
	before := s.Embedded().NumSubscriptions()
	for i := range 10 {
		release := make(chan struct{})
		sub, err := client.QueueSubscribe(ctx, "a", "g", func(*nats.Message) error { <-release; return nil })
		require.NoError(t, err)
		for range 20 {
			require.NoError(t, client.Publish(ctx, "a", nil))
		}
		require.NoError(t, client.Flush(ctx))
		reconnects := client.Conn().Stats().Reconnects
		var draining sync.WaitGroup
		draining.Go(func() { assert.NoError(t, sub.Drain(within(t, patience))) })
		if i%2 == 0 {
			eventually(t, "the server knows of the drain", func() bool { return s.Embedded().NumSubscriptions() == before })
		}
		require.NoError(t, client.Conn().ForceReconnect())
		eventually(t, "reconnected", func() bool { return client.Conn().Stats().Reconnects > reconnects && client.IsConnected() })
		close(release)
		draining.Wait()
		require.NoError(t, client.Flush(ctx))
	}
	assert.Equal(t, before, s.Embedded().NumSubscriptions())
	received.Store(0)
	for range 1000 {
		require.NoError(t, client.Publish(ctx, "a", nil))
	}
	eventually(t, "nobody else has a share", func() bool { return received.Load() == 1000 })
}

// The handler of a subscription cannot wait for itself: Unsubscribe does not.
func TestHandlerEndsItsSubscription(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ready := make(chan struct{})
	var sub *nats.Subscription
	sub, err := client.Subscribe(context.Background(), "a", func(*nats.Message) error {
		<-ready
		return sub.Unsubscribe()
	})
	require.NoError(t, err)
	close(ready)
	require.NoError(t, client.Publish(context.Background(), "a", nil))
	require.True(t, done(sub))
	require.NoError(t, sub.Drain(context.Background()), "it has ended")
	assert.EqualValues(t, 1, sub.Stats().Handled)
}

// A server that says nothing may have sent what never came: a drain says so, in its time.
func TestDrainOverASilentLine(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	p := natstest.NewProxy(t, s.URL())
	client := connect(t, s, func(c *nats.Config) { c.URLs = []string{p.URL()} })
	sub, err := client.Subscribe(context.Background(), "a", func(*nats.Message) error { return nil })
	require.NoError(t, err)
	p.BlackHole()
	err = sub.Drain(within(t, 100*time.Millisecond))
	require.ErrorIs(t, err, nats.ErrDrainTimeout)
	require.ErrorContains(t, err, "did not confirm")
	require.True(t, done(sub))
	require.ErrorIs(t, sub.Err(), nats.ErrUnsubscribed)
}
