package nats_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
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

// messageIDs reads a stream and returns how often it has each message ID.
func messageIDs(t testing.TB, client *nats.Client, stream string) map[string]int {
	t.Helper()
	ctx := context.Background()
	handle, err := client.GetStream(ctx, stream)
	require.NoError(t, err)
	state := handle.CachedInfo().State
	ids := make(map[string]int)
	if state.Msgs == 0 {
		return ids
	}
	for sequence := state.FirstSeq; sequence <= state.LastSeq; sequence++ {
		msg, err := handle.GetMsg(ctx, sequence)
		require.NoError(t, err)
		ids[msg.Header.Get(jetstream.MsgIDHeader)]++
	}
	return ids
}

func TestPublishGivesEveryMessageAnID(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	newStream(t, client, 3)
	msg := &nats.Message{Subject: "orders.created", Header: natsgo.Header{jetstream.MsgIDHeader: {"mine"}}}
	_, err := client.PublishMsgToStream(ctx, msg)
	require.NoError(t, err)
	ids := messageIDs(t, client, "ORDERS")
	assert.Len(t, ids, 4)
	assert.NotContains(t, ids, "")
	assert.Contains(t, ids, "mine")
	ack, err := client.PublishMsgToStream(ctx, msg)
	require.NoError(t, err)
	assert.True(t, ack.Duplicate)
}

// Upstream waits 5 s beside a core subscriber, and its future never resolves.
func TestNoStreamIsToldSoon(t *testing.T) {
	t.Parallel()
	for name, listens := range map[string]bool{"nobody listens": false, "a core subscriber listens": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := connect(t, natstest.RunServer(t), nil)
			ctx := within(t, patience)
			if listens {
				_, err := client.Subscribe(ctx, ">", func(*nats.Message) error { return nil })
				require.NoError(t, err)
			}
			longest := time.Duration(0)
			wanted := func(what string, begin time.Time, most time.Duration, err error) {
				t.Helper()
				took := since(begin)
				require.ErrorIs(t, err, nats.ErrNoStream, what)
				require.ErrorIs(t, err, jetstream.ErrNoStreamResponse, what)
				require.ErrorContains(t, err, `"nowhere.at.all"`, what)
				assert.Less(t, took, most, what)
				longest = max(longest, took)
			}
			begin := time.Now()
			_, err := client.PublishToStream(ctx, "nowhere.at.all", nil)
			wanted("PublishToStream", begin, 2*time.Second, err)

			begin = time.Now()
			_, err = client.PublishAtomic(ctx, []*nats.Message{{Subject: "nowhere.at.all"}, {Subject: "nowhere.at.all"}})
			wanted("PublishAtomic", begin, 2*time.Second, err)

			msgs := make([]*nats.Message, 500)
			for i := range msgs {
				msgs[i] = &nats.Message{Subject: "nowhere.at.all"}
			}
			begin = time.Now()
			acks, err := client.PublishBatch(ctx, msgs)
			wanted("PublishBatch", begin, 4*time.Second, err) // 500 of them, beside other tests
			var failed *nats.BatchError
			require.ErrorAs(t, err, &failed)
			assert.Len(t, failed.Failed, 500)
			assert.Equal(t, make([]*jetstream.PubAck, 500), acks)
			t.Attr("figure", fmt.Sprintf("%s: after at most %v", name, longest.Round(time.Millisecond)))
		})
	}
}

func TestNoStreamUntilItIsCreated(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	_, err := client.PublishToStream(ctx, "orders.created", nil)
	require.ErrorIs(t, err, nats.ErrNoStream)
	newStream(t, client, 1)
	require.NoError(t, client.DeleteStream(ctx, "ORDERS"))
	_, err = client.PublishToStream(ctx, "orders.created", nil)
	require.ErrorIs(t, err, nats.ErrNoStream)
}

// A responder on the subject answers before the stream does. It must not pass for an acknowledgement.
func TestForeignAnswerIsNoAcknowledgement(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := within(t, patience)
	_, err := client.Subscribe(ctx, "service", func(msg *nats.Message) error { return msg.Respond([]byte("hello")) })
	require.NoError(t, err)
	_, err = client.PublishToStream(ctx, "service", nil)
	require.ErrorIs(t, err, nats.ErrNoStream)
}

