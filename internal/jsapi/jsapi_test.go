package jsapi_test

import (
	"bytes"
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
	"go.uber.org/goleak"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for a state that is sure to come.
const patience = time.Minute

func newAPI(t *testing.T, o jsapi.Options, server ...natstest.Option) *jsapi.API {
	t.Helper()
	url := natstest.RunServer(t, server...).URL()
	o.Timeout = patience
	a, err := jsapi.New(conntest.Open(t, url, nil), o)
	require.NoError(t, err)
	return a
}

func TestAsk(t *testing.T) {
	t.Parallel()
	a, ctx := newAPI(t, jsapi.Options{}), context.Background()
	assert.Equal(t, "$JS.API.STREAM.NAMES", a.Subject("STREAM.NAMES"))
	var answer struct {
		jsapi.Refusal
		Config jetstream.StreamConfig `json:"config"`
	}
	want := jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}}
	require.ErrorIs(t, jsapi.Wrap("get", "ORDERS", a.Ask(ctx, "STREAM.INFO.ORDERS", nil, &answer)), fault.ErrStreamNotFound)
	require.NoError(t, a.Ask(ctx, "STREAM.CREATE.ORDERS", want, &answer))
	assert.Equal(t, want.Subjects, answer.Config.Subjects)
	name, err := a.StreamOf(ctx, "orders.new")
	require.NoError(t, err)
	assert.Equal(t, "ORDERS", name)

	ack, doubted, end, err := jsapi.Send(ctx, a, natsgo.NewMsg("orders.new"), "orders.new", wire.ParsePubAck)
	require.NoError(t, err)
	require.NoError(t, end)
	assert.False(t, doubted)
	assert.EqualValues(t, 1, ack.Sequence)
	info, err := jsapi.Look(ctx, a, func(ctx context.Context, js jetstream.JetStream) (*jetstream.StreamInfo, error) {
		stream, err := js.Stream(ctx, "ORDERS")
		if err != nil {
			return nil, err
		}
		return stream.Info(ctx)
	})
	require.NoError(t, err)
	assert.EqualValues(t, 1, info.State.Msgs)
}

// A context that has ended before its question is asked deletes nothing.
func TestEndedBeforeItIsAsked(t *testing.T) {
	t.Parallel()
	a := newAPI(t, jsapi.Options{})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	_, err := a.JetStream().CreateStream(ctx, jetstream.StreamConfig{Name: "ORDERS"})
	require.NoError(t, err)
	cancel()
	late, cancel := context.WithDeadline(context.Background(), time.Now())
	defer cancel()
	for end, ctx := range map[error]context.Context{context.Canceled: ctx, context.DeadlineExceeded: late} {
		err = a.Ask(ctx, "STREAM.DELETE.ORDERS", nil, &jsapi.Refusal{})
		require.Equal(t, end, err, "nothing else, for nothing was sent")
	}
	_, err = a.StreamInfo(context.Background(), "ORDERS")
	require.NoError(t, err)
}

