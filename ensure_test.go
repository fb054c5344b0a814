package nats_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// Upstream's CreateOrUpdateStream with an older pod's configuration deletes 990 of 1,000 messages, one
// subject and the age limit, and returns nil.
func TestEnsureStreamNeverShrinks(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	_, err := client.EnsureStream(ctx, &jetstream.StreamConfig{
		Name: "S", Subjects: []string{"s.>", "t.>"}, MaxMsgs: 1000, MaxAge: time.Hour, Description: "v2",
	})
	require.NoError(t, err, "creates it")
	msgs := make([]*nats.Message, 1000)
	for i := range msgs {
		msgs[i] = &nats.Message{Subject: "s.a"}
	}
	_, err = client.PublishBatch(ctx, msgs)
	require.NoError(t, err)
	before, err := client.GetStreamInfo(ctx, "S")
	require.NoError(t, err)

	old := &jetstream.StreamConfig{
		Name: "S", Subjects: []string{"s.>"}, MaxMsgs: 10, MaxAge: time.Minute, Description: "v1", Storage: jetstream.MemoryStorage,
	}
	_, err = client.EnsureStream(ctx, old)
	var drift *nats.DriftError
	require.ErrorAs(t, err, &drift)
	require.ErrorIs(t, err, nats.ErrAlreadyExists)
	assert.Equal(t, &nats.DriftError{Stream: "S", Drifts: []nats.Drift{
		{Field: "Description", Live: "v2", Want: "v1", Changeable: true},
		{Field: "Subjects", Live: []string{"s.>", "t.>"}, Want: []string{"s.>"}, Changeable: true, Shrinks: true, Effect: "no longer stores t.>"},
		{Field: "MaxMsgs", Live: int64(1000), Want: int64(10), Changeable: true, Shrinks: true, Effect: "deletes 990 messages"},
		{Field: "MaxAge", Live: time.Hour, Want: time.Minute, Changeable: true, Shrinks: true, Effect: "deletes messages sooner"},
		{Field: "Storage", Live: jetstream.FileStorage, Want: jetstream.MemoryStorage},
	}}, drift)
	for _, part := range []string{`"S"`, "MaxMsgs 1000 -> 10 (deletes 990 messages)", "Storage File -> Memory (cannot be changed)", "Description v2 -> v1,"} {
		require.ErrorContains(t, err, part)
	}
	_, err = client.EnsureStream(ctx, old, nats.AllowShrink())
	require.ErrorAs(t, err, &drift, "what cannot be changed is not half done")
	after, err := client.GetStreamInfo(ctx, "S")
	require.NoError(t, err)
	assert.Equal(t, before.Config, after.Config)
	assert.EqualValues(t, 1000, after.State.Msgs)

	old.Storage = 0
	stream, err := client.EnsureStream(ctx, old, nats.AllowShrink())
	require.NoError(t, err)
	assert.EqualValues(t, 10, stream.CachedInfo().State.Msgs)
	config := stream.CachedInfo().Config
	assert.Equal(t, []string{"s.>"}, config.Subjects)
	assert.Equal(t, time.Minute, config.MaxAge)
	assert.Equal(t, time.Minute, config.Duplicates, "cannot be longer than the age")
}

