package ensure_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/ensure"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newEnsurer(t *testing.T, o ensure.Options) (ensure.Ensurer, context.Context) {
	t.Helper()
	api, err := jsapi.New(conntest.Open(t, natstest.RunServer(t).URL(), nil), jsapi.Options{Timeout: time.Minute})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ensure.Ensurer{API: api, Log: slog.New(slog.DiscardHandler), Options: o}, ctx
}

func TestWhatIsNotThereIsCreatedAndWhatDoesNoHarmIsChanged(t *testing.T) {
	t.Parallel()
	e, ctx := newEnsurer(t, ensure.Options{Settled: true})
	cfg := jetstream.StreamConfig{Name: "S", Subjects: []string{"a"}, MaxMsgs: 10}
	_, err := e.Stream(ctx, cfg, cfg)
	require.NoError(t, err)
	cfg.Subjects = []string{"a", "b"}
	stream, err := e.Stream(ctx, cfg, cfg)
	require.NoError(t, err)
	assert.Equal(t, cfg.Subjects, stream.CachedInfo().Config.Subjects)

	cfg.MaxMsgs = 5
	_, err = e.Stream(ctx, cfg, cfg)
	var differs *ensure.DriftError
	require.ErrorAs(t, err, &differs)
	require.Len(t, differs.Found, 1)
	assert.Equal(t, "MaxMsgs", differs.Found[0].Field)
	require.ErrorContains(t, err, "MaxMsgs 10 -> 5")
	e.Shrink = true
	stream, err = e.Stream(ctx, cfg, cfg)
	require.NoError(t, err)
	assert.EqualValues(t, 5, stream.CachedInfo().Config.MaxMsgs)

	want := jetstream.ConsumerConfig{Name: "c", Durable: "c", Description: "first"}
	_, err = e.Consumer(ctx, "S", want)
	require.NoError(t, err)
	want.Description = "second"
	consumer, err := e.Consumer(ctx, "S", want)
	require.NoError(t, err)
	assert.Equal(t, "second", consumer.CachedInfo().Config.Description)
	want.DeliverPolicy = jetstream.DeliverNewPolicy
	_, err = e.Consumer(ctx, "S", want)
	require.ErrorAs(t, err, &differs)
}

func TestAnOlderGenerationChangesNothing(t *testing.T) {
	t.Parallel()
	e, ctx := newEnsurer(t, ensure.Options{Generation: 2})
	cfg := jetstream.StreamConfig{Name: "S", Subjects: []string{"a"}, Description: "second"}
	_, err := e.Stream(ctx, cfg, cfg)
	require.NoError(t, err)
	e.Generation, cfg.Description = 1, "first"
	stream, err := e.Stream(ctx, cfg, cfg)
	require.NoError(t, err)
	assert.Equal(t, "second", stream.CachedInfo().Config.Description)
}

func TestCreateOnly(t *testing.T) {
	t.Parallel()
	e, ctx := newEnsurer(t, ensure.Options{CreateOnly: true})
	keys := jetstream.KeyValueConfig{Bucket: "B", History: 1}
	objects := jetstream.ObjectStoreConfig{Bucket: "B"}
	for range 2 {
		_, err := e.KeyValue(ctx, keys, keys)
		require.NoError(t, err)
		require.NoError(t, e.ObjectStore(ctx, objects, objects))
	}
	var differs *ensure.DriftError
	keys.History = 5
	_, err := e.KeyValue(ctx, keys, keys)
	require.ErrorAs(t, err, &differs)
	objects.Description = "another"
	require.ErrorAs(t, e.ObjectStore(ctx, objects, objects), &differs)
	e.CreateOnly = false
	bucket, err := e.KeyValue(ctx, keys, keys)
	require.NoError(t, err)
	assert.EqualValues(t, 5, bucket.CachedInfo().Config.MaxMsgsPerSubject)
	require.NoError(t, e.ObjectStore(ctx, objects, objects))
}
