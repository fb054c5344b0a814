package nats_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestPublishAsync(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 0)
	ctx := within(t, patience)
	msg := &nats.Message{Subject: "orders.created", Header: natsgo.Header{"K": {"v"}}, Data: []byte("payload")}
	future, err := client.PublishAsync(ctx, msg, nil, jetstream.WithMsgID("one"))
	require.NoError(t, err)
	copy(msg.Data, "changed") // is copied
	assert.Equal(t, natsgo.Header{"K": {"v"}}, msg.Header, "left alone")
	assert.Equal(t, "orders.created", future.Msg().Subject)
	assert.Equal(t, "one", future.Msg().Header.Get(jetstream.MsgIDHeader))
	assert.Equal(t, "payload", string(future.Msg().Data))
	ack := <-future.Ok()
	assert.Equal(t, &jetstream.PubAck{Stream: "ORDERS", Sequence: 1}, ack)
	select {
	case <-future.Ok():
		t.Fatal("resolved twice")
	case err := <-future.Err():
		t.Fatal("resolved twice", err)
	case <-time.After(20 * time.Millisecond):
	}
	again, err := client.PublishAsync(ctx, msg, jetstream.WithMsgID("one"))
	require.NoError(t, err)
	require.NoError(t, resolved(t, again), "a duplicate is stored")
	late := again.Ok() // asked for after the fact; upstream's are filled once as well
	assert.Empty(t, late)
}

func TestPublishAsyncEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	proxy := natstest.NewProxy(t, s.URL())
	client := connect(t, s, func(c *nats.Config) { c.URLs = []string{proxy.URL()}; c.RequestTimeout = 400 * time.Millisecond })
	newStream(t, client, 0)
	proxy.BlackHole()
	ctx, cancel := context.WithCancel(context.Background())
	msg := &nats.Message{Subject: "orders.created"}
	cancelled, err := client.PublishAsync(ctx, msg)
	require.NoError(t, err)
	expired, err := client.PublishAsync(within(t, 100*time.Millisecond), msg)
	require.NoError(t, err)
	byDefault, err := client.PublishAsync(context.Background(), msg)
	require.NoError(t, err)
	cancel()
	require.ErrorIs(t, resolved(t, cancelled), context.Canceled)
	require.ErrorIs(t, resolved(t, expired), nats.ErrTimeout)
	require.ErrorIs(t, resolved(t, byDefault), nats.ErrTimeout)
	proxy.Restore()
}

// Upstream fails with "stalled" when nothing moves for 200 ms.
func TestPublishAsyncWaitsForRoom(t *testing.T) {
	t.Parallel()
	client, proxy := through(t, natstest.RunServer(t))
	newStream(t, client, 0)
	proxy.BlackHole()
	ctx := within(t, time.Minute)
	msg := &nats.Message{Subject: "orders.created"}
	var futures []jetstream.PubAckFuture
	for range 1024 {
		future, err := client.PublishAsync(ctx, msg)
		require.NoError(t, err)
		futures = append(futures, future)
	}
	_, err := client.PublishAsync(within(t, 300*time.Millisecond), msg)
	require.ErrorIs(t, err, nats.ErrTimeout, "it waits under ctx")
	waiting := make(chan jetstream.PubAckFuture, 1)
	go func() {
		future, err := client.PublishAsync(ctx, msg)
		assert.NoError(t, err)
		waiting <- future
	}()
	proxy.Restore()
	require.NoError(t, resolved(t, <-waiting))
	for _, future := range futures {
		require.NoError(t, resolved(t, future))
	}
}

// Large messages fill the window before there are many of them.
func TestPublishAsyncWindowIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) { o.MaxPayload = 9 << 20 }))
	client := connect(t, s, nil)
	ctx := within(t, time.Minute)
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{
		Name: "S", Subjects: []string{"s"}, Storage: jetstream.MemoryStorage, MaxMsgs: 1, NoAck: true, // so nothing makes room
	})
	require.NoError(t, err)
	msg := &nats.Message{Subject: "s", Data: make([]byte, 8<<20)}
	eventually(t, "there is no room, before it is found out that nothing is acknowledged", func() bool {
		client := connect(t, s, nil)
		for range 4 { // 32 MiB
			_, err := client.PublishAsync(ctx, msg)
			require.NoError(t, err)
		}
		_, err := client.PublishAsync(within(t, 200*time.Millisecond), msg)
		return errors.Is(err, nats.ErrTimeout)
	})
}

