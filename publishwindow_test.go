package nats_test

import (
	"context"
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

// A message whose acknowledgement was lost is sent again for as long as its stream knows it, and no longer.
func TestNothingIsSentAgainBeyondTheWindow(t *testing.T) {
	t.Parallel()
	const window = time.Second
	few := &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"$JS.API.>"}}}
	for name, c := range map[string]struct {
		permissions *server.Permissions
		window      time.Duration
		options     []jetstream.PublishOpt
		stored      int
		failure     string // part of the error's text
	}{
		"over":              {nil, window, nil, 1, "it was not sent again, its stream "},
		"not over":          {nil, 0, nil, 1, ""},
		"no right to ask":   {few, 0, nil, 1, ""},
		"expected sequence": {nil, window, []jetstream.PublishOpt{jetstream.WithExpectLastSequence(0)}, 1, ""},
		"without an ID":     {nil, window, []jetstream.PublishOpt{nats.WithoutMessageID()}, 2, ""},
	} {
		for way, publish := range map[string]func(context.Context, *nats.Client) error{
			"sync": func(ctx context.Context, client *nats.Client) error {
				_, err := client.PublishToStream(ctx, "orders.created", nil, c.options...)
				return err
			},
			"async": func(ctx context.Context, client *nats.Client) error {
				future, err := client.PublishAsync(ctx, &nats.Message{Subject: "orders.created"}, c.options...)
				if err != nil {
					return err
				}
				return resolved(t, future)
			},
			"batch": func(ctx context.Context, client *nats.Client) error {
				msg := &nats.Message{Subject: "orders.created"}
				_, err := client.PublishBatch(ctx, []*nats.Message{msg.With(c.options...)})
				return err
			},
			"atomic": func(ctx context.Context, client *nats.Client) error {
				msg := &nats.Message{Subject: "orders.created"}
				_, err := client.PublishAtomic(ctx, []*nats.Message{msg.With(c.options...)})
				return err
			},
		} {
			t.Run(name+"/"+way, func(t *testing.T) {
				t.Parallel()
				eventually(t, "the acknowledgement is lost, and not faster than the cut", func() bool {
					s := restricted(t, c.permissions)
					near := connect(t, s, as("admin"))
					ctx := within(t, patience)
					_, err := near.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, Duplicates: c.window, AllowAtomicPublish: true})
					require.NoError(t, err)
					proxy := natstest.NewProxy(t, s.URL())
					client := connect(t, s, func(cfg *nats.Config) {
						cfg.URLs, cfg.Username, cfg.Password = []string{proxy.URL()}, "u", "p"
					})
					proxy.Delay(300 * time.Millisecond) // sooner than it would be sent again
					done := make(chan error, 1)
					go func() { done <- publish(within(t, 10*time.Second), client) }()
					stored := func() int {
						info, err := near.GetStreamInfo(ctx, "ORDERS")
						require.NoError(t, err)
						return int(info.State.Msgs)
					}
					eventually(t, "stored", func() bool { return stored() >= 1 })
					proxy.Cut()
					proxy.Delay(0)
					time.Sleep(window + 200*time.Millisecond) // the window passes
					proxy.Restore()
					err = <-done
					if err == nil && (c.failure != "" || stored() < c.stored) {
						return false
					}
					if c.failure != "" {
						require.ErrorContains(t, err, c.failure)
						require.ErrorIs(t, err, nats.ErrTimeout)
					} else {
						require.NoError(t, err)
					}
					assert.Equal(t, c.stored, stored())
					return true
				})
			})
		}
	}
}

// Over a line that takes longer than a look-up nearby, a message whose acknowledgement was lost is sent again, and it
// is told that there is no stream.
func TestFarServerIsAskedAgain(t *testing.T) {
	t.Parallel()
	const way = 300 * time.Millisecond
	ctx := within(t, 60*time.Second)
	s := natstest.RunServer(t)
	stream, err := connect(t, s, nil).CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders"}})
	require.NoError(t, err)
	core := raw(t, s)
	_, err = core.SubscribeSync("core") // so that silence is all that a publish hears
	require.NoError(t, err)
	require.NoError(t, core.Flush())
	p := natstest.NewProxy(t, s.URL())
	p.Delay(way)
	client := connect(t, s, func(c *nats.Config) { c.URLs = []string{p.URL()} })

	_, err = client.PublishToStream(ctx, "core", nil)
	require.ErrorIs(t, err, nats.ErrNoStream)

	p.Delay(10 * way) // for the acknowledgement, of which there is time to be sure that it is lost
	published := make(chan error, 1)
	go func() {
		ack, err := client.PublishToStream(ctx, "orders", nil)
		assert.True(t, err != nil || ack.Duplicate)
		published <- err
	}()
	eventually(t, "the message to be stored", func() bool {
		info, err := stream.Info(ctx)
		return err == nil && info.State.Msgs == 1
	})
	p.Cut()
	p.Restore()
	p.Delay(way)
	require.NoError(t, <-published)
}