func TestRefusalsAreTyped(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := within(t, patience)
	create := func(cfg jetstream.StreamConfig) {
		cfg.Subjects = []string{cfg.Name}
		_, err := client.CreateStream(ctx, &cfg)
		require.NoError(t, err)
	}
	create(jetstream.StreamConfig{Name: "msgs", MaxMsgs: 1, Discard: jetstream.DiscardNew})
	create(jetstream.StreamConfig{Name: "bytes", MaxBytes: 300, Discard: jetstream.DiscardNew})
	create(jetstream.StreamConfig{Name: "subject", MaxMsgsPerSubject: 1, Discard: jetstream.DiscardNew, DiscardNewPerSubject: true})
	create(jetstream.StreamConfig{Name: "small", MaxMsgSize: 100})
	create(jetstream.StreamConfig{Name: "other"})
	for _, subject := range []string{"msgs", "bytes", "subject", "small", "other"} {
		_, err := client.PublishToStream(ctx, subject, nil, jetstream.WithMsgID("first"))
		require.NoError(t, err)
	}
	large := make([]byte, 2<<20)
	for _, c := range []struct {
		subject string
		data    []byte
		opts    []jetstream.PublishOpt
		want    error
	}{
		{subject: "msgs", want: nats.ErrStreamFull},
		{subject: "bytes", data: large[:300], want: nats.ErrStreamFull},
		{subject: "subject", want: nats.ErrStreamFull},
		{subject: "other", opts: []jetstream.PublishOpt{nats.WithHeader(jetstream.MsgRollup, jetstream.MsgRollupSubject)}, want: nats.ErrFeatureDisabled},
		{subject: "small", data: large[:101], want: nats.ErrPayloadTooLarge},
		{subject: "other", data: large, want: nats.ErrPayloadTooLarge},
		{subject: "other", opts: []jetstream.PublishOpt{jetstream.WithExpectLastSequence(7)}, want: nats.ErrConflict},
		{subject: "other", opts: []jetstream.PublishOpt{jetstream.WithExpectLastSequencePerSubject(7)}, want: nats.ErrConflict},
		{subject: "other", opts: []jetstream.PublishOpt{jetstream.WithExpectLastMsgID("second")}, want: nats.ErrConflict},
		{subject: "other", opts: []jetstream.PublishOpt{jetstream.WithExpectStream("small")}, want: nats.ErrWrongStream},
	} {
		begin := time.Now()
		_, err := client.PublishToStream(ctx, c.subject, c.data, c.opts...)
		require.ErrorIs(t, err, c.want)
		assert.Less(t, since(begin), 4*time.Second, "not tried again until the time is up: %v", err)
		future, err := client.PublishAsync(ctx, &nats.Message{Subject: c.subject, Data: c.data}, c.opts...)
		if err == nil {
			err = resolved(t, future)
		}
		require.ErrorIs(t, err, c.want)
	}
}

// resolved waits for a future and returns its error, or nil for an acknowledgement.
func resolved(t testing.TB, future jetstream.PubAckFuture) error {
	t.Helper()
	select {
	case ack := <-future.Ok():
		require.NotNil(t, ack)
		return nil
	case err := <-future.Err():
		require.Error(t, err)
		return err
	case <-time.After(3 * patience):
		t.Error("the future is unresolved")
		return nil
	}
}

// The acknowledgements are lost on the way, and what was sent is sent again.
func TestLostAcknowledgementsStoreNothingTwice(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, proxy := through(t, s)
	newStream(t, connect(t, s, nil), 0)
	ctx := within(t, 5*time.Minute)
	var stored atomic.Int64
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for worker := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				id := fmt.Sprint(worker, "-", i)
				if _, err := client.PublishToStream(ctx, "orders.created", nil, jetstream.WithMsgID(id)); !assert.NoError(t, err) {
					return
				}
				stored.Add(1)
			}
		})
	}
	for range 10 {
		before := stored.Load()
		eventually(t, "some are stored", func() bool { return stored.Load() > before+50 })
		proxy.Cut()
		proxy.Restore()
	}
	close(stop)
	wg.Wait()
	ids := messageIDs(t, connect(t, s, nil), "ORDERS")
	t.Attr("figure", fmt.Sprintf("%d acknowledged over 10 cuts, %d stored", stored.Load(), len(ids)))
	assert.Len(t, ids, int(stored.Load()), "0 lost")
	for id, n := range ids {
		assert.Equal(t, 1, n, id)
	}
}

