package nats_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

var errPoison = errors.New("poison")

// deadLettersOf returns what is in a dead-letter stream.
func deadLettersOf(t testing.TB, client *nats.Client, stream string) []*nats.DeadLetter {
	t.Helper()
	ctx := context.Background()
	s, err := client.GetStream(ctx, stream)
	if errors.Is(err, nats.ErrStreamNotFound) {
		return nil
	}
	require.NoError(t, err)
	var letters []*nats.DeadLetter
	for seq := max(s.CachedInfo().State.FirstSeq, 1); seq <= s.CachedInfo().State.LastSeq; seq++ {
		m, err := s.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue
		}
		require.NoError(t, err)
		letter, err := nats.ReadDeadLetter(&nats.Message{Subject: m.Subject, Header: m.Header, Data: m.Data})
		require.NoError(t, err)
		letters = append(letters, letter)
	}
	return letters
}

// A message that always fails comes back by the schedule and then is dead. Raw nats.go's bare Nak:
// 53,941 deliveries in 2 s.
func TestRetrySchedule(t *testing.T) {
	t.Parallel()
	for _, backOff := range [][]time.Duration{nil, {200 * time.Millisecond, 400 * time.Millisecond}} {
		t.Run(fmt.Sprint("server's own back-off ", backOff), func(t *testing.T) {
			t.Parallel()
			client := connect(t, natstest.RunServer(t), nil)
			newStream(t, client, 1)
			newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", BackOff: backOff, MaxDeliver: -1})
			var got calls
			schedule := []time.Duration{100 * time.Millisecond, 300 * time.Millisecond, time.Second}
			consume(t, client, func(msg *nats.Message) error { got.note(msg); return errPoison },
				nats.WithBackoff(schedule...), nats.WithMaxDeliver(5))
			eventually(t, "the dead letter", func() bool { return len(deadLettersOf(t, client, "ORDERS_DLQ")) == 1 })
			idle(t, client)
			require.Equal(t, 5, got.len())
			for i, want := range []time.Duration{schedule[0], schedule[1], schedule[2], schedule[2]} {
				pause := got.times[i+1].Sub(got.times[i])
				assert.InDelta(t, want, pause, float64(want)/2+float64(100*time.Millisecond), "pause %d", i+1)
			}
		})
	}
}

func TestDefaultBackoffAndRetryAfter(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 2)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	var slow, soon calls
	consume(t, client, func(msg *nats.Message) error {
		if string(msg.Data) == "0" {
			if slow.note(msg); slow.len() < 2 {
				return errPoison
			}
			return nil
		}
		if soon.note(msg); soon.len() < 3 {
			return fmt.Errorf("wrapped: %w", nats.RetryAfter(errPoison, 50*time.Millisecond))
		}
		return nil
	})
	idle(t, client)
	require.Equal(t, 2, slow.len())
	assert.InDelta(t, time.Second, slow.times[1].Sub(slow.times[0]), float64(500*time.Millisecond))
	require.Equal(t, 3, soon.len())
	assert.InDelta(t, 100*time.Millisecond, soon.times[2].Sub(soon.times[0]), float64(200*time.Millisecond))
	assert.GreaterOrEqual(t, soon.times[2].Sub(soon.times[0]), 100*time.Millisecond)

	require.NoError(t, nats.Permanent(nil))
	require.NoError(t, nats.RetryAfter(nil, time.Second))
	require.ErrorIs(t, nats.Permanent(errPoison), errPoison)
	require.ErrorIs(t, nats.RetryAfter(errPoison, 0), errPoison)
	assert.Equal(t, "poison", nats.Permanent(errPoison).Error())
}