func TestEnsureStreamZeroMeansAsItIs(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), func(c *nats.Config) { c.DefaultStorageType = "memory" })
	ctx := context.Background()
	full := &jetstream.StreamConfig{
		Name: "S", Description: "text", Subjects: []string{"s.a.>"}, MaxConsumers: 7, MaxMsgs: 100, MaxBytes: 1 << 20,
		Discard: jetstream.DiscardNew, MaxAge: time.Hour, MaxMsgsPerSubject: 9, MaxMsgSize: 1000, Duplicates: time.Minute,
		Retention: jetstream.InterestPolicy, DenyDelete: true, AllowRollup: true, AllowDirect: true, AllowMsgTTL: true,
		Compression: jetstream.S2Compression, Metadata: map[string]string{"a": "1"}, AllowAtomicPublish: true,
	}
	_, err := client.EnsureStream(ctx, full)
	require.NoError(t, err)
	before, err := client.GetStreamInfo(ctx, "S")
	require.NoError(t, err)
	assert.Equal(t, jetstream.MemoryStorage, before.Config.Storage, "the client's default")
	stream, err := client.EnsureStream(ctx, &jetstream.StreamConfig{Name: "S"})
	require.NoError(t, err)
	assert.Equal(t, before.Config, stream.CachedInfo().Config)
	_, err = client.EnsureStream(ctx, full)
	require.NoError(t, err)

	stream, err = client.EnsureStream(ctx, &jetstream.StreamConfig{
		Name: "S", Subjects: []string{"other", "s.a.>"}, MaxMsgs: -1, MaxAge: 2 * time.Hour, Metadata: map[string]string{"b": "2"},
	})
	require.NoError(t, err, "growing needs no leave")
	config := stream.CachedInfo().Config
	assert.EqualValues(t, -1, config.MaxMsgs)
	assert.Equal(t, 2*time.Hour, config.MaxAge)
	assert.Equal(t, "1", config.Metadata["a"])
	assert.Equal(t, "2", config.Metadata["b"])
	assert.EqualValues(t, 1<<20, config.MaxBytes)

	_, err = client.EnsureStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{">"}})
	require.Error(t, err, "the server refuses it: it would store the acknowledgements")
	stream, err = client.EnsureStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"other", "s.>"}})
	require.NoError(t, err, "a wildcard keeps the subjects that it covers: %v", config.Subjects)
	assert.Len(t, stream.CachedInfo().Config.Subjects, 2)
	_, err = client.EnsureStream(ctx, &jetstream.StreamConfig{Name: "S", Retention: jetstream.WorkQueuePolicy}, nats.AllowShrink())
	var drift *nats.DriftError
	require.ErrorAs(t, err, &drift)
	assert.False(t, drift.Drifts[0].Changeable)
	_, err = client.EnsureStream(ctx, nil)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
}

// Two releases of a service restart in any order, also at the same time. The newer one lowers one
// limit and raises another, so that the values alone do not tell which is the newer.
func TestTheNewerConfigurationWins(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	configs := []jetstream.StreamConfig{
		{Name: "S", Subjects: []string{"a", "b"}, MaxMsgs: 10, MaxAge: time.Hour, Description: "v1"},
		{Name: "S", Subjects: []string{"a", "c"}, MaxMsgs: 1000, MaxAge: time.Minute, Description: "v2"},
	}
	consumers := []jetstream.ConsumerConfig{
		{Name: "c", MaxDeliver: 5, AckWait: time.Minute, Description: "v1"},
		{Name: "c", MaxDeliver: 9, AckWait: time.Second, Description: "v2"},
	}
	restart := func(version int) {
		generation := nats.WithGeneration(uint64(version + 1))
		_, err := client.EnsureStream(ctx, &configs[version], generation, nats.AllowShrink())
		assert.NoError(t, err)
		_, err = client.EnsureConsumer(ctx, "S", &consumers[version], generation, nats.AllowShrink())
		assert.NoError(t, err)
	}
	newest := 0
	for i := range 50 {
		version := rand.IntN(2)
		if i == 25 {
			version = 1
		}
		restart(version)
		newest = max(newest, version)
		info, err := client.GetStreamInfo(ctx, "S")
		require.NoError(t, err)
		require.Equal(t, configs[newest].Description, info.Config.Description, "restart %d", i)
	}
	var wg sync.WaitGroup
	for version := range 2 {
		wg.Go(func() {
			for range 25 {
				restart(version)
			}
		})
	}
	wg.Wait()
	info, err := client.GetStreamInfo(ctx, "S")
	require.NoError(t, err)
	assert.Equal(t, "v2", info.Config.Description)
	assert.Equal(t, []string{"a", "c"}, info.Config.Subjects)
	assert.EqualValues(t, 1000, info.Config.MaxMsgs)
	assert.Equal(t, time.Minute, info.Config.MaxAge)
	consumer, err := client.GetConsumerInfo(ctx, "S", "c")
	require.NoError(t, err)
	assert.Equal(t, 9, consumer.Config.MaxDeliver)
	assert.Equal(t, time.Second, consumer.Config.AckWait)

	_, err = client.EnsureStream(ctx, &jetstream.StreamConfig{Name: "S", Description: "v0"})
	require.NoError(t, err, "a release from before the numbers is older")
	info, err = client.GetStreamInfo(ctx, "S")
	require.NoError(t, err)
	assert.Equal(t, "v2", info.Config.Description)
}