// A stream that acknowledges nothing is told from one that cannot be reached.
func TestStreamWithoutAcknowledgements(t *testing.T) {
	t.Parallel()
	ctx := within(t, 3*patience)
	client := connect(t, natstest.RunServer(t), nil)
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "LOG", Subjects: []string{"log"}, NoAck: true, AllowAtomicPublish: true})
	require.NoError(t, err)
	msg := &nats.Message{Subject: "log"}
	for name, publish := range map[string]func() error{
		"sync":          func() error { _, err := client.PublishMsgToStream(ctx, msg); return err },
		"without an ID": func() error { _, err := client.PublishMsgToStream(ctx, msg, nats.WithoutMessageID()); return err },
		"batch":         func() error { _, err := client.PublishBatch(ctx, []*nats.Message{msg}); return err },
		"atomic":        func() error { _, err := client.PublishAtomic(ctx, []*nats.Message{msg, msg}); return err },
	} {
		err := publish()
		require.ErrorIs(t, err, nats.ErrFeatureDisabled, name)
		require.ErrorContains(t, err, "NoAck", name)
		require.True(t, nats.IsUncertain(err), name)
	}
}

// What is too large for a stream is told with both sizes.
func TestSizeThatAStreamRefuses(t *testing.T) {
	t.Parallel()
	ctx := within(t, 60*time.Second)
	client := connect(t, natstest.RunServer(t), nil)
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders"}, MaxMsgSize: 100})
	require.NoError(t, err)
	kv, err := client.CreateKeyValue(ctx, "settings", nats.WithKeyValueConfig(func(c *jetstream.KeyValueConfig) { c.MaxValueSize = 100 }))
	require.NoError(t, err)
	_, refused := client.PublishToStream(ctx, "orders", make([]byte, 200))
	_, put := kv.Put(ctx, "a", make([]byte, 200))
	for _, err := range []error{refused, put} {
		require.ErrorIs(t, err, nats.ErrPayloadTooLarge)
		require.ErrorContains(t, err, "245 bytes, and the stream's max_msg_size is 100")
	}
}

// A message has options of its own wherever it is published, also those that a header alone may not set.
func TestMessageWith(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := within(t, patience)
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{
		Name: "S", Subjects: []string{"s.>"}, AllowAtomicPublish: true, AllowRollup: true, AllowMsgTTL: true,
	})
	require.NoError(t, err)
	header := natsgo.Header{"K": {"v"}}
	msg := &nats.Message{Subject: "s.a", Header: header}
	assert.Same(t, msg, msg.With(jetstream.WithMsgID("one"), jetstream.WithMsgTTL(time.Hour)))
	assert.Equal(t, natsgo.Header{"K": {"v"}, "Nats-Msg-Id": {"one"}, "Nats-TTL": {"1h0m0s"}}, msg.Header)
	assert.Len(t, header, 1, "left alone")
	msg.With(nats.WithHeader("Nats-Rollup", "sub"))
	batch := []*nats.Message{
		msg, {Subject: "s.a", Data: []byte("x")},
		(&nats.Message{Subject: "s.b"}).With(nats.WithoutMessageID()),
	}
	acks, err := client.PublishBatch(ctx, batch)
	require.NoError(t, err)
	assert.Equal(t, map[string]int{"one": 1, "": 1}, keep(messageIDs(t, client, "S"), "one", ""))
	_, err = client.PublishAtomic(ctx, []*nats.Message{(&nats.Message{Subject: "s.c"}).With(jetstream.WithExpectLastSequence(acks[2].Sequence)), {Subject: "s.c"}})
	require.NoError(t, err)
	_, err = client.PublishAtomic(ctx, []*nats.Message{(&nats.Message{Subject: "s.c"}).With(jetstream.WithExpectLastSequence(1)), {Subject: "s.c"}})
	require.ErrorIs(t, err, nats.ErrConflict)

	refused := &nats.Message{Subject: "s.a", Header: natsgo.Header{"Nats-Rollup": {"all"}}}
	_, err = client.PublishBatch(ctx, []*nats.Message{refused.With(jetstream.WithMsgID("two"))})
	require.ErrorIs(t, err, nats.ErrReservedHeader, "that was not set by an option")
	_, err = client.PublishMsgToStream(ctx, (&nats.Message{Subject: "s.a"}).With(jetstream.WithStallWait(-1)))
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	_, err = client.PublishMsgToStream(ctx, (&nats.Message{Subject: "s.a"}).With(nats.WithHeader("K", "a\r\nb")))
	require.ErrorIs(t, err, nats.ErrInvalidHeader)
}