// A server that is not in a cluster looks at the expected sequence first: to the second attempt of a
// message that it has stored it says "wrong last sequence", as if another writer had been faster.
func TestExpectedSequenceSurvivesALostAcknowledgement(t *testing.T) {
	t.Parallel()
	publishers := map[string]func(context.Context, *nats.Client, jetstream.PublishOpt) error{
		"sync": func(ctx context.Context, client *nats.Client, opt jetstream.PublishOpt) error {
			_, err := client.PublishToStream(ctx, "orders.paid", nil, opt)
			return err
		},
		"async": func(ctx context.Context, client *nats.Client, opt jetstream.PublishOpt) error {
			future, err := client.PublishAsync(ctx, &nats.Message{Subject: "orders.paid"}, opt)
			if err != nil {
				return err
			}
			select {
			case <-future.Ok():
				return nil
			case err := <-future.Err():
				return err
			}
		},
	}
	for name, opt := range map[string]jetstream.PublishOpt{
		"stream":  jetstream.WithExpectLastSequence(3),
		"subject": jetstream.WithExpectLastSequencePerSubject(0),
	} {
		for how, publish := range publishers {
			t.Run(name+" "+how, func(t *testing.T) {
				t.Parallel()
				s := natstest.RunServer(t)
				direct := connect(t, s, nil)
				newStream(t, direct, 3)
				client, proxy := through(t, s)
				ctx := within(t, patience)
				proxy.Delay(time.Second)
				done := make(chan error, 1)
				go func() { done <- publish(ctx, client, opt) }()
				eventually(t, "stored", func() bool {
					info, err := direct.GetStreamInfo(ctx, "ORDERS")
					return err == nil && info.State.Msgs == 4
				})
				proxy.Cut() // the acknowledgement is on its way
				proxy.Delay(0)
				proxy.Restore()
				require.NoError(t, <-done)
				require.ErrorIs(t, publish(ctx, client, opt), nats.ErrConflict, "this one is")
				info, err := direct.GetStreamInfo(ctx, "ORDERS")
				require.NoError(t, err)
				assert.EqualValues(t, 4, info.State.Msgs)
			})
		}
	}
}

// The right to publish is withdrawn while an acknowledgement is on its way: the denial is not the answer to what was sent
// before.
func TestDenialOfARepetitionIsUncertain(t *testing.T) {
	t.Parallel()
	for name, publish := range map[string]func(context.Context, *nats.Client) error{
		"one": func(ctx context.Context, client *nats.Client) error {
			_, err := client.PublishToStream(ctx, "orders.paid", nil)
			return err
		},
		"atomic": func(ctx context.Context, client *nats.Client) error {
			_, err := client.PublishAtomic(ctx, []*nats.Message{{Subject: "orders.paid"}})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := restricted(t, nil)
			admin := connect(t, s, as("admin"))
			ctx := within(t, patience)
			_, err := admin.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, AllowAtomicPublish: true})
			require.NoError(t, err)
			proxy := natstest.NewProxy(t, s.URL())
			client := connect(t, s, func(c *nats.Config) { as("u")(c); c.URLs = []string{proxy.URL()} })
			proxy.Delay(time.Second)
			done := make(chan error, 1)
			go func() { done <- publish(ctx, client) }()
			eventually(t, "stored", func() bool {
				info, err := admin.GetStreamInfo(ctx, "ORDERS")
				return err == nil && info.State.Msgs == 1
			})
			proxy.Cut()
			proxy.Delay(0)
			s.Restart(natstest.WithConfig(func(o *server.Options) {
				o.Users[0].Permissions = &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"orders.>"}}}
			}))
			proxy.Restore()
			err = <-done
			require.ErrorIs(t, err, nats.ErrPermission)
			assert.True(t, nats.IsUncertain(err), err)
			assert.False(t, nats.IsUncertain(publish(ctx, client)), "this one was never sent before")
		})
	}
}