// Without numbers the older release is refused, or finds nothing to change.
func TestTheNewerConfigurationStaysWithoutNumbers(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	v1 := &jetstream.StreamConfig{Name: "S", Subjects: []string{"a"}, MaxMsgs: 10}
	v2 := &jetstream.StreamConfig{Name: "S", Subjects: []string{"a", "b"}, MaxMsgs: 1000, MaxAge: time.Hour}
	_, err := client.EnsureStream(ctx, v2)
	require.NoError(t, err)
	for range 50 {
		if rand.IntN(2) == 0 {
			_, err = client.EnsureStream(ctx, v2)
			require.NoError(t, err)
			continue
		}
		_, err = client.EnsureStream(ctx, v1)
		require.ErrorIs(t, err, nats.ErrAlreadyExists)
	}
	info, err := client.GetStreamInfo(ctx, "S")
	require.NoError(t, err)
	assert.Equal(t, []string{"a", "b"}, info.Config.Subjects)
	assert.EqualValues(t, 1000, info.Config.MaxMsgs)
}

func TestEnsureStreamByManyAtOnce(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			_, err := client.EnsureStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, MaxMsgs: int64(100 + i)})
			if err != nil {
				assert.ErrorIs(t, err, nats.ErrAlreadyExists)
			}
			_, err = client.EnsureConsumer(ctx, "S", &jetstream.ConsumerConfig{Name: "c"})
			assert.NoError(t, err)
		})
	}
	wg.Wait()
}

func TestEnsureConsumer(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	newStream(t, client, 5)
	full := jetstream.ConsumerConfig{
		Name: "c", FilterSubject: "orders.*", MaxDeliver: 5, AckWait: time.Minute, MaxAckPending: 100,
		BackOff: []time.Duration{time.Second, time.Minute}, Metadata: map[string]string{"a": "1"},
	}
	consumer, err := client.EnsureConsumer(ctx, "ORDERS", &full)
	require.NoError(t, err)
	assert.Equal(t, "c", consumer.CachedInfo().Config.Durable)
	before := consumer.CachedInfo().Config
	msgs, err := client.PullMessages(ctx, "ORDERS", "c", 3)
	require.NoError(t, err)
	for _, msg := range msgs {
		require.NoError(t, client.AckMessage(ctx, msg))
	}
	for _, cfg := range []jetstream.ConsumerConfig{{Name: "c"}, {Durable: "c"}, full} {
		consumer, err = client.EnsureConsumer(ctx, "ORDERS", &cfg)
		require.NoError(t, err)
		assert.Equal(t, before, consumer.CachedInfo().Config)
	}
	consumer, err = client.EnsureConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{Name: "c", FilterSubjects: []string{"orders.>"}, MaxDeliver: 9})
	require.NoError(t, err)
	assert.Equal(t, 9, consumer.CachedInfo().Config.MaxDeliver)
	assert.Equal(t, "orders.>", consumer.CachedInfo().Config.FilterSubject)
	assert.EqualValues(t, 3, consumer.CachedInfo().AckFloor.Stream, "it keeps its progress")

	_, err = client.EnsureConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{
		Name: "c", FilterSubject: "orders.created", MaxDeliver: 2, DeliverPolicy: jetstream.DeliverNewPolicy,
	})
	var drift *nats.DriftError
	require.ErrorAs(t, err, &drift)
	assert.Equal(t, &nats.DriftError{Stream: "ORDERS", Consumer: "c", Drifts: []nats.Drift{
		{Field: "DeliverPolicy", Live: jetstream.DeliverAllPolicy, Want: jetstream.DeliverNewPolicy},
		{Field: "MaxDeliver", Live: 9, Want: 2, Changeable: true, Shrinks: true, Effect: "gives up on a message sooner"},
		{
			Field: "FilterSubjects", Live: []string{"orders.>"}, Want: []string{"orders.created"},
			Changeable: true, Shrinks: true, Effect: "no longer delivers orders.>",
		},
	}}, drift)
	require.ErrorContains(t, err, `ensure consumer "ORDERS/c": differs: DeliverPolicy all -> new (cannot be changed)`)
	_, err = client.EnsureConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{Name: "c", FilterSubject: "orders.created"}, nats.AllowShrink())
	require.NoError(t, err)

	_, err = client.EnsureConsumer(ctx, "NONE", &jetstream.ConsumerConfig{Name: "c"})
	require.ErrorIs(t, err, nats.ErrStreamNotFound)
	_, err = client.EnsureConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{})
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	_, err = client.EnsureConsumer(ctx, "ORDERS", nil)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
}