// Raw nats.go: of 100 good messages behind 10 that wait for a minute, none is delivered, for the
// consumer's MaxAckPending is 10.
func TestRetriesDoNotStarveGoodTraffic(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 0)
	ctx := context.Background()
	for i := range 110 {
		kind := "poison"
		if i >= 10 {
			kind = "good"
		}
		_, err := client.PublishToStream(ctx, "orders."+kind, []byte(fmt.Sprint(i)))
		require.NoError(t, err)
	}
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", MaxAckPending: 10})
	var good, poison calls
	handler := func(msg *nats.Message) error {
		if msg.Subject == "orders.poison" {
			poison.note(msg)
			return errPoison
		}
		good.note(msg)
		return nil
	}
	consumption := consume(t, client, handler, nats.WithBackoff(time.Minute))
	begin := time.Now()
	eventually(t, "the good ones", func() bool { return good.len() == 100 })
	assert.Less(t, time.Since(begin), 5*time.Second)
	idle(t, client)
	assert.Equal(t, 10, poison.len())
	assert.EqualValues(t, 10, consumption.Stats().Parked)
	info, err := client.GetStreamInfo(ctx, "ORDERS_RETRY")
	require.NoError(t, err)
	assert.EqualValues(t, 10, info.State.Msgs)
}

// What waits in the retry stream comes back as it was, when it is due, also when the instance that
// put it there is gone.
func TestParkedMessagesComeBackAsTheyWere(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, other := connect(t, s, nil), connect(t, s, nil)
	newStream(t, client, 0)
	ctx := context.Background()
	original := &nats.Message{
		Subject: "orders.created", Data: []byte{0, 1, 2},
		Header: natsgo.Header{"Nats-Msg-Id": {"mine"}, "X-Two": {"b", "a"}, "Origin-Stream": {"not ours"}},
	}
	ack, err := client.PublishMsgToStream(ctx, original)
	require.NoError(t, err)
	// With a MaxAckPending of 1 the first retry stays in its place, and takes it.
	newConsumer(t, client, jetstream.ConsumerConfig{
		Name: "worker", MaxAckPending: 1, BackOff: []time.Duration{time.Second, 20 * time.Second}, MaxDeliver: -1,
	})
	consumption := consume(t, client, func(*nats.Message) error { return nats.RetryAfter(errPoison, 10001*time.Millisecond) })
	eventually(t, "it is parked", func() bool { return consumption.Stats().Parked == 1 })
	require.NoError(t, consumption.Stop(ctx))
	parked := time.Now()

	type seen struct {
		msg  nats.Message
		meta *jetstream.MsgMetadata
		at   time.Time
	}
	var deliveries []seen
	var count atomic.Int64
	second, err := other.Consume(ctx, "ORDERS", "worker", func(msg *nats.Message) error {
		meta, err := msg.Metadata()
		require.NoError(t, err)
		deliveries = append(deliveries, seen{nats.Message{Subject: msg.Subject, Header: msg.Header, Data: msg.Data}, meta, time.Now()})
		if count.Add(1) < 3 {
			return errPoison
		}
		return nil
	}, nats.WithBackoff(50*time.Millisecond))
	require.NoError(t, err)
	deadline := time.Now().Add(20 * time.Second)
	for count.Load() < 3 && time.Now().Before(deadline) {
		time.Sleep(10 * time.Millisecond)
	}
	require.EqualValues(t, 3, count.Load())
	eventually(t, "it is done", func() bool {
		info, err := other.GetStreamInfo(ctx, "ORDERS_RETRY")
		return err == nil && info.State.Msgs == 0
	})
	require.NoError(t, second.Stop(ctx))
	assert.InDelta(t, 10*time.Second, deliveries[0].at.Sub(parked), float64(time.Second))
	for i, d := range deliveries {
		if i > 0 {
			assert.Greater(t, d.at.Sub(deliveries[i-1].at), 40*time.Millisecond, "the back-off is this one's")
		}
		assert.Equal(t, original.Subject, d.msg.Subject)
		assert.Equal(t, original.Header, d.msg.Header)
		assert.Equal(t, original.Data, d.msg.Data)
		assert.Equal(t, "ORDERS", d.meta.Stream)
		assert.Equal(t, "worker", d.meta.Consumer)
		assert.Equal(t, ack.Sequence, d.meta.Sequence.Stream)
		assert.EqualValues(t, i+2, d.meta.NumDelivered)
	}
}

