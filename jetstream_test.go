package nats_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
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

// newStream creates a stream ORDERS on orders.> with n messages in it.
func newStream(t testing.TB, client *nats.Client, n int) {
	t.Helper()
	ctx := within(t, patience)
	eventually(t, "the stream is made", func() bool {
		_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}})
		if err != nil {
			t.Log(err) // the server may still be removing the files of an old one
		}
		return err == nil
	})
	for i := range n {
		_, err := client.PublishToStream(ctx, "orders.created", []byte(fmt.Sprint(i)))
		require.NoError(t, err)
	}
}

func newConsumer(t testing.TB, client *nats.Client, cfg jetstream.ConsumerConfig) {
	t.Helper()
	_, err := client.CreateConsumer(within(t, patience), "ORDERS", &cfg)
	require.NoError(t, err)
}

func TestStreams(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	cfg := &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, MaxMsgs: 10}
	stream, err := client.CreateStream(ctx, cfg)
	require.NoError(t, err)
	assert.EqualValues(t, 10, stream.CachedInfo().Config.MaxMsgs)
	assert.Equal(t, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, MaxMsgs: 10}, cfg, "left alone")
	_, err = client.CreateStream(ctx, cfg)
	require.NoError(t, err, "the same again")
	_, err = client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"other"}})
	require.ErrorIs(t, err, nats.ErrAlreadyExists)
	require.ErrorIs(t, err, jetstream.ErrStreamNameAlreadyInUse)

	cfg.MaxMsgs = 20
	_, err = client.UpdateStream(ctx, cfg)
	require.NoError(t, err)
	info, err := client.GetStreamInfo(ctx, "ORDERS")
	require.NoError(t, err)
	assert.EqualValues(t, 20, info.Config.MaxMsgs)
	_, err = client.PublishToStream(ctx, "orders.created", nil)
	require.NoError(t, err)
	require.NoError(t, client.PurgeStream(ctx, "ORDERS"))
	stream, err = client.GetStream(ctx, "ORDERS")
	require.NoError(t, err)
	assert.Zero(t, stream.CachedInfo().State.Msgs)
	require.NoError(t, client.DeleteStream(ctx, "ORDERS"))

	_, err = client.GetStream(ctx, "ORDERS")
	require.ErrorIs(t, err, nats.ErrStreamNotFound)
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound)
	require.ErrorIs(t, client.DeleteStream(ctx, "ORDERS"), nats.ErrStreamNotFound)
	require.ErrorIs(t, client.PurgeStream(ctx, "ORDERS"), nats.ErrStreamNotFound)
	_, err = client.UpdateStream(ctx, cfg)
	require.ErrorIs(t, err, nats.ErrStreamNotFound)
	_, err = client.CreateConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{Name: "c"})
	require.ErrorIs(t, err, nats.ErrStreamNotFound)
}

func TestStreamDefaults(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, func(c *nats.Config) { c.DefaultStorageType = "memory"; c.DefaultStreamReplicas = 1 })
	ctx := context.Background()
	stream, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "S"})
	require.NoError(t, err)
	assert.Equal(t, jetstream.MemoryStorage, stream.CachedInfo().Config.Storage)
	kv, err := client.CreateKeyValue(ctx, "kv")
	require.NoError(t, err)
	status, err := kv.Status(ctx)
	require.NoError(t, err)
	assert.Equal(t, "JetStream", status.BackingStore())
	info, err := client.GetStreamInfo(ctx, "KV_kv")
	require.NoError(t, err)
	assert.Equal(t, jetstream.MemoryStorage, info.Config.Storage)
	_, err = client.CreateObjectStore(ctx, "objects")
	require.NoError(t, err)
	info, err = client.GetStreamInfo(ctx, "OBJ_objects")
	require.NoError(t, err)
	assert.Equal(t, jetstream.MemoryStorage, info.Config.Storage)

	// A single server refuses three replicas, which shows that they are asked for.
	three := connect(t, s, func(c *nats.Config) { c.DefaultStreamReplicas = 3 })
	_, err = three.CreateStream(ctx, &jetstream.StreamConfig{Name: "R3"})
	require.Error(t, err)
	_, err = three.CreateStream(ctx, &jetstream.StreamConfig{Name: "R1", Replicas: 1})
	require.NoError(t, err)
}