func TestStreamsIterates(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	names := make(map[string]bool)
	for i := range 270 { // the server has 256 on a page
		name := fmt.Sprint("S", i)
		_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: name, Storage: jetstream.MemoryStorage})
		require.NoError(t, err)
		names[name] = true
	}
	for info, err := range client.Streams(ctx) {
		require.NoError(t, err)
		require.True(t, names[info.Config.Name])
		delete(names, info.Config.Name)
	}
	assert.Empty(t, names)
	for _, err := range client.Streams(ctx) {
		require.NoError(t, err)
		break // leaves nothing behind, as goleak sees
	}
	require.NoError(t, client.Close())
	for _, err := range client.Streams(ctx) {
		require.ErrorIs(t, err, nats.ErrClosed)
	}
}

func TestPauseConsumer(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	newStream(t, client, 1)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "c"})
	require.NoError(t, client.PauseConsumer(ctx, "ORDERS", "c", time.Now().Add(time.Hour)))
	info, err := client.GetConsumerInfo(ctx, "ORDERS", "c")
	require.NoError(t, err)
	assert.True(t, info.Paused)
	msgs, err := client.PullMessages(within(t, time.Second), "ORDERS", "c", 1)
	require.NoError(t, err)
	assert.Empty(t, msgs)
	require.NoError(t, client.ResumeConsumer(ctx, "ORDERS", "c"))
	require.NoError(t, client.ResumeConsumer(ctx, "ORDERS", "c"), "twice is fine")
	msgs, err = client.PullMessages(ctx, "ORDERS", "c", 1)
	require.NoError(t, err)
	assert.Len(t, msgs, 1)
	require.ErrorIs(t, client.PauseConsumer(ctx, "ORDERS", "none", time.Now()), nats.ErrConsumerNotFound)
	require.ErrorIs(t, client.ResumeConsumer(ctx, "ORDERS", "none"), nats.ErrConsumerNotFound)
	require.ErrorIs(t, client.ResumeConsumer(ctx, "ORDERS", ""), nats.ErrInvalidArgument)
}

