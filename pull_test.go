package nats_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestPullTakesWhatIsThere(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	newStream(t, client, 7)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "c"})
	begin := time.Now()
	first, err := client.PullMessages(ctx, "ORDERS", "c", 5)
	require.NoError(t, err)
	require.Len(t, first, 5)
	rest, err := client.PullMessages(ctx, "ORDERS", "c", 5)
	require.NoError(t, err)
	require.Len(t, rest, 2, "it does not wait for more")
	assert.Less(t, since(begin), 4*time.Second)
	for i, msg := range append(first, rest...) {
		assert.Equal(t, fmt.Sprint(i), string(msg.Data))
		meta, err := msg.Metadata()
		require.NoError(t, err)
		assert.Equal(t, "ORDERS", meta.Stream)
		assert.Equal(t, "c", meta.Consumer)
		assert.EqualValues(t, i+1, meta.Sequence.Stream)
		assert.EqualValues(t, 1, meta.NumDelivered)
		assert.WithinDuration(t, time.Now(), meta.Timestamp, time.Minute)
		require.NoError(t, client.AckMessage(ctx, msg))
		require.ErrorIs(t, msg.Respond(nil), nats.ErrNoReply)
		require.NoError(t, msg.Context().Err())
	}

	begin = time.Now()
	none, err := client.PullMessages(within(t, time.Second), "ORDERS", "c", 5)
	require.NoError(t, err)
	assert.Empty(t, none)
	assert.GreaterOrEqual(t, time.Since(begin), 500*time.Millisecond, "it waits for the first, but for what the way takes")

	go func() {
		time.Sleep(50 * time.Millisecond) // the message is late
		_, _ = client.PublishToStream(ctx, "orders.created", []byte("late"))
	}()
	late, err := client.PullMessages(ctx, "ORDERS", "c", 5)
	require.NoError(t, err)
	require.Len(t, late, 1)
	require.NoError(t, late[0].Ack())
	eventually(t, "nothing left", func() bool {
		info, err := client.GetConsumerInfo(ctx, "ORDERS", "c")
		return err == nil && info.NumAckPending == 0 && info.NumPending == 0 && info.NumWaiting == 0
	})
}

func TestPullFromNowhere(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	newStream(t, client, 0)
	begin := time.Now()
	_, err := client.PullMessages(ctx, "NONE", "c", 1)
	require.ErrorIs(t, err, nats.ErrStreamNotFound)
	_, err = client.PullMessages(ctx, "ORDERS", "none", 1)
	require.ErrorIs(t, err, nats.ErrConsumerNotFound)
	assert.Less(t, since(begin), 4*time.Second)

	newConsumer(t, client, jetstream.ConsumerConfig{Name: "c"})
	ended := make(chan error, 1)
	go func() {
		_, err := client.PullMessages(within(t, patience), "ORDERS", "c", 1)
		ended <- err
	}()
	eventually(t, "the pull waits", func() bool {
		info, err := client.GetConsumerInfo(ctx, "ORDERS", "c")
		return err == nil && info.NumWaiting == 1
	})
	require.NoError(t, client.DeleteConsumer(ctx, "ORDERS", "c"))
	require.ErrorIs(t, <-ended, nats.ErrConsumerNotFound)
}

func TestManyPullersShare(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 0)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "c"})
	ctx := within(t, patience)
	var mu sync.Mutex
	seen := make(map[string]int)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				mu.Lock()
				done := len(seen) == 200
				mu.Unlock()
				if done || ctx.Err() != nil {
					return
				}
				short, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
				messages, err := client.PullMessages(short, "ORDERS", "c", 3)
				cancel()
				assert.NoError(t, err)
				for _, msg := range messages {
					mu.Lock()
					seen[string(msg.Data)]++
					mu.Unlock()
					assert.NoError(t, client.AckMessage(ctx, msg))
				}
			}
		})
	}
	for i := range 200 { // many pulls end just as a message comes
		_, err := client.PublishToStream(ctx, "orders.created", []byte(fmt.Sprint(i)))
		require.NoError(t, err)
	}
	wg.Wait()
	assert.Len(t, seen, 200)
	for data, n := range seen {
		assert.Equal(t, 1, n, data)
	}
	require.NoError(t, client.Close(), "no pull is left behind")
}

// Upstream's fetch does not notice: it ends a second after its full wait.
func TestPullSurvivesRestart(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	ctx := context.Background()
	newStream(t, client, 0)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "c"})
	pulled := make(chan []*nats.Message, 1)
	go func() {
		messages, err := client.PullMessages(within(t, time.Minute), "ORDERS", "c", 1)
		assert.NoError(t, err)
		pulled <- messages
	}()
	eventually(t, "the pull waits", func() bool {
		info, err := client.GetConsumerInfo(ctx, "ORDERS", "c")
		return err == nil && info.NumWaiting == 1
	})
	s.Restart()
	eventually(t, "published", func() bool {
		_, err := client.PublishToStream(ctx, "orders.created", []byte("after"))
		return err == nil
	})
	select {
	case messages := <-pulled:
		require.Len(t, messages, 1)
	case <-time.After(patience):
		t.Fatal("the pull does not come back")
	}
}