func TestCloseResolvesEveryFuture(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	proxy := natstest.NewProxy(t, s.URL())
	for _, broken := range []bool{false, true} {
		proxy.Restore()
		client := connect(t, s, func(c *nats.Config) { c.URLs = []string{proxy.URL()} })
		ctx := within(t, time.Minute)
		if !broken {
			newStream(t, client, 0)
		} else {
			proxy.BlackHole()
		}
		futures := make([]jetstream.PubAckFuture, 1000)
		for i := range futures {
			var err error
			futures[i], err = client.PublishAsync(ctx, &nats.Message{Subject: "orders.created"})
			require.NoError(t, err)
		}
		if !broken {
			require.NoError(t, client.Close(), "Close waits")
		} else {
			err := client.Shutdown(within(t, 50*time.Millisecond))
			var left *nats.ShutdownError
			require.ErrorAs(t, err, &left)
			assert.Equal(t, 1000, left.AsyncPublishes)
		}
		for _, future := range futures {
			if err := resolved(t, future); broken {
				require.ErrorIs(t, err, nats.ErrClosed)
			} else {
				require.NoError(t, err)
			}
			assert.Empty(t, future.Ok(), "once")
			assert.Empty(t, future.Err(), "once")
		}
		_, err := client.PublishAsync(ctx, &nats.Message{Subject: "orders.created"})
		require.ErrorIs(t, err, nats.ErrClosed)
		_, err = client.PublishBatch(ctx, []*nats.Message{{Subject: "orders.created"}})
		require.ErrorIs(t, err, nats.ErrClosed)
		_, err = client.PublishAtomic(ctx, []*nats.Message{{Subject: "orders.created"}})
		require.ErrorIs(t, err, nats.ErrClosed)
	}
}

// A handler may publish asynchronously while the client closes.
func TestCloseWaitsForFuturesOfHandlers(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 0)
	ctx := context.Background()
	var mu sync.Mutex
	var futures []jetstream.PubAckFuture
	_, err := client.Subscribe(ctx, "work", func(*nats.Message) error {
		time.Sleep(5 * time.Millisecond) // the work
		future, err := client.PublishAsync(ctx, &nats.Message{Subject: "orders.created"})
		mu.Lock()
		defer mu.Unlock()
		futures = append(futures, future)
		return err
	})
	require.NoError(t, err)
	for range 20 {
		require.NoError(t, client.Publish(ctx, "work", nil))
	}
	require.NoError(t, client.Flush(ctx))
	require.NoError(t, client.Close())
	require.Len(t, futures, 20)
	for _, future := range futures {
		require.NoError(t, resolved(t, future))
	}
}

func TestUpstreamCloseFailsFutures(t *testing.T) {
	t.Parallel()
	client, proxy := through(t, natstest.RunServer(t))
	proxy.BlackHole()
	future, err := client.PublishAsync(within(t, time.Minute), &nats.Message{Subject: "x"})
	require.NoError(t, err)
	client.Conn().Close()
	require.ErrorIs(t, resolved(t, future), nats.ErrClosed)
}

func TestPublishBatchKeepsTheOrderOfResults(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := within(t, patience)
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, Storage: jetstream.MemoryStorage, MaxMsgSize: 200})
	require.NoError(t, err)
	msgs := make([]*nats.Message, 5000) // more than are in flight at once
	for i := range msgs {
		msgs[i] = &nats.Message{Subject: "s.a", Data: []byte(fmt.Sprint(i))}
	}
	msgs[7] = &nats.Message{Subject: "s.a", Data: make([]byte, 300)}
	msgs[4000] = &nats.Message{Subject: "elsewhere"}
	acks, err := client.PublishBatch(ctx, msgs)
	var failed *nats.BatchError
	require.ErrorAs(t, err, &failed)
	require.Len(t, failed.Failed, 2)
	assert.Equal(t, 5000, failed.Messages)
	assert.Equal(t, 7, failed.Failed[0].Index)
	require.ErrorIs(t, failed.Failed[0].Err, nats.ErrPayloadTooLarge)
	assert.Equal(t, 4000, failed.Failed[1].Index)
	require.ErrorIs(t, failed.Failed[1].Err, nats.ErrNoStream)
	require.ErrorIs(t, err, nats.ErrNoStream)
	require.ErrorIs(t, err, nats.ErrPayloadTooLarge)
	require.ErrorContains(t, err, "2 of 5000 messages failed, the first is message 7")
	require.Len(t, acks, 5000)
	var last uint64
	for i, ack := range acks {
		if i == 7 || i == 4000 {
			assert.Nil(t, ack)
			continue
		}
		require.Equal(t, last+1, ack.Sequence, "one goroutine's messages are stored in order")
		last = ack.Sequence
	}
}

