package nats_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
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

// Domains joined by a leaf node hear each other's subjects: an acknowledgement of the other's stream is not what
// a client of this domain waits for.
func TestAcknowledgementOfAnotherDomain(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	pair := leafPair(t, nil)
	hub := connect(t, pair["hub"], func(c *nats.Config) { c.JetStreamDomain = "hub" })
	leaf := connect(t, pair["leaf"], func(c *nats.Config) { c.JetStreamDomain = "leaf" })
	_, err := leaf.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders"}})
	require.NoError(t, err)
	eventually(t, "the leaf's stream to be heard of", func() bool {
		_, err := connect(t, pair["hub"], func(c *nats.Config) { c.JetStreamDomain = "leaf" }).PublishToStream(ctx, "orders", nil)
		return err == nil
	})
	publish := map[string]func() (*jetstream.PubAck, error){
		"sync": func() (*jetstream.PubAck, error) { return hub.PublishToStream(ctx, "orders", nil) },
		"async": func() (*jetstream.PubAck, error) {
			future, err := hub.PublishAsync(ctx, &nats.Message{Subject: "orders"})
			require.NoError(t, err)
			select {
			case ack := <-future.Ok():
				return ack, nil
			case err := <-future.Err():
				return nil, err
			}
		},
	}
	for name, publish := range publish {
		var err error
		eventually(t, "the leaf's answer comes before the hub's search for a stream is over", func() bool {
			_, err = publish()
			require.Error(t, err, name)
			return !errors.Is(err, nats.ErrNoStream)
		})
		require.ErrorIs(t, err, nats.ErrWrongDomain, name)
		require.ErrorContains(t, err, `the stream "ORDERS" of "leaf", and not of "hub"`)
		require.Equal(t, 1, strings.Count(err.Error(), nats.ErrWrongDomain.Error()), err)
	}
	_, err = hub.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders"}})
	require.NoError(t, err)
	for name, publish := range publish {
		for range 20 {
			ack, err := publish()
			require.NoError(t, err, name)
			require.Equal(t, "hub", ack.Domain)
		}
	}
}

// accounts runs a server whose account STORE has JetStream, and whose account SERVICE imports from it.
func accounts(t *testing.T, imports ...string) *natstest.Server {
	t.Helper()
	config := new(server.Options)
	err := config.ProcessConfigString(`accounts {
		STORE { jetstream: enabled, users: [{user: store, password: p}], exports: [
			{service: "$JS.API.>", response_type: stream}, {service: "$JS.ACK.>"},
			{service: "orders.>"}, {service: "$KV.>"}, {service: "$O.>"}] }
		SERVICE { users: [{user: service, password: p}], imports: [` + strings.Join(imports, ", ") + `] }
		BARE { users: [{user: bare, password: p}] }
	}`)
	require.NoError(t, err)
	return natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) {
		o.Accounts, o.Users = config.Accounts, config.Users
	}))
}

func importOf(subject, to string) string {
	return fmt.Sprintf("{service: {account: STORE, subject: %q}, to: %q}", subject, to)
}

// A prefix reaches all that asks JetStream: another account's, imported.
func TestPrefixOfAnotherAccount(t *testing.T) {
	t.Parallel()
	s := accounts(t, importOf("$JS.API.>", "js.store.>"), importOf("$JS.ACK.>", "$JS.ACK.>"), importOf("orders.>", "orders.>"),
		importOf("$KV.>", "js.store.$KV.>"), importOf("$O.>", "$O.>"))
	var asked atomic.Int64
	client := connect(t, s, func(c *nats.Config) {
		c.Username, c.Password, c.JetStreamAPIPrefix = "service", "p", "js.store"
	}, nats.WithJetStreamOptions(jetstream.WithClientTrace(&jetstream.ClientTrace{RequestSent: func(subject string, _ []byte) {
		if strings.HasPrefix(subject, "js.store.") {
			asked.Add(1)
		}
	}})))
	ctx := context.Background()
	newStream(t, client, 3)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "c"})
	assert.Positive(t, asked.Load())
	messages, err := client.PullMessages(ctx, "ORDERS", "c", 1)
	require.NoError(t, err)
	require.Len(t, messages, 1)
	require.NoError(t, client.AckMessage(ctx, messages[0]))
	var handled atomic.Int64
	_, err = client.Consume(ctx, "ORDERS", "c", func(*nats.Message) error { handled.Add(1); return nil })
	require.NoError(t, err)
	eventually(t, "the other messages", func() bool { return handled.Load() == 2 })
	read := 0
	for _, err := range client.ReadStream(ctx, "ORDERS") {
		require.NoError(t, err)
		read++
	}
	assert.Equal(t, 3, read)
	kv, err := client.CreateKeyValue(ctx, "config")
	require.NoError(t, err)
	_, err = kv.PutString(ctx, "key", "value")
	require.NoError(t, err)
	entry, err := kv.Get(ctx, "key")
	require.NoError(t, err)
	assert.Equal(t, "value", string(entry.Value()))
	for entry, err := range kv.All(ctx) {
		require.NoError(t, err)
		assert.Equal(t, "key", entry.Key())
	}
	objects, err := client.CreateObjectStore(ctx, "files")
	require.NoError(t, err)
	want := bytes.Repeat([]byte("x"), 300_000)
	_, err = objects.PutBytes(ctx, "o", want)
	require.NoError(t, err)
	got, err := objects.GetBytes(ctx, "o")
	require.NoError(t, err)
	assert.True(t, bytes.Equal(want, got))
}