func TestPublishToStream(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	newStream(t, client, 0)
	header := natsgo.Header{"K": {"v"}}
	msg := &nats.Message{Subject: "orders.created", Header: header, Data: []byte("1")}
	ack, err := client.PublishMsgToStream(ctx, msg, jetstream.WithMsgID("one"))
	require.NoError(t, err)
	assert.EqualValues(t, 1, ack.Sequence)
	assert.Equal(t, natsgo.Header{"K": {"v"}}, header, "upstream writes the ID into the caller's header")
	again, err := client.PublishMsgToStream(ctx, msg, jetstream.WithMsgID("one"))
	require.NoError(t, err)
	assert.True(t, again.Duplicate)

	_, err = client.PublishToStream(ctx, "nowhere", nil)
	require.ErrorIs(t, err, nats.ErrNoStream)
	require.ErrorIs(t, err, jetstream.ErrNoStreamResponse)
	require.ErrorContains(t, err, `"nowhere"`)
	_, err = client.PublishToStream(ctx, "orders.created", nil, jetstream.WithExpectLastSequence(7))
	require.ErrorIs(t, err, nats.ErrConflict)

	_, err = client.CreateStream(ctx, &jetstream.StreamConfig{
		Name: "SMALL", Subjects: []string{"small"}, MaxMsgs: 1, MaxMsgSize: 100, Discard: jetstream.DiscardNew,
	})
	require.NoError(t, err)
	_, err = client.PublishToStream(ctx, "small", make([]byte, 101))
	require.ErrorIs(t, err, nats.ErrPayloadTooLarge)
	_, err = client.PublishToStream(ctx, "small", nil)
	require.NoError(t, err)
	_, err = client.PublishToStream(ctx, "small", nil)
	require.ErrorIs(t, err, nats.ErrStreamFull)
}

// Upstream makes the consumer of the same configuration ephemeral, and the server drops it 5 s
// after the last pull.
func TestNamedConsumerIsDurable(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	newStream(t, client, 0)
	create := func(cfg jetstream.ConsumerConfig) jetstream.ConsumerConfig {
		consumer, err := client.CreateConsumer(ctx, "ORDERS", &cfg)
		require.NoError(t, err)
		return consumer.CachedInfo().Config
	}
	named := jetstream.ConsumerConfig{Name: "named"}
	assert.Equal(t, "named", create(named).Durable)
	assert.Empty(t, named.Durable, "left alone")
	assert.Zero(t, create(named).InactiveThreshold)
	assert.Empty(t, create(jetstream.ConsumerConfig{}).Durable)
	assert.Empty(t, create(jetstream.ConsumerConfig{Name: "brief", InactiveThreshold: time.Minute}).Durable)
	assert.Equal(t, "durable", create(jetstream.ConsumerConfig{Durable: "durable"}).Name)

	upstream, err := client.JetStream().CreateConsumer(ctx, "ORDERS", jetstream.ConsumerConfig{Name: "upstream"})
	require.NoError(t, err)
	assert.Equal(t, 5*time.Second, upstream.CachedInfo().Config.InactiveThreshold)

	_, err = client.CreateConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{Name: "named", MaxDeliver: 7})
	require.ErrorIs(t, err, nats.ErrAlreadyExists)
	info, err := client.GetConsumerInfo(ctx, "ORDERS", "named")
	require.NoError(t, err)
	assert.Equal(t, "named", info.Name)
	require.NoError(t, client.DeleteConsumer(ctx, "ORDERS", "named"))
	_, err = client.GetConsumer(ctx, "ORDERS", "named")
	require.ErrorIs(t, err, nats.ErrConsumerNotFound)
	require.ErrorIs(t, client.DeleteConsumer(ctx, "ORDERS", "named"), nats.ErrConsumerNotFound)
}

