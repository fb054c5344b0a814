package publish_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/publish"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for a state that is sure to come.
const patience = time.Minute

// newPublisher returns a publisher behind a proxy, and upstream's handle that is before it.
func newPublisher(t *testing.T, config jetstream.StreamConfig) (*publish.Publisher, *natstest.Proxy, jetstream.Stream) {
	t.Helper()
	s := natstest.RunServer(t)
	nc := conntest.Raw(t, s.URL())
	js, err := jetstream.New(nc)
	require.NoError(t, err)
	stream, err := js.CreateStream(context.Background(), config)
	require.NoError(t, err)
	proxy := natstest.NewProxy(t, s.URL())
	api, err := jsapi.New(conntest.Open(t, proxy.URL(), nil), jsapi.Options{Timeout: patience})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return publish.New(ctx, api, patience), proxy, stream
}

var within = conntest.Within

func TestStoreAndStart(t *testing.T) {
	t.Parallel()
	p, _, stream := newPublisher(t, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	ctx := within(t, patience)
	m, err := p.Message("op", "s", natsgo.Header{"K": {"v"}}, []byte("x"), []jetstream.PublishOpt{jetstream.WithMsgID("one"), publish.Header("Nats-Rollup", "sub")})
	require.NoError(t, err)
	assert.Equal(t, natsgo.Header{"K": {"v"}, "Nats-Msg-Id": {"one"}, "Nats-Rollup": {"sub"}}, m.Header)
	require.ErrorIs(t, publish.Check("op", "s", m.Header, nil), fault.ErrReservedHeader)
	m.Header.Del("Nats-Rollup")
	ack, doubted, err := p.Store(ctx, "op", m)
	require.NoError(t, err)
	assert.False(t, doubted)
	assert.EqualValues(t, 1, ack.Sequence)
	future, err := p.Start(ctx, "op", m, publish.Flight{Patience: patience})
	require.NoError(t, err)
	ack, err, there := future.Result(true)
	require.NoError(t, err)
	assert.True(t, there)
	assert.True(t, ack.Duplicate, "the same message")
	took, repeated := future.Took()
	assert.Positive(t, took)
	assert.False(t, repeated)
	second := &natsgo.Msg{Subject: "s"}
	_, _, err = p.Store(ctx, "op", second)
	require.NoError(t, err)
	assert.NotEmpty(t, second.Header.Get(jetstream.MsgIDHeader), "it gets an ID")
	info, err := stream.Info(ctx)
	require.NoError(t, err)
	assert.EqualValues(t, 2, info.State.Msgs)
	assert.Zero(t, p.Drain(ctx))
	_, err = p.Start(ctx, "op", second, publish.Flight{})
	require.ErrorIs(t, err, fault.ErrClosed)
}

// What was sent and not answered may have been stored, whatever becomes of its repetition.
func TestWhatWasSentIsInDoubt(t *testing.T) {
	t.Parallel()
	deny := natstest.WithConfig(func(o *server.Options) {
		denied := &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"s"}}}
		o.Users, o.NoAuthUser = []*server.User{{Username: "u", Password: "p", Permissions: denied}}, "u"
	})
	for name, then := range map[string]func(*natstest.Server){
		"nobody is there": (*natstest.Server).Stop, "it is denied": func(s *natstest.Server) { s.Restart(deny) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := natstest.RunServer(t)
			nc := conntest.Raw(t, s.URL(), natsgo.NoReconnect())
			came := make(chan *natsgo.Msg, 10)
			_, err := nc.ChanSubscribe("s", came) // it answers nothing
			require.NoError(t, err)
			require.NoError(t, nc.Flush())
			api, err := jsapi.New(conntest.Open(t, s.URL(), nil), jsapi.Options{Timeout: patience})
			require.NoError(t, err)
			future, err := publish.New(t.Context(), api, patience).Start(within(t, 3*time.Second), "op", &natsgo.Msg{Subject: "s"}, publish.Flight{})
			require.NoError(t, err)
			<-came
			then(s)
			_, err, _ = future.Result(true)
			require.Error(t, err)
			assert.True(t, fault.Classify(err, func(error) (int, bool) { return 0, false }).IsUncertain(), "%v", err)
		})
	}
}