// sequence yields n messages that share one buffer.
func sequence(subject string, n int) iter.Seq[*nats.Message] {
	return func(yield func(*nats.Message) bool) {
		data := make([]byte, 128)
		msg := &nats.Message{Subject: subject, Data: data}
		for i := range n {
			copy(data, fmt.Sprintf("%08d", i))
			if !yield(msg) {
				return
			}
		}
	}
}

func TestPublishSeq(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 0)
	ctx := within(t, time.Minute)
	var last uint64
	for ack, err := range client.PublishSeq(ctx, sequence("orders.created", 3000)) {
		require.NoError(t, err)
		require.Equal(t, last+1, ack.Sequence)
		last = ack.Sequence
	}
	assert.EqualValues(t, 3000, last)
	stream, err := client.GetStream(ctx, "ORDERS")
	require.NoError(t, err)
	for _, n := range []uint64{1, 2, 3000} {
		msg, err := stream.GetMsg(ctx, n)
		require.NoError(t, err)
		assert.True(t, bytes.HasPrefix(msg.Data, fmt.Appendf(nil, "%08d", n-1)), "the buffer may be used again")
	}

	taken := 0
	for _, err := range client.PublishSeq(ctx, func(yield func(*nats.Message) bool) {
		for m := range sequence("orders.created", 3000) {
			taken++
			if !yield(m) {
				return
			}
		}
	}) {
		require.NoError(t, err)
		break
	}
	assert.Less(t, taken, 3000, "leaving the loop takes no more")
}

func TestPublishAtomic(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := within(t, patience)
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, AllowAtomicPublish: true, MaxMsgSize: 300})
	require.NoError(t, err)
	_, err = client.CreateStream(ctx, &jetstream.StreamConfig{Name: "PLAIN", Subjects: []string{"plain"}})
	require.NoError(t, err)
	_, err = client.CreateStream(ctx, &jetstream.StreamConfig{Name: "T", Subjects: []string{"t"}, AllowAtomicPublish: true})
	require.NoError(t, err)
	batch := func(n int) []*nats.Message {
		msgs := make([]*nats.Message, n)
		for i := range msgs {
			msgs[i] = &nats.Message{Subject: fmt.Sprint("s.", i), Data: []byte("x")}
		}
		return msgs
	}
	stored := func() uint64 {
		info, err := client.GetStreamInfo(ctx, "S")
		require.NoError(t, err)
		return info.State.Msgs
	}
	for _, n := range []int{1, 2, 1000} {
		before := stored()
		msgs := batch(n)
		ack, err := client.PublishAtomic(ctx, msgs)
		require.NoError(t, err)
		assert.Equal(t, "S", ack.Stream)
		assert.Equal(t, n, ack.Size)
		assert.Equal(t, before+uint64(n), ack.Sequence)
		assert.NotEmpty(t, ack.BatchID)
		assert.Nil(t, msgs[0].Header, "left alone")
	}
	eventually(t, "a batch of which one question was enough", func() bool { // a busy server is asked again
		ack, err := client.PublishAtomic(ctx, batch(2))
		require.NoError(t, err)
		return !ack.Duplicate
	})
	before := stored()
	for name, c := range map[string]struct {
		msgs []*nats.Message
		want error
	}{
		"too many":         {batch(1001), nats.ErrInvalidArgument},
		"not allowed":      {[]*nats.Message{{Subject: "plain"}, {Subject: "plain"}}, nats.ErrFeatureDisabled},
		"one not allowed":  {[]*nats.Message{{Subject: "plain"}}, nats.ErrFeatureDisabled},
		"one too large":    {append(batch(3), &nats.Message{Subject: "s.x", Data: make([]byte, 400)}, &nats.Message{Subject: "s.x"}), nats.ErrPayloadTooLarge},
		"two streams":      {append(batch(2), &nats.Message{Subject: "plain"}, &nats.Message{Subject: "s.x"}), nats.ErrFeatureDisabled},
		"two with batches": {append(batch(2), &nats.Message{Subject: "t"}), nats.ErrInvalidArgument},
		"another within":   {append(batch(2), &nats.Message{Subject: "t"}, &nats.Message{Subject: "s.x"}), nats.ErrInvalidArgument},
		"no stream":        {append(batch(2), &nats.Message{Subject: "elsewhere"}, &nats.Message{Subject: "s.x"}), nats.ErrNoStream},
		"last too large":   {append(batch(3), &nats.Message{Subject: "s.x", Data: make([]byte, 400)}), nats.ErrPayloadTooLarge},
		"wrong sequence":   {append([]*nats.Message{{Subject: "s.1", Header: natsgo.Header{"Nats-Expected-Last-Sequence": {"1"}}}}, batch(2)...), nats.ErrConflict},
		"stored ID":        {append(batch(2), &nats.Message{Subject: "s.1", Header: natsgo.Header{"Nats-Msg-Id": {"once"}}}), nil},
	} {
		short := within(t, patience)
		_, err := client.PublishAtomic(short, c.msgs)
		if c.want == nil {
			require.NoError(t, err, name)
			before += 3
			_, err = client.PublishAtomic(short, c.msgs)
			require.ErrorIs(t, err, nats.ErrAlreadyExists, name)
			continue
		}
		require.ErrorIs(t, err, c.want, name)
	}
	assert.Equal(t, before, stored(), "nothing of what failed")
}