func keep(all map[string]int, names ...string) map[string]int {
	kept := make(map[string]int)
	for _, name := range names {
		kept[name] = all[name]
	}
	return kept
}

func TestPublishJSONToStream(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	newStream(t, client, 0)
	ctx := within(t, patience)
	ack, err := client.PublishJSONToStream(ctx, "orders.created", map[string]int{"n": 1}, jetstream.WithMsgID("one"))
	require.NoError(t, err)
	stream, err := client.GetStream(ctx, "ORDERS")
	require.NoError(t, err)
	stored, err := stream.GetMsg(ctx, ack.Sequence)
	require.NoError(t, err)
	assert.JSONEq(t, `{"n":1}`, string(stored.Data))
	_, err = client.PublishJSONToStream(ctx, "orders.created", func() {})
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
}

// A schedule that would lose messages in silence is refused: raw, each of these calls succeeds.
func TestSchedulesThatLoseMessagesAreRefused(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := within(t, patience)
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{
		Name: "S", Subjects: []string{"s.>"}, AllowMsgSchedules: true, AllowRollup: true, AllowMsgTTL: true, MaxAge: time.Hour,
		AllowAtomicPublish: true,
	})
	require.NoError(t, err)
	at := func(d time.Duration, more ...jetstream.PublishOpt) []jetstream.PublishOpt {
		return append([]jetstream.PublishOpt{jetstream.WithScheduleAt(time.Now().Add(d)), jetstream.WithScheduleTarget("s.target")}, more...)
	}
	every := []jetstream.PublishOpt{jetstream.WithScheduleEvery(2 * time.Hour), jetstream.WithScheduleTarget("s.target")}
	_, err = client.PublishToStream(ctx, "s.one", nil)
	require.NoError(t, err, "no schedule")
	first, err := client.PublishToStream(ctx, "s.one", []byte("first"), at(30*time.Minute)...)
	require.NoError(t, err)
	for way, publish := range map[string]func(string, []jetstream.PublishOpt) error{
		"sync": func(subject string, opts []jetstream.PublishOpt) error {
			_, err := client.PublishToStream(ctx, subject, nil, opts...)
			return err
		},
		"async": func(subject string, opts []jetstream.PublishOpt) error {
			future, err := client.PublishAsync(ctx, &nats.Message{Subject: subject}, opts...)
			if err != nil {
				return err
			}
			return resolved(t, future)
		},
		"batch": func(subject string, opts []jetstream.PublishOpt) error {
			_, err := client.PublishBatch(ctx, []*nats.Message{(&nats.Message{Subject: subject}).With(opts...)})
			return err
		},
		"atomic": func(subject string, opts []jetstream.PublishOpt) error {
			_, err := client.PublishAtomic(ctx, []*nats.Message{(&nats.Message{Subject: subject}).With(opts...)})
			return err
		},
	} {
		err := publish("s.one", at(30*time.Minute))
		require.ErrorIs(t, err, nats.ErrConflict, way)
		require.ErrorContains(t, err, "holds another schedule", way)
		require.ErrorIs(t, publish("s.two", at(2*time.Hour)), nats.ErrInvalidArgument, way)
		require.ErrorIs(t, publish("s.two", every), nats.ErrInvalidArgument, way)
		require.ErrorIs(t, publish("s.two", at(time.Minute, jetstream.WithMsgTTL(30*time.Second))), nats.ErrInvalidArgument, way)
		require.ErrorIs(t, publish("s.two", at(time.Minute, nats.WithHeader("Nats-TTL", "30"))), nats.ErrInvalidArgument, way)
		require.NoError(t, publish("s."+way, at(2*time.Hour, nats.WithHeader("Nats-TTL", "never"))), way)
	}
	stream, err := client.GetStream(ctx, "S")
	require.NoError(t, err)
	_, err = stream.GetMsg(ctx, first.Sequence)
	require.NoError(t, err, "it is still there")
	_, err = client.PublishToStream(ctx, "s.one", nil, at(time.Minute, jetstream.WithExpectLastSequencePerSubject(first.Sequence))...)
	require.NoError(t, err, "on purpose")
}
