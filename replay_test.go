package nats_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

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
	require.ErrorIs(t, err, nats.ErrStreamNotFound, "it is not a stream at all")
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

func TestReplayWithoutDeadLetters(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	newStream(t, client, 1)
	count, err := client.ReplayDeadLetters(ctx, "ORDERS")
	require.NoError(t, err)
	assert.Zero(t, count)
	for msg, err := range client.ReadStream(ctx, "ORDERS_DLQ") {
		t.Error(msg, err)
	}
	_, err = client.ReplayDeadLetters(ctx, "ORDERS", nats.WithReplayFrom("GRAVES"))
	require.ErrorIs(t, err, nats.ErrStreamNotFound, "it was named")
	for _, err := range client.ReadStream(ctx, "OTHER_DLQ") {
		require.ErrorIs(t, err, nats.ErrStreamNotFound)
	}
}

// A dead letter that is refused stays and keeps no other from being replayed.
func TestReplayPassesOverTheRefused(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	cfg := jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.old", "orders.big", "orders.new"}}
	_, err := client.CreateStream(ctx, &cfg)
	require.NoError(t, err)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	consumption := consume(t, client, func(*nats.Message) error { return nats.Permanent(errPoison) })
	const each = 3
	sizes := map[string]int{"orders.big": 1000}
	for range each {
		for _, subject := range cfg.Subjects {
			_, err := client.PublishToStream(ctx, subject, make([]byte, sizes[subject]))
			require.NoError(t, err)
		}
	}
	eventually(t, "all dead", func() bool { return consumption.Stats().DeadLettered == 3*each })
	require.NoError(t, consumption.Stop(within(t, patience)))
	cfg.Subjects, cfg.MaxMsgSize = []string{"orders.big", "orders.new"}, 500
	_, err = client.UpdateStream(ctx, &cfg)
	require.NoError(t, err)
	for _, want := range []int{each, 0} {
		count, err := client.ReplayDeadLetters(ctx, "ORDERS")
		assert.Equal(t, want, count)
		require.ErrorIs(t, err, nats.ErrNoStream)
		require.ErrorIs(t, err, nats.ErrPayloadTooLarge)
		require.ErrorContains(t, err, "6 could not be published")
		assert.Len(t, deadLettersOf(t, client, "ORDERS_DLQ"), 2*each)
	}
}

// What was stored under another subject than it was published to, here or on its way from another
// stream, comes back as it was stored.
func TestReplayByTheSubjectThatLeadsThere(t *testing.T) {
	t.Parallel()
	transform := func(from, to string) jetstream.SubjectTransformConfig {
		return jetstream.SubjectTransformConfig{Source: from, Destination: to}
	}
	first, onto := transform("in.>", "first.>"), transform("orders.>", "orders.new.>")
	for name, c := range map[string]struct {
		origins []jetstream.StreamConfig
		stream  jetstream.StreamConfig
		publish string
	}{
		"a transform": {
			stream: jetstream.StreamConfig{Subjects: []string{"in.>"}, SubjectTransform: &first}, publish: "in.a.b",
		},
		"a transform into its own subjects": {
			stream: jetstream.StreamConfig{Subjects: []string{"orders.>"}, SubjectTransform: &onto}, publish: "orders.a",
		},
		"a source": {
			origins: []jetstream.StreamConfig{{Name: "FIRST", Subjects: []string{"in.>"}}},
			stream:  jetstream.StreamConfig{Sources: []*jetstream.StreamSource{{Name: "FIRST"}}}, publish: "in.a.b",
		},
		"two transforms over a source": {
			origins: []jetstream.StreamConfig{{Name: "FIRST", Subjects: []string{"in.>"}, SubjectTransform: &first}},
			stream: jetstream.StreamConfig{Sources: []*jetstream.StreamSource{
				{Name: "FIRST", SubjectTransforms: []jetstream.SubjectTransformConfig{transform("first.*.*", "second.{{wildcard(2)}}")}},
			}}, publish: "in.a.b",
		},
		"a chain of sources": {
			origins: []jetstream.StreamConfig{
				{Name: "FIRST", Subjects: []string{"in.>"}},
				{Name: "SECOND", Sources: []*jetstream.StreamSource{
					{Name: "FIRST", SubjectTransforms: []jetstream.SubjectTransformConfig{transform("in.>", "second.>")}},
				}},
			},
			stream: jetstream.StreamConfig{Sources: []*jetstream.StreamSource{
				{Name: "SECOND", SubjectTransforms: []jetstream.SubjectTransformConfig{transform("second.>", "third.>")}},
			}}, publish: "in.a.b",
		},
		"a mirror": {
			origins: []jetstream.StreamConfig{{Name: "FIRST", Subjects: []string{"in.>"}}},
			stream: jetstream.StreamConfig{Mirror: &jetstream.StreamSource{
				Name: "FIRST", SubjectTransforms: []jetstream.SubjectTransformConfig{transform("in.>", "mirrored.>")},
			}}, publish: "in.a.b",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := connect(t, natstest.RunServer(t), nil)
			ctx := context.Background()
			c.stream.Name = "ORDERS"
			for _, cfg := range append(c.origins, c.stream) {
				_, err := client.CreateStream(ctx, &cfg)
				require.NoError(t, err)
			}
			newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
			handled := make(chan *nats.Message, 2)
			var tries atomic.Int32
			consume(t, client, func(msg *nats.Message) error {
				handled <- msg
				if tries.Add(1) == 1 {
					return nats.Permanent(errPoison)
				}
				return nil
			})
			_, err := client.PublishToStream(ctx, c.publish, []byte("x"))
			require.NoError(t, err)
			before := <-handled
			eventually(t, "it is dead", func() bool { return len(deadLettersOf(t, client, "ORDERS_DLQ")) == 1 })
			count, err := client.ReplayDeadLetters(ctx, "ORDERS")
			require.NoError(t, err)
			assert.Equal(t, 1, count)
			select {
			case again := <-handled:
				assert.Equal(t, before.Subject, again.Subject)
			case <-time.After(patience):
				t.Error("it did not come back")
			}
		})
	}
}

// Only the leader of the dead letters knows them all: a replica that lags would end a replay early, without an
// error.
func TestReplayAsksTheLeader(t *testing.T) {
	t.Parallel()
	s := restricted(t, &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.API.DIRECT.GET.>"}}})
	admin, client := connect(t, s, as("admin")), connect(t, s, as("u"))
	ctx := context.Background()
	fillDeadLetters(t, admin, 3)
	info, err := admin.GetStreamInfo(ctx, "ORDERS_DLQ")
	require.NoError(t, err)
	info.Config.AllowDirect = true
	_, err = admin.UpdateStream(ctx, &info.Config)
	require.NoError(t, err)
	count, err := client.ReplayDeadLetters(ctx, "ORDERS")
	require.NoError(t, err)
	assert.Equal(t, 3, count)
}
