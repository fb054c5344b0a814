package pull_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lifecycle"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pull"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for what is sure to come.
const patience = time.Minute

// newPuller returns a puller, and the JetStream with the consumer C of the stream S.
func newPuller(t *testing.T) (*pull.Puller, jetstream.JetStream) {
	t.Helper()
	p, api := open(t, natstest.RunServer(t).URL(), jsapi.Options{})
	js, ctx := api.JetStream(), within(t)
	_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	require.NoError(t, err)
	_, err = js.CreateConsumer(ctx, "S", jetstream.ConsumerConfig{
		Durable: "C", AckPolicy: jetstream.AckExplicitPolicy, BackOff: []time.Duration{20 * time.Second, time.Minute}, MaxDeliver: 3,
	})
	require.NoError(t, err)
	return p, js
}

// open returns a puller that ends with the test, as with a client.
func open(t *testing.T, url string, o jsapi.Options) (*pull.Puller, *jsapi.API) {
	t.Helper()
	o.Timeout = patience
	api, err := jsapi.New(conntest.Open(t, url, nil), o)
	require.NoError(t, err)
	life := lifecycle.New()
	t.Cleanup(func() {
		nothing := func(context.Context) {}
		_, _ = life.Close(context.Background(), nothing, nothing)
	})
	return pull.New(api, life), api
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func TestMessages(t *testing.T) {
	t.Parallel()
	p, js := newPuller(t)
	ctx := within(t)
	for _, data := range []string{"a", "b", "c"} {
		_, err := js.Publish(ctx, "s", []byte(data))
		require.NoError(t, err)
	}
	pulled, err := p.Messages(ctx, "S", "C", 2)
	require.NoError(t, err)
	require.Len(t, pulled, 2)
	more, err := p.Messages(ctx, "S", "C", 10)
	require.NoError(t, err)
	require.Len(t, more, 1, "it does not wait for what is not there")
	assert.Equal(t, "c", string(more[0].Data))
	for held, late := range map[time.Duration]time.Duration{0: 0, 900 * time.Millisecond: 0, time.Minute: 20 * time.Second} {
		took, wait, err := p.Acknowledge(ctx, more[0].Reply, func() time.Duration { return held }, func() error { return nil })
		require.NoError(t, err)
		assert.Equal(t, held, took)
		assert.Equal(t, late, wait, "that of the first delivery, where it was longer")
	}
	_, err = p.Messages(ctx, "S", "none", 1)
	require.ErrorIs(t, err, fault.ErrConsumerNotFound)
}

// The server says nothing of the end of a pull whose limit of bytes is met exactly.
func TestMessagesThatFillAPull(t *testing.T) {
	t.Parallel()
	p, js := newPuller(t)
	ctx := within(t)
	_, err := js.Publish(ctx, "s", nil)
	require.NoError(t, err)
	pulled, err := p.Messages(ctx, "S", "C", 1)
	require.NoError(t, err)
	require.Len(t, pulled, 1)
	const n = 8
	for range n {
		_, err := js.Publish(ctx, "s", make([]byte, wire.MaxBytes/n-pulled[0].Size()))
		require.NoError(t, err)
	}
	stalls, watched := conntest.WatchStalls()
	defer watched()
	begun := time.Now()
	pulled, err = p.Messages(ctx, "S", "C", 100)
	require.NoError(t, err)
	assert.Len(t, pulled, n)
	assert.Less(t, stalls.Since(begun), 4*time.Second)
}

// A consumer that gives no more before what it has given is acknowledged holds nobody up for long.
func TestMessagesUpToMaxAckPending(t *testing.T) {
	t.Parallel()
	p, js := newPuller(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := js.CreateConsumer(ctx, "S", jetstream.ConsumerConfig{Durable: "TWO", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 2})
	require.NoError(t, err)
	for range 4 {
		_, err := js.Publish(ctx, "s", nil)
		require.NoError(t, err)
	}
	pulled, err := p.Messages(ctx, "S", "TWO", 10)
	require.NoError(t, err)
	require.Len(t, pulled, 2)
	deadline, _ := ctx.Deadline()
	assert.Greater(t, time.Until(deadline), 30*time.Second)
	for _, m := range pulled {
		require.NoError(t, m.Respond(wire.Ack))
	}
	again := time.Now()
	pulled, err = p.Messages(ctx, "S", "TWO", 10)
	require.NoError(t, err)
	require.NotEmpty(t, pulled)
	assert.Less(t, time.Since(again), 4*time.Second, "from then on it is known")
}

// What a call had to leave is the next one's, in its first delivery.
func TestMessagesThatWereLeft(t *testing.T) {
	t.Parallel()
	p, js := newPuller(t)
	ctx, cancel := context.WithCancel(within(t))
	left := make(chan error, 1)
	go func() {
		_, err := p.Messages(ctx, "S", "C", 1)
		left <- err
	}()
	require.Eventually(t, func() bool {
		consumer, err := js.Consumer(ctx, "S", "C")
		return err == nil && consumer.CachedInfo().NumWaiting == 1
	}, patience, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-left, context.Canceled)
	_, err := js.PublishMsg(within(t), &natsgo.Msg{Subject: "s", Data: []byte("late")})
	require.NoError(t, err)
	pulled, err := p.Messages(within(t), "S", "C", 1)
	require.NoError(t, err)
	require.Len(t, pulled, 1)
	meta, err := pulled[0].Metadata()
	require.NoError(t, err)
	assert.EqualValues(t, 1, meta.NumDelivered)
}

// asked returns the pulls for the consumer C of the stream S by an API that answers nothing, and a connection by which
// they may be handed on to the one that does.
func asked(t *testing.T) (*pull.Puller, <-chan *natsgo.Msg, *natsgo.Conn) {
	t.Helper()
	s := natstest.RunServer(t)
	nc := conntest.Raw(t, s.URL())
	pulls := make(chan *natsgo.Msg, 10)
	_, err := nc.ChanSubscribe("api.CONSUMER.MSG.NEXT.S.C", pulls)
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	p, _ := open(t, s.URL(), jsapi.Options{Prefix: "api"})
	return p, pulls, nc
}

// A pull whose leader has gone without a word is followed by another one, and one that nobody answers is an error.
func TestSilence(t *testing.T) {
	t.Parallel()
	t.Run("once", func(t *testing.T) {
		t.Parallel()
		p, pulls, nc := asked(t)
		js, err := jetstream.New(nc)
		require.NoError(t, err)
		_, err = js.CreateStream(within(t), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
		require.NoError(t, err)
		_, err = js.CreateConsumer(within(t), "S", jetstream.ConsumerConfig{Durable: "C", AckPolicy: jetstream.AckExplicitPolicy})
		require.NoError(t, err)
		_, err = js.Publish(within(t), "s", nil)
		require.NoError(t, err)
		go func() {
			<-pulls
			m := <-pulls
			assert.NoError(t, nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT.S.C", m.Reply, m.Data))
		}()
		pulled, err := p.Messages(within(t), "S", "C", 1)
		require.NoError(t, err)
		require.Len(t, pulled, 1)
	})
	t.Run("all the time", func(t *testing.T) {
		t.Parallel()
		p, _, _ := asked(t)
		ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
		defer cancel()
		_, err := p.Messages(ctx, "S", "C", 1)
		require.ErrorIs(t, err, fault.ErrTimeout)
	})
}

// The denial of a pull that was left is heard by the call that goes on with it.
func TestDenialOfWhatWasLeft(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) {
		o.Users, o.NoAuthUser = []*server.User{{Username: "u", Password: "p", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Deny: []string{"$JS.API.CONSUMER.MSG.NEXT.>"}},
		}}}, "u"
	}))
	proxy := natstest.NewProxy(t, s.URL())
	p, _ := open(t, proxy.URL(), jsapi.Options{})
	proxy.Delay(100 * time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	_, err := p.Messages(ctx, "S", "C", 1)
	require.NoError(t, err)
	ctx, cancel = context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err = p.Messages(ctx, "S", "C", 1)
	require.ErrorIs(t, err, natsgo.ErrPermissionViolation)
}