func TestPermanentGoesToTheDeadLettersAtOnce(t *testing.T) {
	t.Parallel()
	var events eventLog
	client := connect(t, natstest.RunServer(t), nil, nats.WithEventHandler(events.handle))
	newStream(t, client, 0)
	ctx := context.Background()
	original := &nats.Message{
		Subject: "orders.created", Data: []byte("\x00\xff not text"),
		Header: natsgo.Header{
			"Nats-Msg-Id": {"mine"}, "x-lower": {"kept"}, "X-Two": {"b", "a"}, "Dead-Letter-Reason": {"an older one"},
		},
	}
	before := time.Now().Add(-time.Second)
	ack, err := client.PublishMsgToStream(ctx, original)
	require.NoError(t, err)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	consumption := consume(t, client, func(*nats.Message) error {
		return fmt.Errorf("order 7:\r\n%w", nats.Permanent(errPoison))
	})
	eventually(t, "the dead letter", func() bool { return consumption.Stats().DeadLettered == 1 })
	idle(t, client)
	letters := deadLettersOf(t, client, "ORDERS_DLQ")
	require.Len(t, letters, 1)
	letter := letters[0]
	assert.Equal(t, original.Subject, letter.Subject)
	assert.Equal(t, original.Header, letter.Header)
	assert.Equal(t, original.Data, letter.Data)
	assert.Equal(t, "ORDERS", letter.Stream)
	assert.Equal(t, ack.Sequence, letter.Sequence)
	assert.Equal(t, "worker", letter.Consumer)
	assert.Equal(t, 1, letter.Deliveries)
	assert.Equal(t, "order 7: poison", letter.Reason)
	for _, at := range []time.Time{letter.Stored, letter.Time} {
		assert.WithinRange(t, at, before, time.Now().Add(time.Second))
	}
	info, err := client.GetStreamInfo(ctx, "ORDERS_DLQ")
	require.NoError(t, err)
	assert.Equal(t, jetstream.LimitsPolicy, info.Config.Retention)
	assert.Equal(t, 30*24*time.Hour, info.Config.MaxAge)
	eventually(t, "the event", func() bool { return len(events.of(nats.EventDeadLetter)) == 1 })
	event := events.of(nats.EventDeadLetter)[0]
	assert.Equal(t, "orders.created", event.Subject)
	assert.Equal(t, "ORDERS", event.Stream)

	_, err = nats.ReadDeadLetter(original)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	_, err = nats.ReadDeadLetter(nil)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
}

// Raw nats.go: a panic in a Consume handler ends the process.
func TestPanicIsAnErrorAndEndsInTheDeadLetters(t *testing.T) {
	t.Parallel()
	var log logBuffer
	client := connect(t, natstest.RunServer(t), nil, nats.WithLogger(log.logger()))
	newStream(t, client, 20)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	var good, bad calls
	consume(t, client, func(msg *nats.Message) error {
		if string(msg.Data) == "7" {
			bad.note(msg)
			panic("no seven")
		}
		good.note(msg)
		return nil
	}, nats.WithBackoff(20*time.Millisecond), nats.WithMaxDeliver(3), nats.WithWorkers(2))
	eventually(t, "the dead letter", func() bool { return len(deadLettersOf(t, client, "ORDERS_DLQ")) == 1 })
	idle(t, client)
	assert.Equal(t, 3, bad.len())
	assert.Equal(t, 19, good.len())
	letter := deadLettersOf(t, client, "ORDERS_DLQ")[0]
	assert.Contains(t, letter.Reason, "no seven")
	assert.Equal(t, 3, letter.Deliveries)
	assert.Contains(t, log.String(), "TestPanicIsAnErrorAndEndsInTheDeadLetters", "the stack")
}

