package consume

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// A night's outage makes no dead letters, and neither does an old backlog.
func TestWhenTriesAreSpent(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, test := range []struct {
		option, servers, deliveries int
		age, maxAge, delay          time.Duration
		ttl                         string
		spent                       bool
	}{
		{deliveries: 100, age: day - time.Minute},
		{deliveries: 24, age: 100 * day},
		{deliveries: 25, age: day, spent: true},
		{option: 3, deliveries: 2, age: 100 * day},
		{option: 3, deliveries: 3, spent: true},
		{option: -1, deliveries: 1000, age: 100 * day},
		{servers: 2, deliveries: 2, spent: true},
		{option: 5, servers: 2, deliveries: 2, spent: true},
		{option: 3, servers: 9, deliveries: 3, spent: true},
		{option: 100, deliveries: 99, age: 100 * day},
		{option: -1, servers: 2, deliveries: 2, spent: true},
		{deliveries: 1, age: time.Minute, maxAge: time.Hour, delay: 58 * time.Minute},
		{deliveries: 1, age: time.Minute, maxAge: time.Hour, delay: time.Hour, spent: true},
		{option: -1, deliveries: 1, age: time.Minute, maxAge: time.Hour, delay: time.Hour},
		{deliveries: 1, ttl: "90s", delay: time.Minute},
		{deliveries: 1, ttl: "90s", delay: 2 * time.Minute, spent: true},
		{deliveries: 1, ttl: "90", delay: 2 * time.Minute, spent: true},
		{deliveries: 1, ttl: "never", delay: 2 * time.Minute},
		{deliveries: 1, ttl: "never", maxAge: time.Hour, delay: time.Hour},
		{deliveries: 1, ttl: "90s", maxAge: time.Hour, delay: 2 * time.Minute, spent: true},
		{deliveries: 1, ttl: "2h", maxAge: time.Hour, delay: time.Hour, spent: true},
	} {
		s := &Consumption{Options: Options{MaxDeliver: test.option}, rules: ackRules{ConsumerConfig: jetstream.ConsumerConfig{MaxDeliver: test.servers}}}
		s.age.is, s.age.asked = test.maxAge, time.Now()
		d := &Delivery{
			Deliveries: test.deliveries, stored: time.Now().Add(-test.age).UnixNano(),
			Msg: &natsgo.Msg{Header: natsgo.Header{"Nats-TTL": {test.ttl}}},
		}
		assert.Equal(t, test.spent, s.isSpent(d, s.maxDeliver(), test.delay), "%+v", test)
	}
}

// Who was delivered so often that it kills workers is not handled, but what the server counts without a death is spared.
func TestWhatIsDoomed(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for _, test := range []struct {
		option, servers, deliveries int
		age, ackWait                time.Duration
		retries, doomed             bool
	}{
		{deliveries: 1000, age: day - time.Minute},
		{deliveries: 50, age: 100 * day},
		{deliveries: 51, age: day, doomed: true},
		{option: -1, deliveries: 1000, age: 100 * day},
		{option: 3, deliveries: 8},
		{option: 3, deliveries: 9, doomed: true},
		{option: 10, deliveries: 20},
		{option: 10, deliveries: 21, doomed: true},
		{option: 3, deliveries: 9, ackWait: time.Hour, age: 179 * time.Minute},
		{option: 3, deliveries: 9, ackWait: time.Hour, age: 180 * time.Minute, doomed: true},
		{option: -1, servers: 3, deliveries: 9, doomed: true},
		{option: 3, deliveries: 3, retries: true},
		{option: 3, deliveries: 4, retries: true, doomed: true},
	} {
		s := &Consumption{
			Options: Options{MaxDeliver: test.option, Retries: test.retries},
			rules:   ackRules{ConsumerConfig: jetstream.ConsumerConfig{MaxDeliver: test.servers}, shortest: test.ackWait},
		}
		d := &Delivery{Deliveries: test.deliveries, stored: time.Now().Add(-test.age).UnixNano()}
		assert.Equal(t, test.doomed, s.doomed(d) != "", "%+v", test)
		d.again()
		assert.Equal(t, test.doomed, s.doomed(d) != "", "%+v", test)
		d.again().reason = "it waits"
		assert.Equal(t, "it waits", s.doomed(d))
	}
}