// The acknowledgement of the commit is lost on the way: the next attempt finds its messages stored.
func TestPublishAtomicSurvivesALostAcknowledgement(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	direct := connect(t, s, nil)
	ctx := within(t, patience)
	_, err := direct.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, AllowAtomicPublish: true})
	require.NoError(t, err)
	client, proxy := through(t, s)
	proxy.Delay(time.Second)
	done := make(chan *nats.BatchAck, 1)
	go func() {
		ack, err := client.PublishAtomic(ctx, []*nats.Message{{Subject: "s"}, {Subject: "s"}, {Subject: "s"}})
		assert.NoError(t, err)
		done <- ack
	}()
	eventually(t, "stored", func() bool {
		info, err := direct.GetStreamInfo(ctx, "S")
		return err == nil && info.State.Msgs == 3
	})
	proxy.Cut()
	proxy.Delay(0)
	proxy.Restore()
	ack := <-done
	require.NotNil(t, ack)
	assert.True(t, ack.Duplicate)
	assert.EqualValues(t, 3, ack.Sequence)
	assert.Equal(t, 3, ack.Size)
	info, err := direct.GetStreamInfo(ctx, "S")
	require.NoError(t, err)
	assert.EqualValues(t, 3, info.State.Msgs)
}

// Those who wait longer for the same subject are no reason to be late: one look-up at a time goes out.
func TestPublishKeepsItsTimeAmongOthers(t *testing.T) {
	t.Parallel()
	client, proxy := through(t, natstest.RunServer(t))
	newStream(t, client, 0)
	proxy.BlackHole()
	patient, giveUp := context.WithCancel(context.Background())
	var others sync.WaitGroup
	for range 40 {
		others.Go(func() {
			_, err := client.PublishToStream(patient, "orders.created", nil)
			assert.Error(t, err)
		})
	}
	time.Sleep(600 * time.Millisecond) // they ask for the stream by now
	begin := time.Now()
	_, err := client.PublishToStream(within(t, time.Second), "orders.created", nil)
	require.ErrorIs(t, err, nats.ErrTimeout)
	assert.Less(t, since(begin), 3*time.Second)
	_, err = client.PublishBatch(within(t, 600*time.Millisecond), []*nats.Message{{Subject: "orders.created"}})
	require.ErrorIs(t, err, nats.ErrTimeout)
	assert.Less(t, since(begin), 6*time.Second)
	giveUp()
	others.Wait()
}

// What was in flight when the connection broke is sent again in its order.
func TestPublishAsyncKeepsItsOrderOverABreak(t *testing.T) {
	t.Parallel()
	client, proxy := through(t, natstest.RunServer(t))
	newStream(t, client, 0)
	ctx := within(t, time.Minute)
	proxy.BlackHole()
	var futures []jetstream.PubAckFuture
	for range 300 {
		future, err := client.PublishAsync(ctx, &nats.Message{Subject: "orders.created"})
		require.NoError(t, err)
		futures = append(futures, future)
	}
	proxy.Cut()
	proxy.Restore()
	for i, future := range futures {
		select {
		case ack := <-future.Ok():
			require.EqualValues(t, i+1, ack.Sequence)
		case err := <-future.Err():
			t.Fatal(err)
		}
	}
}
