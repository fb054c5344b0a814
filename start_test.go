package nats_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// Upstream fails at once.
func TestNewClientWaitsForTheServer(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	s.Stop()
	type result struct {
		client *nats.Client
		err    error
	}
	results := make(chan result, 1)
	go func() {
		client, err := nats.NewClient(&nats.Config{URLs: []string{"nats://127.0.0.1:1", s.URL()}, Timeout: patience})
		results <- result{client, err}
	}()
	s.Restart()
	got := <-results
	require.NoError(t, got.err)
	require.NoError(t, got.client.Ping(context.Background()))
	assert.Len(t, got.client.Conn().ServerPool(), 2, "all of them, for later")
	require.NoError(t, got.client.Close())
}

func TestNewClientSaysWhyEachServerFailed(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	proxy := natstest.NewProxy(t, s.URL())
	proxy.BlackHole()
	begin := time.Now()
	_, err := nats.NewClient(&nats.Config{
		URLs:     []string{"nats://user:hunter2@127.0.0.1:1", proxy.URL(), "nats://no-such-host.invalid:4222"},
		Timeout:  3 * time.Second,
		ClientID: "impatient",
	})
	assert.Less(t, since(begin), 30*time.Second)
	require.ErrorIs(t, err, nats.ErrNotConnected)
	for _, part := range []string{"127.0.0.1:1: ", "connection refused", proxy.URL() + ": no INFO from the server within", "no-such-host.invalid:4222: "} {
		assert.ErrorContains(t, err, part)
	}
	assert.NotContains(t, err.Error(), "hunter2")

	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	begin = time.Now()
	_, err = nats.NewClientContext(ctx, &nats.Config{URLs: []string{proxy.URL()}})
	require.ErrorIs(t, err, context.Canceled)
	assert.Less(t, since(begin), 1900*time.Millisecond, "the default timeout is 2 s")
}

func TestRefusedCredentialsFailAtOnce(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t, natstest.WithUser("u", "p"))
	begin := time.Now()
	_, err := nats.NewClient(&nats.Config{URLs: []string{"nats://127.0.0.1:1", s.URL()}, Username: "u", Password: "hunter2"})
	require.ErrorIs(t, err, nats.ErrAuthorization)
	assert.Less(t, since(begin), 5*time.Second)
	assert.NotContains(t, err.Error(), "hunter2")
}

func TestBackgroundConnect(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	proxy := natstest.NewProxy(t, s.URL()) // it keeps its port, that of a stopped server may become another one's
	proxy.Cut()
	var events eventLog
	begin := time.Now()
	client := connect(t, s, func(c *nats.Config) { c.URLs = []string{proxy.URL()} }, nats.WithBackgroundConnect(), nats.WithEventHandler(events.handle))
	assert.Less(t, since(begin), 4*time.Second)
	assert.False(t, client.IsConnected())
	ctx := context.Background()
	got := make(chan *nats.Message, 10)
	_, err := client.Subscribe(ctx, "orders.*", func(msg *nats.Message) error { got <- msg; return nil })
	require.NoError(t, err, "it takes effect with the connection")
	assert.Less(t, since(begin), 4*time.Second)
	_, err = client.GetStream(within(t, 50*time.Millisecond), "ORDERS")
	require.ErrorIs(t, err, nats.ErrNotConnected)
	declared := make(chan error, 2)
	go func() {
		_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.*"}})
		declared <- err
		kv, err := client.CreateKeyValue(ctx, "config")
		if err == nil {
			_, err = kv.Watch(ctx, "x")
		}
		declared <- err
	}()
	require.NoError(t, client.Publish(ctx, "orders.buffered", nil))
	eventually(t, "the reason is told", func() bool { return len(events.of(nats.EventReconnectFailed)) > 0 })
	require.Error(t, client.Stats().ConnectError)

	proxy.Restore()
	require.NoError(t, <-declared)
	require.NoError(t, <-declared)
	assert.Equal(t, "orders.buffered", (<-got).Subject)
	_, err = client.PublishToStream(ctx, "orders.created", nil)
	require.NoError(t, err)
	eventually(t, "the event", func() bool { return len(events.of(nats.EventConnected)) == 1 })
	require.NoError(t, client.Stats().ConnectError)
}

func TestBackgroundConnectCanBeClosed(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	s.Stop()
	client, err := nats.NewClient(&nats.Config{URLs: []string{s.URL()}}, nats.WithBackgroundConnect())
	require.NoError(t, err)
	_, err = client.Subscribe(context.Background(), "x", func(*nats.Message) error { return nil })
	require.NoError(t, err)
	begin := time.Now()
	require.NoError(t, client.Close())
	assert.Less(t, since(begin), 4*time.Second)
}