// Messages wait outside their stream when they wait for long, or take the room of others, and may leave their place.
func TestWhatWaitsOutside(t *testing.T) {
	t.Parallel()
	const short, long = parkDelay, parkDelay + 1
	here, outside := &puller{}, &puller{}
	for _, test := range []struct {
		options        Options
		rules          jetstream.ConsumerConfig
		from           *puller
		delay          time.Duration
		here, crowd    int
		stale          bool
		parks, outside bool
	}{
		{Options{}, jetstream.ConsumerConfig{MaxAckPending: 8}, here, long, 9, 9, false, false, false},
		{Options{Retries: true, Keyed: true}, jetstream.ConsumerConfig{MaxAckPending: 8}, here, long, 9, 9, false, false, false},
		{Options{Retries: true}, jetstream.ConsumerConfig{MaxAckPending: 8, HeadersOnly: true}, here, long, 9, 9, false, false, false},
		{Options{Retries: true}, jetstream.ConsumerConfig{MaxAckPending: 1}, here, long, 9, 9, false, false, false},
		{Options{Retries: true}, jetstream.ConsumerConfig{}, here, long, 9, 9, false, true, false},
		{Options{Retries: true}, jetstream.ConsumerConfig{MaxAckPending: 8}, outside, long, 9, 9, false, true, false},
		{Options{Retries: true}, jetstream.ConsumerConfig{MaxAckPending: 8}, here, long, 0, 0, false, true, true},
		{Options{Retries: true}, jetstream.ConsumerConfig{MaxAckPending: 8}, here, short, 1, 1, false, true, false},
		{Options{Retries: true}, jetstream.ConsumerConfig{MaxAckPending: 8}, here, short, 2, 0, false, true, true},
		{Options{Retries: true}, jetstream.ConsumerConfig{MaxAckPending: 8}, here, short, 0, 2, false, true, true},
		{Options{Retries: true}, jetstream.ConsumerConfig{MaxAckPending: 8}, here, short, 0, 2, true, true, false},
		{Options{Retries: true}, jetstream.ConsumerConfig{MaxAckPending: 2}, here, short, 0, 0, false, true, false},
		{Options{Retries: true}, jetstream.ConsumerConfig{MaxAckPending: 2}, here, short, 1, 0, false, true, true},
	} {
		s := &Consumption{Options: test.options, rules: ackRules{ConsumerConfig: test.rules}, main: here, parked: outside, begun: time.Now()}
		for range test.here {
			s.naks.away = append(s.naks.away, time.Hour)
		}
		s.crowd.outside, s.crowd.asked = test.crowd, time.Now().Add(time.Hour)
		if test.stale {
			s.crowd.asked = time.Now().Add(-crowdFresh)
		}
		assert.Equal(t, test.parks, s.parks(), "%+v", test)
		assert.Equal(t, test.outside, s.mustPark(&Delivery{from: test.from}, test.delay), "%+v", test)
	}
}

func TestHowFailuresAreTold(t *testing.T) {
	t.Parallel()
	for deliveries, level := range map[int]slog.Level{1: slog.LevelDebug, 4: slog.LevelDebug, 5: slog.LevelError, 6: slog.LevelDebug} {
		assert.Equal(t, level, failureLevel(&Delivery{Deliveries: deliveries}, io.EOF), deliveries)
	}
	assert.Equal(t, slog.LevelError, failureLevel(&Delivery{Deliveries: 1}, fmt.Errorf("it: %w", fault.ErrHandlerPanic)))

	ctx, cancel := context.WithCancelCause(context.Background())
	assert.False(t, tellsOfEnd(ctx, context.Canceled), "of another context")
	cancel(io.ErrClosedPipe)
	assert.True(t, tellsOfEnd(ctx, fmt.Errorf("it: %w", context.Canceled)))
	assert.True(t, tellsOfEnd(ctx, fmt.Errorf("it: %w", io.ErrClosedPipe)))
	assert.False(t, tellsOfEnd(ctx, io.EOF))
}

func TestDelayOfATry(t *testing.T) {
	t.Parallel()
	s := &Consumption{Options: Options{BackOff: []time.Duration{time.Second, time.Minute}}}
	for deliveries, about := range map[int]time.Duration{0: time.Second, 1: time.Second, 2: time.Minute, 99: time.Minute} {
		assert.InDelta(t, about, s.delay(&Delivery{Deliveries: deliveries}, io.EOF), float64(about/5), deliveries)
	}
	for after, want := range map[time.Duration]time.Duration{time.Hour: time.Hour, 0: 10 * time.Millisecond, -1: 10 * time.Millisecond} {
		assert.Equal(t, want, s.delay(&Delivery{Deliveries: 1}, fmt.Errorf("it: %w", &RetryError{io.EOF, after})))
	}
	s.BackOff = []time.Duration{1}
	assert.Equal(t, 10*time.Millisecond, s.delay(&Delivery{Deliveries: 1}, io.EOF))
}
