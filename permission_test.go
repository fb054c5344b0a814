package nats_test

import (
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

func restricted(t *testing.T, permissions *server.Permissions) *natstest.Server {
	return natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: "p", Permissions: permissions}, {Username: "admin", Password: "p"}}
	}))
}

func as(user string) func(*nats.Config) {
	return func(c *nats.Config) { c.Username, c.Password = user, "p" }
}

func TestDeniedSubscriptionIsAnError(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
			Subscribe: &server.SubjectPermission{Allow: []string{"open.>", "_INBOX.>"}},
			Publish:   &server.SubjectPermission{Deny: []string{"secret.>"}},
		}}}
	}))
	var events eventLog
	client := connect(t, s, func(c *nats.Config) { c.Username, c.Password = "u", "p" }, nats.WithEventHandler(events.handle))
	ctx := context.Background()
	handler := func(*nats.Message) error { return nil }
	var wg sync.WaitGroup
	for i := range 20 { // errors of one another must not be mixed up
		wg.Go(func() {
			subject := fmt.Sprintf("closed.%d", i)
			_, err := client.Subscribe(ctx, subject, handler)
			if assert.ErrorIs(t, err, nats.ErrPermission) {
				assert.ErrorIs(t, err, natsgo.ErrPermissionViolation)
				assert.ErrorContains(t, err, subject)
			}
			_, err = client.QueueSubscribe(ctx, subject, "q", handler)
			assert.ErrorIs(t, err, nats.ErrPermission)
			_, err = client.Subscribe(ctx, fmt.Sprintf("open.%d", i), handler)
			assert.NoError(t, err)
		})
	}
	wg.Wait()
	eventually(t, "only the allowed are left", func() bool { return client.Stats().Subscriptions == 20 })
	assert.Empty(t, events.of(nats.EventAsyncError), "the calls have returned them")

	require.NoError(t, client.Publish(ctx, "secret.x", nil))
	eventually(t, "the denied publish", func() bool { return len(events.of(nats.EventAsyncError)) == 1 })
	assert.ErrorIs(t, events.of(nats.EventAsyncError)[0].Err, nats.ErrPermission)
	err := client.Flush(ctx)
	require.ErrorIs(t, err, nats.ErrPermission)
	require.ErrorContains(t, err, `publish "secret.x"`)
	require.NoError(t, client.Flush(ctx), "it is said once")
}

// With nats.go each of these calls waits until its time is up.
func TestDeniedPublishIsAnErrorOfTheCallThatWaits(t *testing.T) {
	t.Parallel()
	s := restricted(t, &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"secret.>"}}})
	admin := connect(t, s, as("admin"))
	ctx := context.Background()
	_, err := admin.CreateStream(ctx, &jetstream.StreamConfig{Name: "SECRETS", Subjects: []string{"secret.>"}})
	require.NoError(t, err)
	var events eventLog
	client := connect(t, s, as("u"), nats.WithEventHandler(events.handle))
	long := within(t, time.Hour)
	for name, call := range map[string]func() error{
		"request": func() error { _, err := client.Request(long, "secret.x", nil, time.Hour); return err },
		"request with headers": func() error {
			_, err := client.RequestMsg(long, &nats.Message{Subject: "secret.x", Header: natsgo.Header{"A": {"b"}}}, time.Hour)
			return err
		},
		"publish to a stream": func() error { _, err := client.PublishToStream(long, "secret.x", nil); return err },
		"publish async": func() error {
			future, err := client.PublishAsync(long, &nats.Message{Subject: "secret.x"})
			require.NoError(t, err)
			return <-future.Err()
		},
		"publish a batch": func() error {
			_, err := client.PublishBatch(long, []*nats.Message{{Subject: "secret.x"}})
			return err
		},
	} {
		err := call()
		require.ErrorIs(t, err, nats.ErrPermission, name)
		require.ErrorIs(t, err, natsgo.ErrPermissionViolation, name)
		require.ErrorContains(t, err, "secret.x", name)
	}
	assert.Empty(t, events.of(nats.EventAsyncError), "the calls have returned them")
	answer, err := client.Request(ctx, "$JS.API.INFO", nil, 0)
	require.NoError(t, err, "other requests are not hurt")
	assert.NotEmpty(t, answer.Data)
}