// What was asked before the connection went may have been done, and what was not was not.
func TestConnectionGoesBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	create := map[string]func(context.Context, *jsapi.API) error{
		"ask": func(ctx context.Context, a *jsapi.API) error {
			return a.Ask(ctx, "STREAM.CREATE.ORDERS", jetstream.StreamConfig{Name: "ORDERS"}, nil)
		},
		"look": func(ctx context.Context, a *jsapi.API) error {
			_, err := jsapi.Look(ctx, a, func(ctx context.Context, js jetstream.JetStream) (jetstream.Stream, error) {
				return js.CreateStream(ctx, jetstream.StreamConfig{Name: "ORDERS"})
			})
			return err
		},
	}
	s := natstest.RunServer(t)
	for name, create := range create {
		for _, kind := range []error{fault.ErrNotConnected, fault.ErrClosed} {
			proxy := natstest.NewProxy(t, s.URL())
			prefix := fmt.Sprint(name, kind == fault.ErrClosed) //nolint:errorlint // of the table
			a, err := jsapi.New(conntest.Open(t, proxy.URL(), nil), jsapi.Options{Timeout: patience, Prefix: prefix})
			require.NoError(t, err)
			ctx, cancel := context.WithCancelCause(context.Background())
			defer cancel(nil)
			questions := asked(t, s, prefix+".>")
			go func() {
				<-questions
				if kind == fault.ErrClosed { //nolint:errorlint // of the table
					a.Conn().Close()
				}
				proxy.Cut()
				assert.Eventually(t, func() bool { return !a.Conn().IsUp() }, patience, time.Millisecond)
				time.Sleep(100 * time.Millisecond) // so that the call, mostly, finds out first
				cancel(context.DeadlineExceeded)
			}()
			for _, sent := range []bool{true, false} {
				err = jsapi.Wrap("create stream", "ORDERS", create(ctx, a))
				if !sent {
					require.ErrorIs(t, err, kind, name)
				}
				assert.Equal(t, sent, fault.Classify(err, nil).IsUncertain(), "%s: %v", name, err)
			}
		}
	}
}

// What was asked once in vain may have been done, whatever is said to its repetition before the connection goes.
func TestNotNowLeavesTheDoubt(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	for _, closed := range []bool{false, true} {
		questions := asked(t, s, fmt.Sprint(closed))
		proxy := natstest.NewProxy(t, s.URL())
		a, err := jsapi.New(conntest.Open(t, proxy.URL(), nil), jsapi.Options{Timeout: patience})
		require.NoError(t, err)
		ctx, cancel := context.WithCancelCause(context.Background())
		defer cancel(nil)
		go func() {
			<-questions
			assert.NoError(t, (<-questions).Respond(nil))
		}()
		_, doubted, end, err := jsapi.Send(ctx, a, natsgo.NewMsg(fmt.Sprint(closed)), "", func(*natsgo.Msg) (any, error) {
			if closed {
				a.Conn().Close()
			}
			proxy.Cut()
			assert.Eventually(t, func() bool { return !a.Conn().IsUp() }, patience, time.Millisecond)
			time.AfterFunc(100*time.Millisecond, func() { cancel(context.DeadlineExceeded) })
			return nil, &jetstream.APIError{Code: 503, ErrorCode: 10008, Description: "not now"}
		})
		require.Error(t, end)
		assert.True(t, doubted)
		err = jsapi.Wrap("delete stream", "ORDERS", a.Unanswered(ctx, end, err))
		assert.True(t, fault.Classify(err, nil).IsUncertain(), "%v", err)
	}
}

// An answer that has come counts, also where the time and the connection have gone since.
func TestAnswerThatHasCome(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	questions := asked(t, s, "q")
	proxy := natstest.NewProxy(t, s.URL())
	a, err := jsapi.New(conntest.Open(t, proxy.URL(), nil), jsapi.Options{Timeout: patience})
	require.NoError(t, err)
	call := a.Conn().Ask(natsgo.NewMsg("q"))
	ctx, cancel := context.WithCancel(context.Background())
	question := make(chan *natsgo.Msg, 1)
	go func() {
		question <- <-questions
		cancel()
	}()
	for err == nil && ctx.Err() == nil {
		_, err = call.Next(ctx)
		if ctx.Err() == nil {
			err = nil
		}
	}
	m := <-question
	nc := conntest.Raw(t, s.URL())
	require.NoError(t, nc.Publish(m.Reply, []byte("x")))
	require.Eventually(t, call.Answered, patience, time.Millisecond)
	proxy.Cut()
	require.Eventually(t, func() bool { return !a.Conn().IsUp() }, patience, time.Millisecond)
	answer, _, end, err := jsapi.GoOn(ctx, a, call, "", func(m *natsgo.Msg) (string, error) { return string(m.Data), nil })
	require.NoError(t, err)
	require.NoError(t, end)
	assert.Equal(t, "x", answer)
}