// A server that is away keeps a stream from getting its third replica. The configuration is stored, and that
// is all that EnsureStream tells, unless it is asked to wait.
func TestEnsureStreamWhileItScales(t *testing.T) {
	t.Parallel()
	cluster := natstest.RunCluster(t, 3)
	var logs logBuffer
	ctx := context.Background()
	client := connect(t, cluster.Servers()[0], nil, nats.WithLogger(logs.logger()))
	_, err := client.EnsureStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: 1})
	require.NoError(t, err)
	var away *natstest.Server
	for _, s := range cluster.Servers()[1:] {
		if s != cluster.WaitLeader("S") {
			away = s
		}
	}
	away.Stop()
	three := &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: 3}
	eventually(t, "the cluster has a leader", func() bool {
		_, err = client.EnsureStream(ctx, three)
		return err == nil
	})
	stream, err := client.GetStream(ctx, "S")
	require.NoError(t, err)
	assert.Equal(t, 3, stream.CachedInfo().Config.Replicas)
	if stream.CachedInfo().Cluster.Desired != nil { // a busy machine may look when the server is done
		assert.Contains(t, logs.String(), "the server goes on placing the replicas")
	}
	stream, err = client.EnsureStream(within(t, time.Second), three, nats.WithSettled())
	if err == nil { // the server may be done before the third one is back
		assert.Nil(t, stream.CachedInfo().Cluster.Desired)
	} else {
		require.ErrorIs(t, err, nats.ErrTimeout)
		require.ErrorContains(t, err, "the server goes on placing the replicas")
	}
	away.Restart()
	stream, err = client.EnsureStream(within(t, time.Minute), three, nats.WithSettled())
	require.NoError(t, err)
	assert.Nil(t, stream.CachedInfo().Cluster.Desired)
	assert.Len(t, stream.CachedInfo().Cluster.Replicas, 2, "beside the leader")
	cluster.WaitReady()
}

// What a service ensures at its start is there as soon as the server can do it, whatever happens to the
// connection meanwhile.
func TestEnsureOverBrokenConnections(t *testing.T) {
	t.Parallel()
	client, proxy := through(t, natstest.RunServer(t))
	cutting, end := context.WithCancel(context.Background())
	var cuts sync.WaitGroup
	cuts.Go(func() {
		for cutting.Err() == nil {
			proxy.Cut()
			proxy.Restore()
			pause := time.Duration(rand.IntN(100)) * time.Millisecond
			for begin := time.Now(); since(begin) < pause; time.Sleep(time.Millisecond) {
				continue // a busy machine has connected by then as little as a quiet one
			}
		}
	})
	ctx := within(t, 5*time.Minute)
	for i := range 100 {
		text := fmt.Sprint(i)
		ensureAll(ctx, t, client, text, 1)
		info, err := client.GetStreamInfo(ctx, "S")
		require.NoError(t, err)
		assert.Equal(t, text, info.Config.Description)
	}
	end()
	cuts.Wait()
}

// ensureAll ensures one of each kind.
func ensureAll(ctx context.Context, t *testing.T, client *nats.Client, text string, replicas int) {
	t.Helper()
	_, err := client.EnsureStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Description: text, Replicas: replicas})
	require.NoError(t, err)
	_, err = client.EnsureConsumer(ctx, "S", &jetstream.ConsumerConfig{Name: "c", Description: text})
	require.NoError(t, err)
	_, err = client.EnsureKeyValue(ctx, "conf", nats.WithKeyValueReplicas(replicas),
		nats.WithKeyValueConfig(func(c *jetstream.KeyValueConfig) { c.Description = text }))
	require.NoError(t, err)
	_, err = client.EnsureObjectStore(ctx, "files", nats.WithObjectStoreReplicas(replicas),
		nats.WithObjectStoreConfig(func(c *jetstream.ObjectStoreConfig) { c.Description = text }))
	require.NoError(t, err)
}

// The same while a cluster elects.
func TestEnsureOverElections(t *testing.T) {
	t.Parallel()
	cluster := natstest.RunCluster(t, 3)
	client := connect(t, cluster.Servers()[0], func(c *nats.Config) { c.URLs = cluster.URLs() })
	ctx := within(t, 2*time.Minute)
	ensureAll(ctx, t, client, "first", 3)
	for i := range 5 {
		cluster.StepDown("S")
		cluster.StepDown("KV_conf")
		ensureAll(ctx, t, client, fmt.Sprint("step ", i), 3)
	}
	cluster.WaitReady() // a server that goes while it places a replica leaves its store behind
}