func TestRequestWithoutInboxPermission(t *testing.T) {
	t.Parallel()
	s := restricted(t, &server.Permissions{Subscribe: &server.SubjectPermission{Deny: []string{"_INBOX.>"}}})
	admin, client := connect(t, s, as("admin")), connect(t, s, as("u"))
	_, err := admin.Subscribe(context.Background(), "echo", func(msg *nats.Message) error { return msg.Respond(msg.Data) })
	require.NoError(t, err)
	for range 2 { // the second tries anew
		_, err = client.Request(context.Background(), "echo", nil, time.Hour)
		require.ErrorIs(t, err, nats.ErrPermission)
		require.ErrorContains(t, err, "_INBOX.")
	}
}

// What was permitted may be denied by the next server: the subscription says so, for as long as it is so.
func TestPermissionWithdrawnAtAReconnect(t *testing.T) {
	t.Parallel()
	permitting := restricted(t, nil)
	denying := restricted(t, &server.Permissions{Subscribe: &server.SubjectPermission{Deny: []string{"secret.>"}}})
	var events eventLog
	client := connect(t, permitting, func(c *nats.Config) { as("u")(c); c.JetStreamEnabled = false }, nats.WithEventHandler(events.handle))
	ctx := context.Background()
	handler := func(*nats.Message) error { return nil }
	open, err := client.Subscribe(ctx, "open", handler)
	require.NoError(t, err)
	plain, err := client.Subscribe(ctx, "secret.x", handler)
	require.NoError(t, err)
	group, err := client.QueueSubscribe(ctx, "secret.x", "g", handler)
	require.NoError(t, err)
	move := func(s *natstest.Server) {
		reconnects := client.Conn().Stats().Reconnects
		require.NoError(t, client.Conn().SetServerPool([]string{s.URL()}))
		require.NoError(t, client.Conn().ForceReconnect())
		eventually(t, "moved", func() bool { return client.Conn().Stats().Reconnects > reconnects && client.IsConnected() })
		require.NoError(t, client.Flush(ctx))
	}
	move(denying)
	for _, sub := range []*nats.Subscription{plain, group} {
		require.ErrorIs(t, sub.Err(), nats.ErrPermission)
		require.ErrorContains(t, sub.Err(), "secret.x")
	}
	require.NoError(t, open.Err())
	health := client.Health(ctx)
	assert.False(t, health.OK)
	assert.Len(t, health.Problems, 2)
	eventually(t, "told", func() bool { return len(events.of(nats.EventAsyncError)) == 2 })
	_, err = client.Subscribe(ctx, "secret.x", handler)
	require.ErrorIs(t, err, nats.ErrPermission)
	move(permitting)
	require.NoError(t, plain.Err())
	require.NoError(t, group.Err())
	assert.True(t, client.Health(ctx).OK)
}

// deniable runs a server whose user u is denied some subscriptions while it runs.
func deniable(t *testing.T) (s *natstest.Server, deny func(subjects ...string)) {
	t.Helper()
	var configured *server.Options
	s = natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) {
		o.Users = []*server.User{{Username: "u", Password: "p"}, {Username: "admin", Password: "p"}}
		configured = o
	}))
	return s, func(subjects ...string) {
		o := configured.Clone()
		o.Users[0].Permissions = &server.Permissions{Subscribe: &server.SubjectPermission{Deny: subjects}}
		require.NoError(t, s.Embedded().ReloadOptions(o))
	}
}

