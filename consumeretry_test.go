package nats_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

var errPoison = errors.New("poison")

// assertPause checks a pause that is varied by up to a fifth. A busy machine makes it longer.
func assertPause(t testing.TB, want, got time.Duration) {
	t.Helper()
	assert.GreaterOrEqual(t, got, want*4/5-10*time.Millisecond)
	assert.Less(t, got, want*6/5+raceSlack)
}

// A message that always fails comes back by the schedule and then is dead. Raw nats.go's bare Nak:
// 53,941 deliveries in 2 s.
func TestRetrySchedule(t *testing.T) {
	t.Parallel()
	for _, backOff := range [][]time.Duration{nil, {5 * time.Second, 20 * time.Second}} {
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
			letter := deadLettersOf(t, client, "ORDERS_DLQ")[0]
			assert.Equal(t, 5, letter.Deliveries)
			assert.Equal(t, "poison", letter.Reason)
			require.Equal(t, 5, got.len())
			for i, want := range []time.Duration{schedule[0], schedule[1], schedule[2], schedule[2]} {
				pause := got.times[i+1].Sub(got.times[i])
				assertPause(t, want, pause)
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
	assertPause(t, time.Second, slow.times[1].Sub(slow.times[0]))
	require.Equal(t, 3, soon.len())
	assertPause(t, 100*time.Millisecond, soon.times[2].Sub(soon.times[0]))

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
	consumption := consume(t, client, handler, nats.WithBackoff(time.Minute), nats.WithRetryStream())
	begin := time.Now()
	eventually(t, "the good ones", func() bool { return good.len() == 100 })
	assert.Less(t, since(begin), 5*time.Second)
	idle(t, client)
	assert.Equal(t, 10, poison.len())
	assert.EqualValues(t, 10, consumption.Stats().Parked)
	info, err := client.GetStreamInfo(ctx, "ORDERS_RETRY")
	require.NoError(t, err)
	assert.EqualValues(t, 10, info.State.Msgs)
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

// Each delayed NAK stops the redeliveries of its consumer for 10 ms. Sent one by one, 1,000 a second of four
// instances stop them for good: 2,079 to 5,389 of some 7,000 retries were overdue after 8 s.
func TestManyRetriesAreOnTime(t *testing.T) {
	t.Parallel()
	for name, retry := range map[string]func(*nats.Message) error{
		"by error":    func(*nats.Message) error { return nats.RetryAfter(errPoison, time.Second) },
		"by the user": func(msg *nats.Message) error { return msg.NakWithDelay(time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := natstest.RunServer(t)
			client := connect(t, s, nil)
			newStream(t, client, 0)
			newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", MaxAckPending: 20_000})
			var mu sync.Mutex
			due := make(map[string]time.Time)
			var late []time.Duration
			bursts := make(map[int64]bool) // by the twentieth of a second
			_, err := client.Subscribe(context.Background(), "$JS.ACK.ORDERS.worker.>", func(ack *nats.Message) error {
				mu.Lock()
				defer mu.Unlock()
				if strings.Contains(string(ack.Data), "delay") {
					bursts[time.Now().UnixMilli()/50] = true
				}
				return nil
			})
			require.NoError(t, err)
			for range 4 {
				consume(t, connect(t, s, nil), func(msg *nats.Message) error {
					mu.Lock()
					defer mu.Unlock()
					at, again := due[string(msg.Data)]
					if again {
						late = append(late, time.Since(at))
						return nil
					}
					due[string(msg.Data)] = time.Now().Add(time.Second)
					return retry(msg)
				})
			}
			const total = 4000
			begin := time.Now()
			for i := range total {
				_, err := client.PublishAsync(context.Background(), &nats.Message{Subject: "orders.created", Data: fmt.Append(nil, i)})
				require.NoError(t, err)
				time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Millisecond))) // 1,000 a second, evenly
			}
			eventually(t, "all come back", func() bool {
				mu.Lock()
				defer mu.Unlock()
				return len(late) == total
			})
			took := time.Since(begin)
			slices.Sort(late)
			t.Attr("figure", fmt.Sprintf("%s: late by %v, at most %v", name, late[total/2].Round(time.Millisecond), late[total-1].Round(time.Millisecond)))
			assert.Less(t, len(bursts), int(8*took.Seconds()), "they leave the server time in between")
		})
	}
}

// What its stream is about to delete is a dead letter, not gone; what has no end is tried on.
func TestDeadLetterBeforeItsStreamDeletesIt(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{
		Name: "ORDERS", Subjects: []string{"orders.>"}, MaxAge: 10 * time.Second, AllowMsgTTL: true,
	})
	require.NoError(t, err)
	_, err = client.PublishToStream(ctx, "orders.created", []byte("x"))
	require.NoError(t, err)
	_, err = client.PublishToStream(ctx, "orders.kept", nil, nats.WithHeader("Nats-TTL", "never"))
	require.NoError(t, err)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	var got, kept calls
	consume(t, client, func(msg *nats.Message) error {
		if msg.Subject == "orders.kept" {
			kept.note(msg)
		} else {
			got.note(msg)
		}
		return errPoison
	}, nats.WithBackoff(50*time.Millisecond))
	eventually(t, "the dead letter", func() bool { return len(deadLettersOf(t, client, "ORDERS_DLQ")) == 1 })
	tries := kept.len()
	eventually(t, "more tries", func() bool { return kept.len() > tries+2 })
	letter := deadLettersOf(t, client, "ORDERS_DLQ")[0]
	assert.Equal(t, "x", string(letter.Data))
	assert.Equal(t, "poison", letter.Reason)
	assert.Greater(t, letter.Deliveries, 5)
	assert.Equal(t, letter.Deliveries, got.len())
}

// One line for a message that keeps failing; each failure is an event.
func TestTheFifthFailureIsLogged(t *testing.T) {
	t.Parallel()
	var log logBuffer
	var events eventLog
	client := connect(t, natstest.RunServer(t), nil, nats.WithLogger(log.logger()), nats.WithEventHandler(events.handle))
	newStream(t, client, 1)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	consume(t, client, func(*nats.Message) error { return errPoison }, nats.WithBackoff(10*time.Millisecond), nats.WithMaxDeliver(-1))
	eventually(t, "more than 25 failures", func() bool { return len(events.of(nats.EventHandlerError)) > 30 })
	assert.Equal(t, 1, strings.Count(log.String(), "message handler failed"))
	assert.Contains(t, log.String(), "delivery=5")
	assert.Empty(t, deadLettersOf(t, client, "ORDERS_DLQ"))
}