// Where the subject is imported, the account's own streams say nothing: silence is no evidence.
func TestSilenceBehindAnImport(t *testing.T) {
	t.Parallel()
	s := accounts(t, importOf("orders.>", "orders.>"))
	client := connect(t, s, func(c *nats.Config) { c.Username, c.Password = "service", "p" })
	store := connect(t, s, func(c *nats.Config) { c.Username, c.Password = "store", "p" })
	ctx := within(t, time.Minute)
	silent, err := store.Subscribe(ctx, "orders.>", func(*nats.Message) error { return nil })
	require.NoError(t, err)
	published := make(chan error, 1)
	go func() {
		_, err := client.PublishToStream(ctx, "orders.new", nil)
		published <- err
	}()
	select {
	case err := <-published:
		require.NoError(t, err, "before there is a stream")
	case <-time.After(2 * time.Second):
	}
	newStream(t, store, 0)
	require.NoError(t, silent.Unsubscribe())
	require.NoError(t, <-published)
}

// An account without JetStream hears so at once, a server without it as well, whatever is asked.
func TestAccountWithoutJetStream(t *testing.T) {
	t.Parallel()
	for name, client := range map[string]*nats.Client{
		"account": connect(t, accounts(t), func(c *nats.Config) { c.Username, c.Password, c.RequestTimeout = "bare", "p", time.Minute }),
		"server":  connect(t, natstest.RunServer(t, natstest.WithoutJetStream()), func(c *nats.Config) { c.RequestTimeout = time.Minute }),
	} {
		ctx, begin := context.Background(), time.Now()
		for call, err := range map[string]error{
			"CreateStream":      second(client.CreateStream(ctx, &jetstream.StreamConfig{Name: "S"})),
			"GetStream":         second(client.GetStream(ctx, "S")),
			"GetStreamInfo":     second(client.GetStreamInfo(ctx, "S")),
			"DeleteStream":      client.DeleteStream(ctx, "S"),
			"PublishToStream":   second(client.PublishToStream(ctx, "s", nil)),
			"PublishAtomic":     second(client.PublishAtomic(ctx, []*nats.Message{{Subject: "s"}, {Subject: "s"}})),
			"PullMessages":      second(client.PullMessages(ctx, "S", "c", 1)),
			"Consume":           second(client.Consume(ctx, "S", "c", func(*nats.Message) error { return nil })),
			"CreateKeyValue":    second(client.CreateKeyValue(ctx, "kv")),
			"GetKeyValue":       second(client.GetKeyValue(ctx, "kv")),
			"CreateObjectStore": second(client.CreateObjectStore(ctx, "o")),
			"ReplayDeadLetters": second(client.ReplayDeadLetters(ctx, "S")),
		} {
			assert.ErrorIs(t, err, nats.ErrJetStreamDisabled, "%s: %s", name, call)
		}
		for _, err := range client.ReadStream(ctx, "S") {
			assert.ErrorIs(t, err, nats.ErrJetStreamDisabled, "%s: ReadStream", name)
		}
		assert.Less(t, since(begin), 20*time.Second)
	}
}