// Rights may go and come back while the connection stands: nothing is told of those that come back.
func TestPermissionChangedInPlace(t *testing.T) {
	t.Parallel()
	s, deny := deniable(t)
	var events eventLog
	client, other := connect(t, s, as("u"), nats.WithEventHandler(events.handle)), connect(t, s, as("admin"))
	ctx := context.Background()
	heard := func(*nats.Message) error { return nil }
	plain, err := client.Subscribe(ctx, "secret.x", heard)
	require.NoError(t, err)
	group, err := client.QueueSubscribe(ctx, "secret.x", "g", heard)
	require.NoError(t, err)
	drained, err := client.Subscribe(ctx, "secret.y", heard)
	require.NoError(t, err)
	deny("secret.>")
	for _, sub := range []*nats.Subscription{plain, group, drained} {
		eventually(t, "it is denied", func() bool { return errors.Is(sub.Err(), nats.ErrPermission) })
	}
	require.NoError(t, drained.Drain(ctx))
	eventually(t, "it was told of", func() bool { return len(events.of(nats.EventAsyncError)) == 3 })
	deny()
	for _, sub := range []*nats.Subscription{plain, group} {
		eventually(t, "it is permitted", func() bool { return sub.Err() == nil })
		before := sub.Stats().Handled
		require.NoError(t, other.Publish(ctx, "secret.x", nil))
		eventually(t, "it is heard", func() bool { return sub.Stats().Handled > before })
	}
	assert.Len(t, events.of(nats.EventAsyncError), 3)
	assert.Zero(t, client.Stats().Reconnects)
}

// A server that has no room for one more subscription says so without naming it. Who returns nil is heard.
func TestMaxSubscriptions(t *testing.T) {
	t.Parallel()
	const most = 5
	s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) { o.MaxSubs = most }))
	client, other := connect(t, s, nil), connect(t, s, nil)
	ctx := context.Background()
	_, err := other.Subscribe(ctx, "echo", func(msg *nats.Message) error { return msg.Respond(nil) })
	require.NoError(t, err)
	var mu sync.Mutex
	var all []*nats.Subscription
	var many sync.WaitGroup
	for i := range 20 {
		many.Go(func() {
			sub, err := client.Subscribe(ctx, fmt.Sprint("many.", i), func(*nats.Message) error { return nil })
			if err != nil {
				assert.ErrorIs(t, err, natsgo.ErrMaxSubscriptionsExceeded)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, sub)
		})
	}
	many.Wait()
	for len(all) < most {
		sub, err := client.Subscribe(ctx, "one", func(*nats.Message) error { return nil })
		require.NoError(t, err)
		all = append(all, sub)
	}
	require.Len(t, all, most)
	for _, sub := range all {
		require.NoError(t, other.Publish(ctx, sub.Subject(), nil))
	}
	for _, sub := range all {
		eventually(t, "it is heard", func() bool { return sub.Stats().Handled > 0 })
	}
	_, err = client.Subscribe(ctx, "one.more", func(*nats.Message) error { return nil })
	require.ErrorIs(t, err, natsgo.ErrMaxSubscriptionsExceeded)
	_, err = client.Request(ctx, "echo", nil, time.Hour)
	require.ErrorIs(t, err, natsgo.ErrMaxSubscriptionsExceeded)
	require.NoError(t, all[0].Unsubscribe())
	_, err = client.Request(ctx, "echo", nil, 0)
	require.NoError(t, err)
	_, err = client.Subscribe(ctx, "one.more", func(*nats.Message) error { return nil })
	require.ErrorIs(t, err, natsgo.ErrMaxSubscriptionsExceeded)
	_, err = client.Request(ctx, "echo", nil, 0)
	require.NoError(t, err, "requests go on")
	require.NoError(t, all[1].Unsubscribe())
	_, err = client.Subscribe(ctx, "one.more", func(*nats.Message) error { return nil })
	require.NoError(t, err)
}