// jetStreamCalls returns the errors of the calls of a client about streams, consumers and buckets, each called once.
func jetStreamCalls(ctx context.Context, client *nats.Client) map[string]error {
	return map[string]error{
		"CreateStream":       second(client.CreateStream(ctx, &jetstream.StreamConfig{Name: "S"})),
		"UpdateStream":       second(client.UpdateStream(ctx, &jetstream.StreamConfig{Name: "S"})),
		"GetStream":          second(client.GetStream(ctx, "S")),
		"GetStreamInfo":      second(client.GetStreamInfo(ctx, "S")),
		"PurgeStream":        client.PurgeStream(ctx, "S"),
		"DeleteStream":       client.DeleteStream(ctx, "S"),
		"PublishToStream":    second(client.PublishToStream(ctx, "s", nil)),
		"PublishMsgToStream": second(client.PublishMsgToStream(ctx, &nats.Message{Subject: "s"})),
		"PublishAsync":       second(client.PublishAsync(ctx, &nats.Message{Subject: "s"})),
		"PublishBatch":       second(client.PublishBatch(ctx, []*nats.Message{{Subject: "s"}})),
		"PublishAtomic":      second(client.PublishAtomic(ctx, []*nats.Message{{Subject: "s"}})),
		"EnsureStream":       second(client.EnsureStream(ctx, &jetstream.StreamConfig{Name: "S"})),
		"EnsureConsumer":     second(client.EnsureConsumer(ctx, "S", &jetstream.ConsumerConfig{Name: "c"})),
		"PauseConsumer":      client.PauseConsumer(ctx, "S", "c", time.Now()),
		"ResumeConsumer":     client.ResumeConsumer(ctx, "S", "c"),
		"CreateConsumer":     second(client.CreateConsumer(ctx, "S", &jetstream.ConsumerConfig{Name: "c"})),
		"GetConsumer":        second(client.GetConsumer(ctx, "S", "c")),
		"GetConsumerInfo":    second(client.GetConsumerInfo(ctx, "S", "c")),
		"DeleteConsumer":     client.DeleteConsumer(ctx, "S", "c"),
		"PullMessages":       second(client.PullMessages(ctx, "S", "c", 1)),
		"CreateKeyValue":     second(client.CreateKeyValue(ctx, "kv")),
		"GetKeyValue":        second(client.GetKeyValue(ctx, "kv")),
		"DeleteKeyValue":     client.DeleteKeyValue(ctx, "kv"),
		"CreateObjectStore":  second(client.CreateObjectStore(ctx, "o")),
		"GetObjectStore":     second(client.GetObjectStore(ctx, "o")),
		"DeleteObjectStore":  client.DeleteObjectStore(ctx, "o"),
	}
}

func TestJetStreamDisabled(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, func(c *nats.Config) { c.JetStreamEnabled = false })
	assert.Nil(t, client.JetStream())
	ctx := context.Background()
	for name, err := range jetStreamCalls(ctx, client) {
		assert.ErrorIs(t, err, nats.ErrJetStreamDisabled, name)
	}
}

func TestServerWithoutJetStream(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t, natstest.WithoutJetStream()), nil)
	_, err := client.CreateStream(context.Background(), &jetstream.StreamConfig{Name: "S"})
	require.ErrorIs(t, err, natsgo.ErrNoResponders)
	require.ErrorContains(t, err, "is it enabled on the server")
}

func TestJetStreamDomain(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) { o.JetStreamDomain = "edge" }))
	client := connect(t, s, func(c *nats.Config) { c.JetStreamDomain = "edge" })
	ctx := context.Background()
	newStream(t, client, 1)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "c"})
	messages, err := client.PullMessages(ctx, "ORDERS", "c", 1)
	require.NoError(t, err)
	require.Len(t, messages, 1)
	require.NoError(t, client.AckMessage(ctx, messages[0]))
	objects, err := client.CreateObjectStore(ctx, "objects")
	require.NoError(t, err)
	want := bytes.Repeat([]byte("x"), 300_000)
	_, err = objects.PutBytes(ctx, "o", want)
	require.NoError(t, err)
	got, err := objects.GetBytes(ctx, "o")
	require.NoError(t, err)
	assert.True(t, bytes.Equal(want, got))

	byPrefix := connect(t, s, func(c *nats.Config) { c.JetStreamAPIPrefix = "$JS.edge.API" })
	_, err = byPrefix.GetStreamInfo(ctx, "ORDERS")
	require.NoError(t, err)
	bucket, err := byPrefix.CreateKeyValue(ctx, "bucket")
	require.NoError(t, err)
	_, err = bucket.PutString(ctx, "key", "value")
	require.NoError(t, err)
	_, err = bucket.Get(ctx, "key")
	require.NoError(t, err)

	elsewhere := connect(t, s, func(c *nats.Config) { c.JetStreamDomain = "core"; c.RequestTimeout = 2 * time.Second })
	_, err = elsewhere.GetStream(ctx, "ORDERS")
	require.ErrorIs(t, err, nats.ErrJetStreamDisabled, "the domain is really used")
	require.ErrorIs(t, err, nats.ErrTimeout, "and may be out of reach")
}