func TestPublishWaitsForTheConnection(t *testing.T) {
	t.Parallel()
	client, proxy := through(t, natstest.RunServer(t))
	newStream(t, client, 0)
	proxy.Cut()
	eventually(t, "disconnected, and known why", func() bool { return !client.IsConnected() && client.Stats().ConnectError != nil })
	_, err := client.PublishToStream(within(t, 50*time.Millisecond), "orders.created", nil)
	require.ErrorIs(t, err, nats.ErrNotConnected, "nothing was sent")
	_, err = client.PublishAsync(within(t, 50*time.Millisecond), &nats.Message{Subject: "orders.created"})
	require.ErrorIs(t, err, nats.ErrNotConnected)
	require.ErrorContains(t, err, proxy.URL(), "why there is no connection")
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = client.PublishToStream(cancelled, "orders.created", nil)
	require.ErrorIs(t, err, context.Canceled)

	ctx := within(t, patience)
	done, future := make(chan error, 1), make(chan jetstream.PubAckFuture, 1)
	go func() { _, err := client.PublishToStream(ctx, "orders.created", nil); done <- err }()
	go func() {
		f, err := client.PublishAsync(ctx, &nats.Message{Subject: "orders.created"})
		assert.NoError(t, err)
		future <- f
	}()
	proxy.Restore()
	require.NoError(t, <-done)
	require.NoError(t, resolved(t, <-future))
	info, err := client.GetStreamInfo(ctx, "ORDERS")
	require.NoError(t, err)
	assert.EqualValues(t, 2, info.State.Msgs)
}

func TestPublishInvalidArguments(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	bad := &nats.Message{Subject: "a..b"}
	for name, c := range map[string]struct{ err, want error }{
		"nil":             {second(client.PublishMsgToStream(ctx, nil)), nats.ErrInvalidArgument},
		"async nil":       {second(client.PublishAsync(ctx, nil)), nats.ErrInvalidArgument},
		"batch nil":       {second(client.PublishBatch(ctx, []*nats.Message{nil})), nats.ErrInvalidArgument},
		"atomic nil":      {second(client.PublishAtomic(ctx, []*nats.Message{nil})), nats.ErrInvalidArgument},
		"atomic empty":    {second(client.PublishAtomic(ctx, nil)), nats.ErrInvalidArgument},
		"subject":         {second(client.PublishMsgToStream(ctx, bad)), nats.ErrInvalidSubject},
		"async subject":   {second(client.PublishAsync(ctx, bad)), nats.ErrInvalidSubject},
		"batch subject":   {second(client.PublishBatch(ctx, []*nats.Message{bad})), nats.ErrInvalidSubject},
		"atomic subject":  {second(client.PublishAtomic(ctx, []*nats.Message{bad})), nats.ErrInvalidSubject},
		"context":         {second(client.PublishToStream(nil, "s", nil)), nats.ErrInvalidArgument},                      //nolint:staticcheck // on purpose
		"async context":   {second(client.PublishAsync(nil, &nats.Message{Subject: "s"})), nats.ErrInvalidArgument},      //nolint:staticcheck // on purpose
		"batch context":   {second(client.PublishBatch(nil, []*nats.Message{{Subject: "s"}})), nats.ErrInvalidArgument},  //nolint:staticcheck // on purpose
		"atomic context":  {second(client.PublishAtomic(nil, []*nats.Message{{Subject: "s"}})), nats.ErrInvalidArgument}, //nolint:staticcheck // on purpose
		"expected header": {second(client.PublishToStream(ctx, "s", nil, nats.WithHeader("a b", "c"))), nats.ErrInvalidHeader},
	} {
		assert.ErrorIs(t, c.err, c.want, name)
	}
	acks, err := client.PublishBatch(ctx, nil)
	require.NoError(t, err)
	assert.Empty(t, acks)
}