// asked returns a channel that brings the first question on a subject, to which nobody answers.
func asked(t *testing.T, s *natstest.Server, subject string) <-chan *natsgo.Msg {
	t.Helper()
	nc := conntest.Raw(t, s.URL())
	questions := make(chan *natsgo.Msg, 64)
	_, err := nc.ChanSubscribe(subject, questions)
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	return questions
}

// Who is told again and again that nobody listens hears so at the end, too, which mostly comes in a pause.
func TestNobodyAnswers(t *testing.T) {
	t.Parallel()
	a := newAPI(t, jsapi.Options{Domain: "nowhere"})
	for i := range 10 {
		ctx, cancel := context.WithTimeout(context.Background(), 2*jsapi.Pause+time.Duration(i)*jsapi.Pause/10)
		err := jsapi.Wrap("get stream", "ORDERS", a.Ask(ctx, "STREAM.INFO.ORDERS", nil, &jsapi.Refusal{}))
		cancel()
		require.ErrorIs(t, err, fault.ErrTimeout)
		require.ErrorIs(t, err, natsgo.ErrNoResponders)
		assert.ErrorContains(t, err, "is the domain right?")
	}
	unstored := &fault.Error{Target: "$KV.b.k", Kind: fault.ErrTimeout, Cause: natsgo.ErrNoResponders}
	err := jsapi.Wrap("put key", "b/k", unstored)
	require.ErrorIs(t, err, fault.ErrTimeout)
	require.NotErrorIs(t, err, fault.ErrJetStreamDisabled, "nobody stores it, which says nothing about the API")
}

func TestHopeless(t *testing.T) {
	t.Parallel()
	a := newAPI(t, jsapi.Options{})
	_, err := a.Conn().NATS().Subscribe("heard", func(*natsgo.Msg) {}) // so that silence is the answer
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.ErrorIs(t, a.Hopeless(ctx, "heard", time.Now(), true, nil), jetstream.ErrNoStreamResponse)
	_, _, end, err := jsapi.Send(ctx, a, natsgo.NewMsg("heard"), "heard", wire.ParsePubAck)
	require.NoError(t, end)
	require.ErrorIs(t, err, jetstream.ErrNoStreamResponse)
	_, err = a.JetStream().CreateStream(ctx, jetstream.StreamConfig{Name: "HEARD", Subjects: []string{"heard"}})
	require.NoError(t, err)
	assert.Eventually(t, func() bool { return a.Hopeless(ctx, "heard", time.Now(), true, nil) == nil }, patience, time.Millisecond)
}