// A work queue deletes what is terminated: only the dead letter is left then, and must be there.
func TestDeadLettersOfAWorkQueue(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{
		Name: "ORDERS", Subjects: []string{"orders.>"}, Retention: jetstream.WorkQueuePolicy, Storage: jetstream.MemoryStorage,
	})
	require.NoError(t, err)
	_, err = client.PublishToStream(ctx, "orders.created", []byte("x"))
	require.NoError(t, err)
	// The server's own limit holds when no other is given.
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", MaxDeliver: 2})
	consume(t, client, func(*nats.Message) error { return errPoison }, nats.WithBackoff(20*time.Millisecond))
	eventually(t, "the original is gone", func() bool {
		info, err := client.GetStreamInfo(ctx, "ORDERS")
		return err == nil && info.State.Msgs == 0
	})
	letters := deadLettersOf(t, client, "ORDERS_DLQ")
	require.Len(t, letters, 1)
	assert.Equal(t, 2, letters[0].Deliveries)
	info, err := client.GetStreamInfo(ctx, "ORDERS_DLQ")
	require.NoError(t, err)
	assert.Equal(t, jetstream.MemoryStorage, info.Config.Storage, "as the original's")
}

// Nothing is lost while dead letters cannot be stored.
func TestDeadLetterStreamDown(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{
		Name: "GRAVES", Subjects: []string{"graves"}, MaxMsgs: 1, Discard: jetstream.DiscardNew,
	})
	require.NoError(t, err)
	_, err = client.PublishToStream(ctx, "graves", nil)
	require.NoError(t, err)
	newStream(t, client, 3)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", AckWait: 500 * time.Millisecond})
	var got calls
	consumption := consume(t, client, func(msg *nats.Message) error {
		got.note(msg)
		return nats.Permanent(errPoison)
	}, nats.WithDeadLetter("graves"))
	eventually(t, "all have failed", func() bool { return got.len() == 3 && consumption.Stats().Waiting == 3 })
	time.Sleep(time.Second) // longer than the deadline
	info, err := client.GetConsumerInfo(ctx, "ORDERS", "worker")
	require.NoError(t, err)
	assert.Equal(t, 3, info.NumAckPending)
	lag, err := consumption.Lag(ctx)
	require.NoError(t, err)
	assert.EqualValues(t, 3, lag)
	require.NoError(t, client.PurgeStream(ctx, "GRAVES"))
	_, err = client.UpdateStream(ctx, &jetstream.StreamConfig{
		Name: "GRAVES", Subjects: []string{"graves"}, MaxMsgs: 10, Discard: jetstream.DiscardNew,
	})
	require.NoError(t, err)
	idle(t, client)
	assert.Len(t, deadLettersOf(t, client, "GRAVES"), 3)
	assert.Equal(t, 3, got.len(), "kept, not handled again")
	assert.Empty(t, deadLettersOf(t, client, "ORDERS_DLQ"), "not made")
}

// With a subject of one's own that no stream stores, the stream is made for it.
func TestDeadLetterSubjectWithoutStream(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 1)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	poison := func(*nats.Message) error { return nats.Permanent(errPoison) }
	first := consume(t, client, poison)
	idle(t, client)
	require.NoError(t, first.Stop(within(t, patience)))
	consume(t, client, poison, nats.WithDeadLetter("graves.orders"))
	_, err := client.PublishToStream(context.Background(), "orders.created", []byte("1"))
	require.NoError(t, err)
	idle(t, client)
	assert.Len(t, deadLettersOf(t, client, "ORDERS_DLQ"), 2)
	info, err := client.GetStreamInfo(context.Background(), "ORDERS_DLQ")
	require.NoError(t, err)
	assert.Equal(t, []string{"dlq.ORDERS.*", "graves.orders"}, info.Config.Subjects)
}

// A stream that stores its own dead letters would consume them.
func TestDeadLettersIntoTheirOwnStreamAreRefused(t *testing.T) {
	t.Parallel()
	var log logBuffer
	client := connect(t, natstest.RunServer(t), nil, nats.WithLogger(log.logger()))
	newStream(t, client, 1)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	consumption := consume(t, client, func(*nats.Message) error { return nats.Permanent(errPoison) }, nats.WithDeadLetter("orders.dead"))
	eventually(t, "the refusal", func() bool { return strings.Contains(log.String(), "it is the stream") })
	assert.Equal(t, 1, consumption.Stats().Waiting)
}