// So does whatever takes a subscription of its own for its answers, and what lasts goes on when there is room.
func TestMaxSubscriptionsOfWhatReads(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) { o.MaxSubs = 4 }))
	var events eventLog
	admin, client := connect(t, s, nil), connect(t, s, nil, nats.WithEventHandler(events.handle))
	ctx := within(t, patience)
	newStream(t, admin, 1)
	newConsumer(t, admin, jetstream.ConsumerConfig{Name: "worker"})
	put(t, newKeys(t, admin, "b"), "k", "v")
	_, err := newObjects(t, admin, "files").PutBytes(ctx, "o", make([]byte, 300_000))
	require.NoError(t, err)
	kv, err := client.GetKeyValue(ctx, "b")
	require.NoError(t, err)
	store, err := client.GetObjectStore(ctx, "files")
	require.NoError(t, err)
	var fill []*nats.Subscription
	for {
		sub, err := client.Subscribe(ctx, fmt.Sprint("fill.", len(fill)), func(*nats.Message) error { return nil })
		if err != nil {
			break
		}
		fill = append(fill, sub)
	}
	for name, call := range map[string]func() error{
		"pull": func() error { _, err := client.PullMessages(ctx, "ORDERS", "worker", 1); return err },
		"consume": func() error {
			_, err := client.Consume(ctx, "ORDERS", "worker", func(*nats.Message) error { return nil })
			return err
		},
		"read":     func() error { _, err := read(t, client); return err },
		"get many": func() error { _, err := kv.GetMany(ctx, "k"); return err },
		"cached":   func() error { _, err := kv.Cached(ctx); return err },
		"all": func() (err error) {
			for _, err = range kv.All(ctx) {
			}
			return err
		},
		"object":  func() error { _, err := store.GetBytes(ctx, "o"); return err },
		"objects": func() error { _, err := store.List(ctx); return err },
	} {
		require.ErrorIs(t, call(), natsgo.ErrMaxSubscriptionsExceeded, name)
	}
	require.NoError(t, ctx.Err())
	w, err := kv.WatchAll(ctx)
	require.NoError(t, err)
	eventually(t, "it is said why it is stale", func() bool {
		stale := events.of(nats.EventWatchStale)
		return len(stale) > 0 && errors.Is(stale[len(stale)-1].Err, natsgo.ErrMaxSubscriptionsExceeded)
	})
	require.NoError(t, fill[0].Unsubscribe())
	assert.Equal(t, "v", string((<-w.Updates()).Value()))
}

// Each denial is returned once: what Request has returned is not what Flush does, nor what is told.
func TestDenialIsReturnedOnce(t *testing.T) {
	t.Parallel()
	s := restricted(t, &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"secret.>"}}})
	var events eventLog
	hang := make(chan struct{})
	defer close(hang)
	client := connect(t, s, as("u"), nats.WithEventHandler(events.handle),
		nats.WithNATSOptions(natsgo.ErrorHandler(func(*natsgo.Conn, *natsgo.Subscription, error) { <-hang })))
	ctx := context.Background()
	_, err := client.Request(ctx, "secret.x", nil, time.Hour)
	require.ErrorIs(t, err, nats.ErrPermission)
	require.NoError(t, client.Flush(ctx))
	require.NoError(t, client.Publish(ctx, "secret.y", nil))
	_, err = client.Request(ctx, "secret.x", nil, time.Hour)
	require.ErrorIs(t, err, nats.ErrPermission)
	require.ErrorContains(t, client.Flush(ctx), `publish "secret.y"`)
	require.NoError(t, client.Flush(ctx))
	eventually(t, "one was told", func() bool { return len(events.of(nats.EventAsyncError)) > 0 })
	assert.Len(t, events.of(nats.EventAsyncError), 1)
}