// Whatever answers come on begins with the configured prefix: the server permits nothing else.
func TestInboxPrefix(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
			Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX_me.u.>", "hello"}},
		}}}
	}))
	client := connect(t, s, func(c *nats.Config) { c.Username, c.Password, c.InboxPrefix = "u", "p", "_INBOX_me.u" })
	ctx := within(t, patience)
	_, err := client.Subscribe(ctx, "hello", func(m *nats.Message) error { return m.Respond([]byte(m.Reply)) })
	require.NoError(t, err)
	answer, err := client.Request(ctx, "hello", nil, patience)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(string(answer.Data), "_INBOX_me.u."), string(answer.Data))
	newStream(t, client, 1)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "c"})
	messages, err := client.PullMessages(ctx, "ORDERS", "c", 1)
	require.NoError(t, err)
	require.Len(t, messages, 1)
	_, err = client.PublishAsync(ctx, &nats.Message{Subject: "orders.x"})
	require.NoError(t, err)
	read := 0
	for _, err := range client.ReadStream(ctx, "ORDERS") {
		require.NoError(t, err)
		if read++; read == 1 {
			break
		}
	}
	bucket, err := client.CreateKeyValue(ctx, "bucket")
	require.NoError(t, err)
	_, err = bucket.PutString(ctx, "key", "value")
	require.NoError(t, err)
	for _, err := range bucket.All(ctx) {
		require.NoError(t, err)
	}
	objects, err := client.CreateObjectStore(ctx, "objects")
	require.NoError(t, err)
	_, err = objects.PutBytes(ctx, "o", make([]byte, 300_000))
	require.NoError(t, err)
	_, err = objects.GetBytes(ctx, "o")
	require.NoError(t, err)
}

// What the server refuses has a sentinel, and the text says what to do about it.
func TestRefusalsOfStreams(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, Retention: jetstream.WorkQueuePolicy})
	require.NoError(t, err)
	cfg := &jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"other", "orders.new"}}
	_, err = client.CreateStream(ctx, cfg)
	require.ErrorIs(t, err, nats.ErrOverlap)
	require.ErrorContains(t, err, `the stream "ORDERS" stores "orders.new"`)
	_, err = client.EnsureStream(ctx, cfg)
	require.ErrorIs(t, err, nats.ErrOverlap)
	require.ErrorContains(t, err, `the stream "ORDERS" stores "orders.new"`)
	for i, name := range []string{"one", "two"} {
		_, err = client.CreateConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{Name: name})
		assert.Equal(t, i == 1, errors.Is(err, nats.ErrOverlap), err)
	}
	_, err = client.PublishToStream(ctx, "orders.new", nil, jetstream.WithExpectStream("OTHER"))
	require.ErrorIs(t, err, nats.ErrWrongStream)
	require.NotErrorIs(t, err, nats.ErrNoStream)
	_, err = client.PublishToStream(ctx, "orders.new", nil, jetstream.WithMsgTTL(time.Minute))
	require.ErrorIs(t, err, nats.ErrFeatureDisabled)
	_, err = client.CreateStream(ctx, &jetstream.StreamConfig{Name: "WIDE", Replicas: 3})
	require.ErrorIs(t, err, nats.ErrUnsupported)
	_, err = client.CreateStream(ctx, &jetstream.StreamConfig{Name: "BAD", MaxAge: -1})
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
}

// To purge a stream is to purge what it had at that moment, however often it is asked for.
func TestPurgeStream(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s.*"}})
	require.NoError(t, err)
	for i := range 10 {
		_, err := client.PublishToStream(ctx, fmt.Sprintf("s.%d", i%2), nil)
		require.NoError(t, err)
	}
	for left, opts := range map[uint64][]jetstream.StreamPurgeOpt{
		9: {jetstream.WithPurgeSubject("s.0"), jetstream.WithPurgeSequence(2)},
	} {
		require.NoError(t, client.PurgeStream(ctx, "S", opts...))
		info, err := client.GetStreamInfo(ctx, "S")
		require.NoError(t, err)
		assert.Equal(t, left, info.State.Msgs)
	}
	require.NoError(t, client.PurgeStream(ctx, "S", jetstream.WithPurgeSubject("s.0")))
	require.NoError(t, client.PurgeStream(ctx, "S", jetstream.WithPurgeKeep(3)))
	info, err := client.GetStreamInfo(ctx, "S")
	require.NoError(t, err)
	assert.EqualValues(t, 3, info.State.Msgs)
	require.NoError(t, client.PurgeStream(ctx, "S"))
	info, err = client.GetStreamInfo(ctx, "S")
	require.NoError(t, err)
	assert.Zero(t, info.State.Msgs)
	require.ErrorIs(t, client.PurgeStream(ctx, "S", jetstream.WithPurgeKeep(1), jetstream.WithPurgeSequence(1)), nats.ErrInvalidArgument)
	require.ErrorIs(t, client.PurgeStream(ctx, "NONE"), nats.ErrStreamNotFound)
}