// Nothing starts any more when the end has begun, so those who go on publishing neither keep it up nor are cut short.
func TestDrainUnderPublishers(t *testing.T) {
	t.Parallel()
	p, _, _ := newPublisher(t, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	ctx := within(t, patience)
	began, ended := make(chan struct{}, 4), make(chan error, 4)
	for range cap(ended) {
		go func() {
			for {
				if _, err := p.Start(ctx, "op", &natsgo.Msg{Subject: "s"}, publish.Flight{}); err != nil {
					ended <- err
					return
				}
				select {
				case began <- struct{}{}:
				default:
				}
			}
		}()
	}
	<-began
	assert.Zero(t, p.Drain(ctx))
	for range cap(ended) {
		require.ErrorIs(t, <-ended, fault.ErrClosed)
	}
}

func TestDrainFailsWhatIsLeft(t *testing.T) {
	t.Parallel()
	p, proxy, _ := newPublisher(t, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	proxy.BlackHole()
	outer, cancel := context.WithCancel(context.Background())
	futures := make([]*publish.Future, 10)
	for i := range futures {
		var err error
		futures[i], err = p.Start(outer, "op", &natsgo.Msg{Subject: "s"}, publish.Flight{Context: context.WithoutCancel(outer)})
		require.NoError(t, err)
	}
	cancel() // which does not end them
	assert.Equal(t, 10, p.Drain(within(t, 50*time.Millisecond)))
	for _, future := range futures {
		_, err, there := future.Result(false)
		assert.True(t, there)
		require.ErrorIs(t, err, fault.ErrClosed)
	}
}

// The end, and each message's own, come in time also while there is no room on the line.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	nc := conntest.Raw(t, s.URL())
	came := make(chan *natsgo.Msg, 100)
	_, err := nc.ChanSubscribe("s", came) // it answers nothing
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	proxy := natstest.NewProxy(t, s.URL())
	link := conntest.Open(t, proxy.URL(), func(o *conn.Options) { o.RequestTimeout = patience })
	api, err := jsapi.New(link, jsapi.Options{Timeout: patience})
	require.NoError(t, err)
	p := publish.New(t.Context(), api, patience)
	stalls, watched := conntest.WatchStalls()
	defer watched()
	message := func() *natsgo.Msg { // without an ID
		return &natsgo.Msg{Subject: "s", Header: natsgo.Header{jetstream.MsgIDHeader: nil}, Data: make([]byte, 1_000_000)}
	}

	// Those in flight are sent again, and there is no room for the second of them.
	var last *publish.Future
	var ctx context.Context
	const n = 32
	for i := range n {
		if ctx = within(t, patience); i == n-1 {
			ctx = within(t, 3*time.Second)
		}
		last, err = p.Start(ctx, "op", message(), publish.Flight{})
		require.NoError(t, err)
	}
	for range n {
		<-came
	}
	proxy.Throttle(100 << 10)
	_, breaks, _ := link.State()
	require.NoError(t, link.NATS().ForceReconnect())
	require.NoError(t, link.WaitPast(within(t, patience), breaks+1))
	<-ctx.Done()
	begun := time.Now()
	_, err, _ = last.Result(true)
	require.Error(t, err)
	assert.Less(t, stalls.Since(begun), 4*time.Second, "it waits for nobody else")

	// One more waits for room when the end begins.
	require.Eventually(t, func() bool { return !link.HasRoom() }, patience, time.Millisecond)
	ended := make(chan error, 1)
	go func() {
		f, err := p.Start(within(t, patience), "op", message(), publish.Flight{})
		if err == nil {
			_, err, _ = f.Result(true)
		}
		ended <- err
	}()
	time.Sleep(100 * time.Millisecond) // it waits, mostly
	begun = time.Now()
	p.Drain(within(t, 100*time.Millisecond))
	require.ErrorIs(t, <-ended, fault.ErrClosed)
	assert.Less(t, stalls.Since(begun), 3*time.Second)
}

func TestAtomic(t *testing.T) {
	t.Parallel()
	p, _, _ := newPublisher(t, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, AllowAtomicPublish: true})
	batch, err := p.Atomic(within(t, patience), "op", []*natsgo.Msg{{Subject: "s"}, {Subject: "s"}})
	require.NoError(t, err)
	assert.Equal(t, "S", batch.Stream)
	assert.EqualValues(t, 2, batch.Sequence)
	assert.Equal(t, 2, batch.Size)
}

// Results come in the order of the messages, those that were never started included, and leaving the loop takes no more.
func TestSeq(t *testing.T) {
	t.Parallel()
	p, _, _ := newPublisher(t, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	ctx := within(t, patience)
	errNot := errors.New("not this one")
	start := func(i int) (*publish.Future, error) {
		if i == 2 {
			return nil, errNot
		}
		m, err := p.Message("test", "s", nil, []byte{byte(i)}, nil)
		require.NoError(t, err)
		return p.Start(ctx, "test", m, publish.Flight{})
	}
	var sequences []uint64
	for ack, err := range publish.Seq(slices.Values([]int{1, 2, 3}), start) {
		if err != nil {
			require.ErrorIs(t, err, errNot)
			sequences = append(sequences, 0)
			continue
		}
		sequences = append(sequences, ack.Sequence)
	}
	assert.Equal(t, []uint64{1, 0, 2}, sequences)
	taken := 0
	for _, err := range publish.Seq(func(yield func(int) bool) {
		for yield(2) {
			taken++
		}
	}, start) {
		require.ErrorIs(t, err, errNot)
		break
	}
	assert.Zero(t, taken)
}