func TestAcknowledgements(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	newStream(t, client, 1)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "c", AckWait: 2 * time.Second})
	pull := func() *nats.Message {
		messages, err := client.PullMessages(ctx, "ORDERS", "c", 1)
		require.NoError(t, err)
		require.Len(t, messages, 1)
		return messages[0]
	}
	delivered := func(msg *nats.Message) int {
		meta, err := msg.Metadata()
		require.NoError(t, err)
		return int(meta.NumDelivered)
	}
	msg := pull()
	require.NoError(t, msg.Nak())
	require.ErrorIs(t, msg.Nak(), nats.ErrAlreadyAcked)
	msg = pull()
	assert.Equal(t, 2, delivered(msg))
	begin := time.Now()
	require.ErrorIs(t, msg.NakWithDelay(-1), nats.ErrInvalidArgument)
	require.NoError(t, msg.NakWithDelay(200*time.Millisecond))
	msg = pull()
	assert.Equal(t, 3, delivered(msg))
	assert.GreaterOrEqual(t, time.Since(begin), 190*time.Millisecond)
	for range 5 { // together longer than the ack wait
		time.Sleep(500 * time.Millisecond) // the work
		require.NoError(t, msg.InProgress())
	}
	require.NoError(t, msg.Ack())
	for _, err := range []error{msg.Ack(), msg.AckSync(ctx), msg.Term(""), msg.InProgress()} {
		require.ErrorIs(t, err, nats.ErrAlreadyAcked)
	}
	eventually(t, "acked", func() bool {
		info, err := client.GetConsumerInfo(ctx, "ORDERS", "c")
		return err == nil && info.AckFloor.Stream == 1 && info.Delivered.Consumer == 3
	})

	advisories := make(chan *nats.Message, 1)
	_, err := client.Subscribe(ctx, "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.ORDERS.c", func(msg *nats.Message) error {
		advisories <- msg
		return nil
	})
	require.NoError(t, err)
	_, err = client.PublishToStream(ctx, "orders.created", nil)
	require.NoError(t, err)
	require.NoError(t, pull().Term("cannot be helped"))
	assert.Contains(t, string((<-advisories).Data), "cannot be helped")

	core := &nats.Message{Subject: "x"}
	for _, err := range []error{core.Ack(), core.AckSync(ctx), core.Nak(), core.NakWithDelay(0), core.Term(""), core.InProgress()} {
		require.ErrorIs(t, err, nats.ErrNotJetStream)
	}
	_, err = core.Metadata()
	require.ErrorIs(t, err, nats.ErrNotJetStream)
}

// A confirmation that is lost with its connection is asked for on the next one, at once.
func TestAckOverABrokenConnection(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	proxy := natstest.NewProxy(t, s.URL())
	client := connect(t, s, func(c *nats.Config) { c.URLs = []string{proxy.URL()}; c.RequestTimeout = time.Minute })
	ctx := context.Background()
	newStream(t, client, 1)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "c", AckWait: time.Minute})
	messages, err := client.PullMessages(ctx, "ORDERS", "c", 1)
	require.NoError(t, err)
	require.Len(t, messages, 1)
	proxy.BlackHole()
	acked, before := make(chan error, 1), client.Conn().Stats().OutMsgs
	go func() { acked <- client.AckMessage(ctx, messages[0]) }()
	eventually(t, "it is sent", func() bool { return client.Conn().Stats().OutMsgs > before })
	proxy.Cut()
	proxy.Restore()
	select {
	case err := <-acked:
		require.NoError(t, err)
	case <-time.After(patience):
		t.Fatal("it is not confirmed")
	}
}

// A confirmation that does not come leaves the message to be acknowledged again.
func TestUnconfirmedAckCanBeRepeated(t *testing.T) {
	t.Parallel()
	client, proxy := through(t, natstest.RunServer(t))
	ctx := context.Background()
	newStream(t, client, 1)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "c"})
	messages, err := client.PullMessages(ctx, "ORDERS", "c", 1)
	require.NoError(t, err)
	require.Len(t, messages, 1)
	proxy.BlackHole()
	require.ErrorIs(t, client.AckMessage(within(t, 50*time.Millisecond), messages[0]), nats.ErrTimeout)
	proxy.Restore()
	require.NoError(t, client.AckMessage(ctx, messages[0]))
}

// What a push consumer delivers to a plain subscription is acknowledged also by a client without JetStream.
func TestAckWithoutJetStream(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, plain := connect(t, s, nil), connect(t, s, func(c *nats.Config) { c.JetStreamEnabled = false })
	ctx := within(t, patience)
	newStream(t, client, 1)
	acked := make(chan error, 1)
	_, err := plain.Subscribe(ctx, "pushed", func(msg *nats.Message) error {
		acked <- plain.AckMessage(ctx, msg)
		return nil
	})
	require.NoError(t, err)
	stream, err := client.GetStream(ctx, "ORDERS")
	require.NoError(t, err)
	consumer, err := stream.CreatePushConsumer(ctx, jetstream.ConsumerConfig{
		Durable: "push", DeliverSubject: "pushed", AckPolicy: jetstream.AckExplicitPolicy,
	})
	require.NoError(t, err)
	require.NoError(t, <-acked)
	info, err := consumer.Info(ctx)
	require.NoError(t, err)
	assert.EqualValues(t, 1, info.AckFloor.Stream)
}