func TestJSONHandler(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 0)
	ctx := context.Background()
	for _, data := range []string{`{"id":1}`, `{"id":`, `{"id":3}`} {
		_, err := client.PublishToStream(ctx, "orders.created", []byte(data))
		require.NoError(t, err)
	}
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	type order struct{ ID int }
	var ids []int
	consume(t, client, nats.JSON(func(ctx context.Context, o order) error {
		ids = append(ids, o.ID)
		return ctx.Err()
	}))
	idle(t, client)
	assert.Equal(t, []int{1, 3}, ids)
	letters := deadLettersOf(t, client, "ORDERS_DLQ")
	require.Len(t, letters, 1)
	assert.Equal(t, `{"id":`, string(letters[0].Data))
}

// fillDeadLetters makes n dead letters of messages 0 to n-1.
func fillDeadLetters(t testing.TB, client *nats.Client, n int) {
	t.Helper()
	newStream(t, client, n)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	consumption := consume(t, client, func(*nats.Message) error { return nats.Permanent(errPoison) })
	eventually(t, "all dead", func() bool { return consumption.Stats().DeadLettered == uint64(n) })
	require.NoError(t, consumption.Stop(within(t, patience)))
	require.Len(t, deadLettersOf(t, client, "ORDERS_DLQ"), n)
}

func TestReplayStoppedAndResumed(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	const n = 60
	fillDeadLetters(t, client, n)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	seen := 0
	half, err := client.ReplayDeadLetters(ctx, "ORDERS", nats.WithReplayFilter(func(*nats.DeadLetter) bool {
		if seen++; seen == n/2 {
			cancel()
		}
		return true
	}))
	require.ErrorIs(t, err, context.Canceled)
	assert.InDelta(t, n/2, half, 1)
	assert.Len(t, deadLettersOf(t, client, "ORDERS_DLQ"), n-half)

	// The rest by two calls at the same time.
	rest := make(chan int, 2)
	for range 2 {
		go func() {
			count, err := client.ReplayDeadLetters(context.Background(), "ORDERS")
			assert.NoError(t, err)
			rest <- count
		}()
	}
	assert.Equal(t, n-half, <-rest+<-rest)
	assert.Empty(t, deadLettersOf(t, client, "ORDERS_DLQ"))
	var again calls
	consume(t, client, func(msg *nats.Message) error { again.note(msg); return nil })
	eventually(t, "all are back", func() bool { return again.len() == n })
	idle(t, client)
	assert.Equal(t, n, again.len())
	assert.Equal(t, n, again.distinct())
}

func TestReplayOptions(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	_, err := client.ReplayDeadLetters(ctx, "ORDERS")
	require.ErrorIs(t, err, nats.ErrStreamNotFound)
	_, err = client.ReplayDeadLetters(ctx, "OR.DERS")
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	fillDeadLetters(t, client, 20)
	even := nats.WithReplayFilter(func(l *nats.DeadLetter) bool { return slices.Contains([]byte("02468"), l.Data[len(l.Data)-1]) })
	count, err := client.ReplayDeadLetters(ctx, "ORDERS", nats.WithReplayDryRun(), even)
	require.NoError(t, err)
	assert.Equal(t, 10, count)
	assert.Len(t, deadLettersOf(t, client, "ORDERS_DLQ"), 20)
	begin := time.Now()
	count, err = client.ReplayDeadLetters(ctx, "ORDERS", even, nats.WithReplayRate(20))
	require.NoError(t, err)
	assert.Equal(t, 10, count)
	assert.GreaterOrEqual(t, time.Since(begin), 450*time.Millisecond)
	assert.Len(t, deadLettersOf(t, client, "ORDERS_DLQ"), 10)
	count, err = client.ReplayDeadLetters(ctx, "ORDERS", nats.WithReplayFrom("ORDERS_DLQ"))
	require.NoError(t, err)
	assert.Equal(t, 10, count)
	info, err := client.GetStreamInfo(ctx, "ORDERS")
	require.NoError(t, err)
	assert.EqualValues(t, 40, info.State.Msgs)
}