// Upstream's calls are repeated while they are silent, and the answer to any of them counts.
func TestLook(t *testing.T) {
	t.Parallel()
	a := newAPI(t, jsapi.Options{})
	var calls atomic.Int64
	second := make(chan struct{})
	n, err := jsapi.Look(context.Background(), a, func(ctx context.Context, _ jetstream.JetStream) (int64, error) {
		n := calls.Add(1)
		switch n {
		case 1:
			select {
			case <-second:
				return n, nil // late
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		case 2:
			close(second)
		}
		<-ctx.Done()
		return 0, ctx.Err()
	})
	require.NoError(t, err)
	assert.EqualValues(t, 1, n)

	calls.Store(0)
	passing := &jetstream.APIError{Code: 503, ErrorCode: 10008, Description: "no leader"}
	final := &jetstream.APIError{Code: 404, ErrorCode: jetstream.JSErrCodeStreamNotFound}
	_, err = jsapi.Look(context.Background(), a, func(context.Context, jetstream.JetStream) (any, error) {
		if calls.Add(1) == 1 {
			return nil, passing
		}
		return nil, final
	})
	require.ErrorIs(t, err, final)
	assert.EqualValues(t, 2, calls.Load())
	calls.Store(0)
	_, err = jsapi.Open(context.Background(), a, "B", true, func(_ jetstream.JetStream, _ context.Context, bucket string) (any, error) {
		assert.Equal(t, "B", bucket)
		if calls.Add(1) == 1 {
			return nil, jetstream.ErrBucketNotFound
		}
		return nil, final
	})
	require.ErrorIs(t, err, final)
	assert.NotErrorIs(t, err, jetstream.ErrBucketNotFound)
	assert.EqualValues(t, 2, calls.Load())
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err = jsapi.Look(ctx, a, func(context.Context, jetstream.JetStream) (any, error) { return nil, passing })
	require.ErrorIs(t, err, passing)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// Streams come in pages, a purge keeps what comes after it, and those that a stream overlaps with are named.
func TestStreams(t *testing.T) {
	t.Parallel()
	a, ctx := newAPI(t, jsapi.Options{}), t.Context()
	const many = 260 // the server's page has 256
	for i := range many {
		require.NoError(t, a.Ask(ctx, fmt.Sprint("STREAM.CREATE.S", i), jetstream.StreamConfig{
			Name: fmt.Sprint("S", i), Subjects: []string{fmt.Sprint("s.", i)}, Storage: jetstream.MemoryStorage,
		}, &jsapi.Refusal{}))
	}
	names := make(map[string]bool)
	for info, err := range a.Streams(ctx) {
		require.NoError(t, err)
		names[info.Config.Name] = true
	}
	assert.Len(t, names, many)
	for _, err := range a.Streams(ctx) {
		require.NoError(t, err)
		break
	}

	for range 2 {
		_, _, _, err := jsapi.Send(ctx, a, natsgo.NewMsg("s.7"), "s.7", wire.ParsePubAck)
		require.NoError(t, err)
	}
	require.NoError(t, a.Purge(ctx, "S7", jetstream.StreamPurgeRequest{Keep: 1}))
	info, err := a.StreamInfo(ctx, "S7")
	require.NoError(t, err)
	assert.EqualValues(t, 1, info.State.Msgs)
	require.NoError(t, a.Purge(ctx, "S7", jetstream.StreamPurgeRequest{}))
	require.ErrorIs(t, a.Purge(ctx, "NONE", jetstream.StreamPurgeRequest{}), jetstream.ErrStreamNotFound)

	cfg := jetstream.StreamConfig{Name: "S", Subjects: []string{"s.7"}}
	err = a.Ask(ctx, "STREAM.CREATE.S", cfg, &jsapi.Refusal{})
	require.ErrorContains(t, a.Overlap(ctx, &cfg, err), `the stream "S7" stores "s.7"`)
	require.NoError(t, a.Overlap(ctx, &cfg, nil))
}

// Subjects come in pages, and those that go between two of them take no other one with them.
func TestSubjectsGoBetweenPages(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	var once sync.Once
	conntest.Forward(t, s.URL(), func(nc *natsgo.Conn, m *natsgo.Msg) bool {
		if bytes.Contains(m.Data, []byte(`"subjects_filter"`)) && !bytes.Contains(m.Data, []byte(`"offset":0}`)) {
			once.Do(func() {
				_, err := nc.Request("$JS.API.STREAM.PURGE.S", []byte(`{"filter":"s.early.>"}`), patience)
				assert.NoError(t, err)
			})
		}
		return true
	})
	a, err := jsapi.New(conntest.Open(t, s.URL(), nil), jsapi.Options{Timeout: patience, Prefix: conntest.ForwardPrefix})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	require.NoError(t, a.Ask(ctx, "STREAM.CREATE.S", jetstream.StreamConfig{
		Name: "S", Subjects: []string{"s.>"}, Storage: jetstream.MemoryStorage, NoAck: true,
	}, nil))
	const early, late = 2000, 99_500 // the server's page has 100,000
	nc := a.Conn().NATS()
	for i := range early + late {
		subject := fmt.Sprintf("s.early.%06d", i)
		if i >= early {
			subject = fmt.Sprintf("s.late.%06d", i)
		}
		require.NoError(t, nc.Publish(subject, nil))
	}
	require.Eventually(t, func() bool {
		info, err := a.StreamInfo(ctx, "S")
		return err == nil && info.State.Msgs == early+late
	}, patience, 50*time.Millisecond)
	found, err := a.Subjects(ctx, "S", "s.>")
	require.NoError(t, err)
	missing := 0
	for i := early; i < early+late; i++ {
		if found[fmt.Sprintf("s.late.%06d", i)] == 0 {
			missing++
		}
	}
	assert.Zero(t, missing)
	found, err = a.Subjects(ctx, "S", "s.late.>")
	require.NoError(t, err)
	assert.Len(t, found, late)
	found, err = a.Subjects(ctx, "S", "none")
	require.NoError(t, err)
	assert.Empty(t, found)
}

// The stream that stores a subject of another domain is asked about there, and is none of this domain's.
func TestWindowOfAnotherDomain(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	hub := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) { o.ServerName, o.JetStreamDomain = "hub", "hub" }))
	leaf := natstest.RunLeaf(t, hub, "leaf", natstest.WithConfig(func(o *server.Options) { o.ServerName = "leaf" }))
	apis := map[*natstest.Server]*jsapi.API{}
	for s, window := range map[*natstest.Server]time.Duration{hub: 10 * time.Second, leaf: 20 * time.Second} {
		a, err := jsapi.New(conntest.Open(t, s.URL(), nil), jsapi.Options{Timeout: patience})
		require.NoError(t, err)
		_, err = a.JetStream().CreateStream(ctx, jetstream.StreamConfig{Name: "KV_b", Subjects: []string{"$KV.b.>"}, Duplicates: window})
		require.NoError(t, err)
		apis[s] = a
	}
	assert.Equal(t, 10*time.Second, apis[leaf].Window(ctx, "$JS.hub.API.$KV.b.k", true))
	assert.Equal(t, 20*time.Second, apis[leaf].Window(ctx, "$KV.b.k", true))
	assert.Equal(t, 10*time.Second, apis[leaf].Window(ctx, "$JS.hub.API.$KV.b.other", true))
}