// What is asked in passing, such as the end of a consumer that is read no more, is no publish of the user's.
func TestDenialInPassing(t *testing.T) {
	t.Parallel()
	s := restricted(t, &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.API.CONSUMER.DELETE.>"}}})
	var events eventLog
	client := connect(t, s, as("u"), nats.WithEventHandler(events.handle))
	fillSubjects(t, client, 3)
	_, err := read(t, client)
	require.NoError(t, err)
	eventually(t, "it is told", func() bool { return len(events.of(nats.EventAsyncError)) == 1 })
	require.NoError(t, client.Flush(within(t, patience)))
}

// Every call that asks JetStream tells at once that the server denies it, whoever asks: a user's deadline is
// for servers that are slow.
func TestDeniedJetStreamCalls(t *testing.T) {
	t.Parallel()
	t.Run("no domain", func(t *testing.T) { denyJetStreamCalls(t, "") })
	// The server knows its own domain by the name that subjects have without one, and denies that.
	t.Run("the server's domain", func(t *testing.T) { denyJetStreamCalls(t, "hub") })
}

func denyJetStreamCalls(t *testing.T, domain string) {
	t.Helper()
	s := restricted(t, &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.API.>"}}})
	s.Restart(natstest.WithConfig(func(o *server.Options) { o.JetStreamDomain = domain }))
	c := connect(t, s, func(c *nats.Config) {
		c.Username, c.Password, c.RequestTimeout, c.JetStreamDomain = "u", "p", time.Minute, domain
	})
	ctx := context.Background()
	stream := &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}
	consumer := &jetstream.ConsumerConfig{Name: "c"}
	last := func(seq iter.Seq2[*jetstream.StreamInfo, error]) (err error) {
		for _, err = range seq {
		}
		return err
	}
	for name, call := range map[string]func() error{
		"CreateStream":      func() error { _, err := c.CreateStream(ctx, stream); return err },
		"UpdateStream":      func() error { _, err := c.UpdateStream(ctx, stream); return err },
		"GetStream":         func() error { _, err := c.GetStream(ctx, "S"); return err },
		"GetStreamInfo":     func() error { _, err := c.GetStreamInfo(ctx, "S"); return err },
		"PurgeStream":       func() error { return c.PurgeStream(ctx, "S") },
		"DeleteStream":      func() error { return c.DeleteStream(ctx, "S") },
		"Streams":           func() error { return last(c.Streams(ctx)) },
		"CreateConsumer":    func() error { _, err := c.CreateConsumer(ctx, "S", consumer); return err },
		"GetConsumer":       func() error { _, err := c.GetConsumer(ctx, "S", "c"); return err },
		"GetConsumerInfo":   func() error { _, err := c.GetConsumerInfo(ctx, "S", "c"); return err },
		"DeleteConsumer":    func() error { return c.DeleteConsumer(ctx, "S", "c") },
		"PauseConsumer":     func() error { return c.PauseConsumer(ctx, "S", "c", time.Now()) },
		"ResumeConsumer":    func() error { return c.ResumeConsumer(ctx, "S", "c") },
		"PullMessages":      func() error { _, err := c.PullMessages(ctx, "S", "c", 1); return err },
		"Consume":           func() error { _, err := c.Consume(ctx, "S", "c", func(*nats.Message) error { return nil }); return err },
		"ReplayDeadLetters": func() error { _, err := c.ReplayDeadLetters(ctx, "S"); return err },
		"EnsureStream":      func() error { _, err := c.EnsureStream(ctx, stream); return err },
		"EnsureConsumer":    func() error { _, err := c.EnsureConsumer(ctx, "S", consumer); return err },
		"CreateKeyValue":    func() error { _, err := c.CreateKeyValue(ctx, "b"); return err },
		"EnsureKeyValue":    func() error { _, err := c.EnsureKeyValue(ctx, "b"); return err },
		"DeleteKeyValue":    func() error { return c.DeleteKeyValue(ctx, "b") },
		"CreateObjectStore": func() error { _, err := c.CreateObjectStore(ctx, "b"); return err },
		"EnsureObjectStore": func() error { _, err := c.EnsureObjectStore(ctx, "b"); return err },
		"DeleteObjectStore": func() error { return c.DeleteObjectStore(ctx, "b") },
		"KeyValues": func() (err error) {
			for _, err = range c.KeyValues(ctx) {
			}
			return err
		},
		"ObjectStores": func() (err error) {
			for _, err = range c.ObjectStores(ctx) {
			}
			return err
		},
		"GetKeyValue":    func() error { _, err := c.GetKeyValue(ctx, "b"); return err },
		"GetObjectStore": func() error { _, err := c.GetObjectStore(ctx, "b"); return err },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begin := time.Now()
			err := call()
			require.ErrorIs(t, err, nats.ErrPermission)
			require.ErrorContains(t, err, "$JS.API.")
			assert.Less(t, since(begin), 10*time.Second)
		})
	}
}

// So it is where the answers are denied, which the server says once for all of upstream's questions.
func TestDeniedAnswersOfJetStream(t *testing.T) {
	t.Parallel()
	s := restricted(t, &server.Permissions{Subscribe: &server.SubjectPermission{Deny: []string{"_INBOX.>"}}})
	c := connect(t, s, func(c *nats.Config) { c.Username, c.Password, c.RequestTimeout = "u", "p", time.Minute })
	for range 3 {
		_, err := c.GetStream(context.Background(), "S")
		require.ErrorIs(t, err, nats.ErrPermission)
		_, err = c.GetStreamInfo(context.Background(), "S")
		require.ErrorIs(t, err, nats.ErrPermission)
		_, err = c.PullMessages(context.Background(), "S", "c", 1)
		require.ErrorIs(t, err, nats.ErrPermission)
	}
}

