package nats_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// settlements records what interceptors are told of acknowledgements and pulls. It harms nothing by its panics, nor by
// what it asks meanwhile.
type settlements struct {
	mu     sync.Mutex
	client *nats.Client
	all    []nats.Settlement
	of     []*nats.Message
	pulls  []nats.Pull
}

// observe connects a client with it.
func (s *settlements) observe(t *testing.T, server *natstest.Server) *nats.Client {
	t.Helper()
	s.client = connect(t, server, nil, nats.WithInterceptor(nats.Interceptor{}), nats.WithInterceptor(nats.Interceptor{
		Handle: func(msg *nats.Message, next nats.Handler) error {
			return next(msg.WithContext(context.WithValue(msg.Context(), s, "handler")))
		},
		Received: func(_ context.Context, p nats.Pull) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.pulls = append(s.pulls, p)
			panic("contained")
		},
		Settled: func(msg *nats.Message, how nats.Settlement) {
			_ = s.client.Stats()
			for c := range s.client.Consumptions() {
				_ = c.Stats()
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			s.all, s.of = append(s.all, how), append(s.of, msg)
			panic("contained")
		},
	}))
	return s.client
}

// said returns the operations.
func (s *settlements) said() (ops []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, how := range s.all {
		ops = append(ops, how.Op)
	}
	return ops
}

// Every acknowledgement of a pulled message is told once, when it was sent or was not, and every pull.
func TestInterceptorSettled(t *testing.T) {
	t.Parallel()
	var seen settlements
	client := seen.observe(t, natstest.RunServer(t))
	newStream(t, client, 6)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	ctx := within(t, time.Minute)
	pulled, err := client.PullMessages(ctx, "ORDERS", "worker", 6)
	require.NoError(t, err)
	none, err := client.PullMessages(within(t, time.Second), "ORDERS", "worker", 1)
	require.NoError(t, err)
	require.Empty(t, none)
	_, err = client.PullMessages(ctx, "ORDERS", "nobody", 1)
	require.ErrorIs(t, err, nats.ErrConsumerNotFound)
	_, err = client.PullMessages(ctx, "ORDERS", "worker", 0)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	require.Len(t, seen.pulls, 3, "not what is refused")
	assert.Equal(t, pulled, seen.pulls[0].Messages)
	assert.Equal(t, []string{"ORDERS", "worker"}, []string{seen.pulls[0].Stream, seen.pulls[0].Consumer})
	assert.Positive(t, seen.pulls[0].Took)
	assert.Equal(t, nats.Pull{Stream: "ORDERS", Consumer: "worker", Took: seen.pulls[1].Took}, seen.pulls[1])
	require.ErrorIs(t, seen.pulls[2].Err, nats.ErrConsumerNotFound)

	require.NoError(t, pulled[0].InProgress())
	require.NoError(t, pulled[0].Ack())
	require.ErrorIs(t, pulled[0].Nak(), nats.ErrAlreadyAcked)
	require.NoError(t, client.AckMessage(ctx, pulled[1]))
	require.NoError(t, pulled[2].Nak())
	require.NoError(t, pulled[3].NakWithDelay(time.Hour))
	require.NoError(t, pulled[4].Term("poison"))
	require.NoError(t, client.DeleteConsumer(ctx, "ORDERS", "worker"))
	err = pulled[5].AckSync(ctx)
	require.ErrorIs(t, err, nats.ErrNoResponders)
	require.ErrorIs(t, (&nats.Message{}).Ack(), nats.ErrNotJetStream)
	assert.Equal(t, []string{"ack", "ack", "nak", "nak", "term", "ack"}, seen.said())
	assert.Equal(t, pulled, seen.of)
	for i, how := range seen.all {
		assert.Equal(t, i == 1 || i == 5, how.Took > 0, "only what is confirmed is waited for")
		assert.Equal(t, i == 5, how.Err != nil)
	}
	assert.Equal(t, err, seen.all[5].Err)
	require.NoError(t, natstest.NewMessage("made", nil).Ack(), "which has no client")
}

// What a Consumption says of a message is told as well: once, whoever says it, and when the handler says it, with its context.
func TestInterceptorSettledByConsume(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		handler nats.Handler
		opts    []nats.ConsumeOption
		want    string
		inside  bool // of the handler
	}{
		"handled":         {func(*nats.Message) error { return nil }, nil, "ack", false},
		"confirmed":       {func(*nats.Message) error { return nil }, []nats.ConsumeOption{nats.WithConfirmedAcks()}, "ack", false},
		"failed":          {func(*nats.Message) error { return errPoison }, []nats.ConsumeOption{nats.WithBackoff(time.Hour)}, "nak", false},
		"parked":          {func(*nats.Message) error { return errPoison }, []nats.ConsumeOption{nats.WithBackoff(time.Hour), nats.WithRetryStream()}, "ack", false},
		"dead":            {func(*nats.Message) error { return nats.Permanent(errPoison) }, nil, "term", false},
		"acknowledged":    {func(msg *nats.Message) error { return msg.Ack() }, nil, "ack", true},
		"asked for later": {func(msg *nats.Message) error { return msg.NakWithDelay(time.Hour) }, nil, "nak", true},
		"given up":        {func(msg *nats.Message) error { return msg.Term("poison") }, nil, "term", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var seen settlements
			client := seen.observe(t, natstest.RunServer(t))
			newStream(t, client, 1)
			newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
			consumption := consume(t, client, c.handler, c.opts...)
			eventually(t, "settled", func() bool { return len(seen.said()) > 0 })
			require.NoError(t, consumption.Stop(within(t, time.Minute)))
			assert.Equal(t, []string{c.want}, seen.said())
			require.NoError(t, seen.all[0].Err)
			assert.Equal(t, c.inside, seen.of[0].Context().Value(&seen) == "handler")
		})
	}
}

// A message whose try has failed is given back by Stop, and one that no handler had is not told.
func TestInterceptorSettledByStop(t *testing.T) {
	t.Parallel()
	var seen settlements
	client := seen.observe(t, natstest.RunServer(t))
	newStream(t, client, 2)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	begun, over := make(chan struct{}), make(chan struct{})
	consumption := consume(t, client, func(*nats.Message) error {
		close(begun)
		<-over
		return errPoison
	}, nats.WithKey(func(*nats.Message) string { return "one" }), nats.WithBackoff(time.Hour), nats.WithMaxDeliver(10), nats.WithWorkers(2))
	<-begun
	eventually(t, "the second one waits", func() bool { return consumption.Stats().Waiting == 1 })
	stopped := make(chan error, 1)
	go func() { stopped <- consumption.Stop(within(t, time.Minute)) }()
	eventually(t, "it is handed back", func() bool { return consumption.Stats().HandedBack > 0 })
	close(over)
	require.NoError(t, <-stopped)
	assert.Equal(t, []string{"nak"}, seen.said())
}