// Whether a consumer is gone whose acknowledgements nobody takes is not known to who is closed.
func TestConfirmThatIsClosed(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	questions := asked(t, s, "api.>")
	a, err := jsapi.New(conntest.Open(t, s.URL(), nil), jsapi.Options{Timeout: patience, Prefix: "api"})
	require.NoError(t, err)
	go func() {
		<-questions
		a.Conn().Close()
	}()
	err = a.Confirm(context.Background(), "$JS.ACK.S.C.1.1.1.1700000000000000000.0", wire.Ack)
	require.ErrorIs(t, err, fault.ErrClosed)
	require.NotErrorIs(t, err, natsgo.ErrNoResponders)
}

// So it is with streams.
func TestStreamsGoBetweenPages(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	const many, gone = 300, 20 // the server's page has 256
	var once sync.Once
	conntest.Forward(t, s.URL(), func(nc *natsgo.Conn, m *natsgo.Msg) bool {
		if m.Subject == "$JS.API.STREAM.LIST" && !bytes.Contains(m.Data, []byte(`"offset":0}`)) {
			once.Do(func() {
				for i := range gone {
					_, err := nc.Request(fmt.Sprintf("$JS.API.STREAM.DELETE.S%03d", i), nil, patience)
					assert.NoError(t, err)
				}
			})
		}
		return true
	})
	a, err := jsapi.New(conntest.Open(t, s.URL(), nil), jsapi.Options{Timeout: patience, Prefix: conntest.ForwardPrefix})
	require.NoError(t, err)
	for i := range many {
		require.NoError(t, a.Ask(t.Context(), fmt.Sprintf("STREAM.CREATE.S%03d", i), jetstream.StreamConfig{
			Name: fmt.Sprintf("S%03d", i), Storage: jetstream.MemoryStorage,
		}, nil))
	}
	var names []string
	for info, err := range a.Streams(t.Context()) {
		require.NoError(t, err)
		names = append(names, info.Config.Name)
	}
	require.Len(t, names, many)
	assert.IsIncreasing(t, names)
}