// Who may not look for a stream and hears that nobody listens: on a server of its own that is soon final.
func TestNoRightToLookForTheStream(t *testing.T) {
	t.Parallel()
	s := restricted(t, &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.API.>"}}})
	client := connect(t, s, func(c *nats.Config) { c.Username, c.Password, c.RequestTimeout = "u", "p", time.Minute })
	begin := time.Now()
	_, err := client.PublishToStream(context.Background(), "orders.new", nil)
	require.ErrorIs(t, err, nats.ErrNoStream)
	assert.Greater(t, time.Since(begin), 2*time.Second-time.Millisecond)
	assert.Less(t, since(begin), 20*time.Second)

	far := connect(t, s, func(c *nats.Config) { c.Username, c.Password, c.JetStreamDomain = "u", "p", "far" })
	ctx := within(t, 3*time.Second)
	_, err = far.PublishToStream(ctx, "orders.new", nil)
	require.ErrorIs(t, err, nats.ErrTimeout)
}

// What nobody answers says what that may mean.
func TestSilenceOfTheAPI(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	core := raw(t, s)
	_, err := core.SubscribeSync("$JS.nowhere.API.>")
	require.NoError(t, err)
	require.NoError(t, core.Flush())
	client := connect(t, s, func(c *nats.Config) { c.JetStreamDomain = "nowhere" })
	for name, call := range map[string]func(context.Context) error{
		"ask":  func(ctx context.Context) error { _, err := client.GetStreamInfo(ctx, "ORDERS"); return err },
		"look": func(ctx context.Context) error { _, err := client.GetConsumer(ctx, "ORDERS", "worker"); return err },
		"read": func(ctx context.Context) error {
			for _, err := range client.ReadStream(ctx, "ORDERS") {
				return err
			}
			return nil
		},
	} {
		err := call(within(t, time.Second))
		require.ErrorIs(t, err, nats.ErrTimeout, name)
		require.ErrorContains(t, err, "its leader is missing, or a majority of its servers", name)
	}
}

// A write that nobody answers says so, too.
func TestSilenceOfAStream(t *testing.T) {
	t.Parallel()
	client, proxy := through(t, natstest.RunServer(t))
	ctx := context.Background()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders"}, AllowAtomicPublish: true})
	require.NoError(t, err)
	kv, err := client.CreateKeyValue(ctx, "b")
	require.NoError(t, err)
	files, err := client.CreateObjectStore(ctx, "files")
	require.NoError(t, err)
	_, err = files.PutString(ctx, "first", "it knows the bucket")
	require.NoError(t, err)
	proxy.BlackHole()
	for name, call := range map[string]func(context.Context) error{
		"publish": func(ctx context.Context) error { return second(client.PublishToStream(ctx, "orders", nil)) },
		"batch": func(ctx context.Context) error {
			return second(client.PublishBatch(ctx, []*nats.Message{{Subject: "orders"}}))
		},
		"atomic": func(ctx context.Context) error {
			return second(client.PublishAtomic(ctx, []*nats.Message{{Subject: "orders"}, {Subject: "orders"}}))
		},
		"put":    func(ctx context.Context) error { return second(kv.Put(ctx, "k", nil)) },
		"create": func(ctx context.Context) error { return second(kv.Create(ctx, "k", nil)) },
		"object": func(ctx context.Context) error { return second(files.PutString(ctx, "name", "content")) },
	} {
		err := call(within(t, time.Second))
		require.ErrorIs(t, err, nats.ErrTimeout, name)
		require.ErrorContains(t, err, "its leader is missing, or a majority of its servers", name)
		require.True(t, nats.IsUncertain(err), name)
	}
}

// What makes or fetches a handle outlasts a connection that swallows its question, and one that breaks under it.
func TestHandlesOverABrokenConnection(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	proxy := natstest.NewProxy(t, s.URL())
	client := connect(t, s, func(c *nats.Config) { c.URLs, c.RequestTimeout = []string{proxy.URL()}, 30*time.Second })
	ctx := context.Background()
	calls := []func() error{
		func() error {
			return second(client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}}))
		},
		func() error {
			return second(client.CreateConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{Name: "c"}))
		},
		func() error { return second(client.GetConsumer(ctx, "ORDERS", "c")) },
		func() error { return client.PauseConsumer(ctx, "ORDERS", "c", time.Now().Add(time.Hour)) },
		func() error { return client.PurgeStream(ctx, "ORDERS") },
		func() error { return second(client.CreateKeyValue(ctx, "b")) },
		func() error { return second(client.CreateObjectStore(ctx, "b")) },
		func() error { return client.DeleteConsumer(ctx, "ORDERS", "c") },
		func() error { return client.DeleteStream(ctx, "ORDERS") },
		func() error { return client.DeleteKeyValue(ctx, "b") },
	}
	for i, call := range calls {
		proxy.BlackHole()
		done := make(chan error, 1)
		go func() { done <- call() }()
		select {
		case err := <-done:
			require.NoError(t, err, i)
		case <-time.After(50 * time.Millisecond): // it has been sent
		}
		proxy.Cut()
		proxy.Restore()
		begin := time.Now()
		require.NoError(t, <-done, i)
		assert.Less(t, since(begin), 10*time.Second, i)
	}
}