// Where the answers are denied, the question has arrived: it may have been done, and what it has made is not left behind.
func TestDeniedAnswersAreUncertain(t *testing.T) {
	t.Parallel()
	s := restricted(t, &server.Permissions{
		Subscribe: &server.SubjectPermission{Deny: []string{"_INBOX.>"}}, Publish: &server.SubjectPermission{Deny: []string{"secret.>"}},
	})
	c, admin := connect(t, s, as("u")), connect(t, s, as("admin"))
	newStream(t, admin, 0)
	ctx := within(t, patience)
	for name, call := range map[string]func() error{
		"publish": func() error { _, err := c.PublishToStream(ctx, "orders.new", nil); return err },
		"create":  func() error { _, err := c.CreateStream(ctx, &jetstream.StreamConfig{Name: "S"}); return err },
		"request": func() error { _, err := c.Request(ctx, "orders.new", nil, 0); return err },
	} {
		err := call()
		require.ErrorIs(t, err, nats.ErrPermission, name)
		require.ErrorContains(t, err, "_INBOX.", name)
		require.True(t, nats.IsUncertain(err), name)
	}
	eventually(t, "all was done", func() bool {
		info, err := admin.GetStreamInfo(ctx, "ORDERS")
		_, failed := admin.GetStreamInfo(ctx, "S")
		return err == nil && failed == nil && info.State.Msgs == 2
	})
	for _, err := range c.ReadStream(ctx, "ORDERS") {
		require.ErrorIs(t, err, nats.ErrPermission)
	}
	eventually(t, "its consumer is gone", func() bool { return consumers(t, admin, "ORDERS") == 0 })

	may := connect(t, restricted(t, &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"secret.>"}}}), as("u"))
	_, err := may.PublishToStream(ctx, "secret.x", nil)
	require.ErrorIs(t, err, nats.ErrPermission)
	require.False(t, nats.IsUncertain(err), "what is denied itself has not arrived")
}

// Who may not pull hears it from Consume, not from silence.
func TestConsumeMayNotPull(t *testing.T) {
	t.Parallel()
	for name, permissions := range map[string]*server.Permissions{
		"pull":  {Publish: &server.SubjectPermission{Deny: []string{"$JS.API.CONSUMER.MSG.NEXT.>"}}},
		"inbox": {Subscribe: &server.SubjectPermission{Deny: []string{"_INBOX.*.pull.*"}}},
	} {
		s := restricted(t, permissions)
		admin := connect(t, s, as("admin"))
		newStream(t, admin, 1)
		newConsumer(t, admin, jetstream.ConsumerConfig{Name: "worker"})
		begin := time.Now()
		_, err := connect(t, s, as("u")).Consume(context.Background(), "ORDERS", "worker", func(*nats.Message) error { return nil })
		require.ErrorIs(t, err, nats.ErrPermission, name)
		assert.Less(t, since(begin), time.Second+raceSlack, name)
	}
}

// A consumption whose acknowledgements the server denies handles the same messages again and again: it is not
// healthy, until they are allowed.
func TestDeniedAcksAreUnhealthy(t *testing.T) {
	t.Parallel()
	users := func(denied ...string) func(o *server.Options) {
		return func(o *server.Options) {
			o.Users = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
				Publish: &server.SubjectPermission{Deny: denied},
			}}, {Username: "admin", Password: "p"}}
		}
	}
	s := natstest.RunServer(t, natstest.WithConfig(users("$JS.ACK.>")))
	admin := connect(t, s, as("admin"))
	newStream(t, admin, 1)
	newConsumer(t, admin, jetstream.ConsumerConfig{Name: "worker", AckWait: 300 * time.Millisecond})
	var got calls
	client := connect(t, s, as("u"))
	consumption := consume(t, client, func(m *nats.Message) error { got.note(m); return nil })
	eventually(t, "it is unhealthy", func() bool { return !consumption.Healthy() })
	eventually(t, "the message comes again", func() bool { return got.len() > 2 })
	assert.False(t, consumption.Healthy())
	assert.Contains(t, fmt.Sprint(client.Health(within(t, patience)).Problems), "acknowledgements are denied")
	s.Restart(natstest.WithConfig(users()))
	eventually(t, "it is healthy", consumption.Healthy)
	idle(t, admin)
}
