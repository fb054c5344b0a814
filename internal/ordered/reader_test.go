package ordered_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lifecycle"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/ordered"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dial returns the API over a connection of its own.
func dial(t *testing.T, url string) *jsapi.API {
	t.Helper()
	c := conntest.Open(t, url, func(o *conn.Options) {
		o.NATS.Timeout, o.ReconnectMaxWait, o.Denied = 20*time.Second, 50*time.Millisecond, nil
	})
	api, err := jsapi.New(c, jsapi.Options{Timeout: time.Minute})
	require.NoError(t, err)
	return api
}

// orderedTest is an API behind a proxy, and a stream with n messages on "s.0", "s.1", "s.2" by turns. The
// observer is connected past the proxy.
type orderedTest struct {
	server   *natstest.Server
	proxy    *natstest.Proxy
	api      *jsapi.API
	observer jetstream.JetStream
}

func newOrderedTest(t *testing.T, n int, opts ...natstest.Option) *orderedTest {
	t.Helper()
	o := &orderedTest{server: natstest.RunServer(t, opts...)}
	o.proxy = natstest.NewProxy(t, o.server.URL())
	o.api, o.observer = dial(t, o.proxy.URL()), dial(t, o.server.URL()).JetStream()
	_, err := o.observer.CreateStream(context.Background(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s.*"}})
	require.NoError(t, err)
	o.publish(t, 0, n)
	return o
}

func (o *orderedTest) publish(t *testing.T, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		_, err := o.observer.PublishAsync(fmt.Sprintf("s.%d", i%3), fmt.Appendf(nil, "message %d", i+1))
		require.NoError(t, err)
		if i%1000 == 999 { // upstream refuses too many at once
			<-o.observer.PublishAsyncComplete()
		}
	}
	<-o.observer.PublishAsyncComplete()
}

func (o *orderedTest) reader(t *testing.T, cfg jetstream.ConsumerConfig) *ordered.Reader {
	t.Helper()
	r, _ := o.start(t, ordered.Options{Stream: "S", Config: cfg, Batch: 256})
	return r
}

func (o *orderedTest) start(t *testing.T, options ordered.Options) (*ordered.Reader, ordered.Opening) {
	t.Helper()
	r := ordered.New(o.api, options)
	opening, err := r.Start(context.Background())
	require.NoError(t, err)
	t.Cleanup(r.Close)
	return r, opening
}

// consumers returns the names of the stream's consumers.
func (o *orderedTest) consumers(t *testing.T) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	stream, err := o.observer.Stream(ctx, "S")
	require.NoError(t, err)
	var names []string
	for name := range stream.ConsumerNames(ctx).Name() {
		names = append(names, name)
	}
	return names
}

func (o *orderedTest) noConsumers(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool { return len(o.consumers(t)) == 0 }, time.Minute, 10*time.Millisecond)
}

func timed(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestOrderedReaderMissesNothing(t *testing.T) {
	t.Parallel()
	const n = 20_000
	o := newOrderedTest(t, n)
	r, opening := o.start(t, ordered.Options{Stream: "S", Batch: 256})
	assert.EqualValues(t, n, opening.Pending)
	ctx := timed(t, 5*time.Minute)
	faults := []func(){
		func() { o.server.Restart() },
		func() { require.NoError(t, o.api.Conn().NATS().ForceReconnect()) },
		func() { o.proxy.Cut(); o.proxy.Restore() },
		func() {
			for _, name := range o.consumers(t) {
				_ = o.observer.DeleteConsumer(ctx, "S", name)
			}
		},
		func() { require.NoError(t, r.Inbox().Unsubscribe()) }, // the messages on their way are lost
	}
	for i := range n {
		if i%2000 == 1000 {
			faults[i/2000%len(faults)]()
		}
		m, d, err := r.Next(ctx)
		require.NoError(t, err)
		require.EqualValues(t, i+1, d.Sequence)
		require.Equal(t, fmt.Sprintf("message %d", i+1), string(m.Data))
	}
	// New messages arrive as well, and the waiting costs no consumer.
	name := r.Consumer()
	_, _, err := r.Next(timed(t, 2500*time.Millisecond))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	o.publish(t, n, n+10)
	for i := range 10 {
		_, d, err := r.Next(ctx)
		require.NoError(t, err)
		require.EqualValues(t, n+i+1, d.Sequence)
	}
	assert.Equal(t, name, r.Consumer())
	r.Close()
	r.Close()
	o.noConsumers(t)
}

func TestOrderedReaderFilters(t *testing.T) {
	t.Parallel()
	o := newOrderedTest(t, 3000)
	r, opening := o.start(t, ordered.Options{
		Stream: "S", Config: jetstream.ConsumerConfig{FilterSubjects: []string{"s.0", "s.2"}, HeadersOnly: true}, Batch: 256,
	})
	ctx := timed(t, time.Minute)
	assert.EqualValues(t, 2000, opening.Pending)
	for i := range 2000 {
		if i%500 == 250 {
			require.NoError(t, o.api.Conn().NATS().ForceReconnect())
		}
		m, _, err := r.Next(ctx)
		require.NoError(t, err)
		require.Equal(t, []string{"s.0", "s.2"}[i%2], m.Subject)
		require.Empty(t, m.Data)
		require.NotEmpty(t, m.Header.Get(natsgo.MsgSize))
	}
}

// A header Status on a message without payload must not pass for the server's word.
func TestOrderedReaderStatusHeader(t *testing.T) {
	t.Parallel()
	o := newOrderedTest(t, 1)
	r := o.reader(t, jetstream.ConsumerConfig{})
	for _, status := range []string{"100", "408", "409", "503"} {
		m := natsgo.NewMsg("s.1")
		m.Header.Set("Status", status)
		_, err := o.observer.PublishMsg(context.Background(), m)
		require.NoError(t, err)
	}
	name := r.Consumer()
	for i := range 5 {
		m, d, err := r.Next(timed(t, time.Minute))
		require.NoError(t, err)
		require.EqualValues(t, i+1, d.Sequence)
		require.Equal(t, i > 0, m.Header.Get("Status") != "")
	}
	assert.Equal(t, name, r.Consumer())
}

func TestOrderedReaderResumesAfterSilence(t *testing.T) {
	t.Parallel()
	o := newOrderedTest(t, 5)
	r := o.reader(t, jetstream.ConsumerConfig{})
	ctx := timed(t, time.Minute)
	for i := range 5 {
		_, d, err := r.Next(ctx)
		require.NoError(t, err)
		require.EqualValues(t, i+1, d.Sequence)
	}
	o.proxy.BlackHole()
	o.publish(t, 5, 10)
	_, _, err := r.Next(timed(t, 3*time.Second)) // longer than the silence that is borne
	require.ErrorIs(t, err, context.DeadlineExceeded)
	o.proxy.Restore()
	for i := range 5 {
		_, d, err := r.Next(ctx)
		require.NoError(t, err)
		require.EqualValues(t, i+6, d.Sequence)
	}
	r.Close()
	o.noConsumers(t)
}

// The last messages are lost, on a route between servers for example: no later one shows the gap.
func TestOrderedReaderNoticesLossAtTheEnd(t *testing.T) {
	t.Parallel()
	o := newOrderedTest(t, 3)
	r := o.reader(t, jetstream.ConsumerConfig{})
	require.Eventually(t, func() bool { return len(r.Received()) == 3 }, time.Minute, time.Millisecond)
	_, d, err := r.Next(timed(t, time.Second))
	require.NoError(t, err)
	require.EqualValues(t, 1, d.Sequence)
	<-r.Received()
	<-r.Received()
	for _, want := range []uint64{2, 3} {
		_, d, err = r.Next(timed(t, time.Minute))
		require.NoError(t, err)
		require.Equal(t, want, d.Sequence)
	}
}

// The later ones show it when one is lost before them.
func TestOrderedReaderNoticesLossInTheMiddle(t *testing.T) {
	t.Parallel()
	o := newOrderedTest(t, 4)
	r := o.reader(t, jetstream.ConsumerConfig{})
	require.Eventually(t, func() bool { return len(r.Received()) == 4 }, time.Minute, time.Millisecond)
	for want := range uint64(4) {
		if want == 1 {
			<-r.Received()
		}
		_, d, err := r.Next(timed(t, time.Minute))
		require.NoError(t, err)
		require.Equal(t, want+1, d.Sequence)
	}
}

// A consumer that is gone without a word, as with the server that led it, shows by silence.
func TestOrderedReaderReplacesASilentConsumer(t *testing.T) {
	t.Parallel()
	o := newOrderedTest(t, 0)
	r := o.reader(t, jetstream.ConsumerConfig{})
	inbox := r.Inbox().Subject
	require.NoError(t, r.Inbox().Unsubscribe())
	o.publish(t, 0, 3)
	for i := range 3 {
		_, d, err := r.Next(timed(t, time.Minute))
		require.NoError(t, err)
		require.EqualValues(t, i+1, d.Sequence)
	}
	assert.NotEqual(t, inbox, r.Inbox().Subject)
}

func TestOrderedReaderEnds(t *testing.T) {
	t.Parallel()
	o := newOrderedTest(t, 1)
	wrong := ordered.New(o.api, ordered.Options{Stream: "NONE", Batch: 10})
	_, err := wrong.Start(context.Background())
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound)
	wrong = ordered.New(o.api, ordered.Options{
		Stream: "S", Config: jetstream.ConsumerConfig{FilterSubject: "x", FilterSubjects: []string{"y"}}, Batch: 10,
	})
	_, err = wrong.Start(context.Background())
	require.Error(t, err)
	wrong.Close()

	r := o.reader(t, jetstream.ConsumerConfig{})
	_, _, err = r.Next(context.Background())
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, cancel)
	_, _, err = r.Next(ctx)
	require.ErrorIs(t, err, context.Canceled)

	time.AfterFunc(20*time.Millisecond, func() { _ = o.observer.DeleteStream(context.Background(), "S") })
	_, _, err = r.Next(timed(t, time.Minute))
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound)
}

func TestOrderedReaderEndsWithTheClient(t *testing.T) {
	t.Parallel()
	o := newOrderedTest(t, 1)
	for _, disconnected := range []bool{false, true} {
		if disconnected {
			o = newOrderedTest(t, 1)
		}
		r := o.reader(t, jetstream.ConsumerConfig{})
		_, _, err := r.Next(context.Background())
		require.NoError(t, err)
		if disconnected {
			o.proxy.Cut()
			require.Eventually(t, func() bool { return !o.api.Conn().IsUp() }, time.Minute, time.Millisecond)
		}
		ended := make(chan error, 1)
		go func() {
			_, _, err := r.Next(context.Background())
			ended <- err
		}()
		o.api.Conn().Close()
		require.ErrorIs(t, <-ended, fault.ErrClosed)
	}
}

// A reading ends with the last message that there was, and one that follows with its context or the client.
func TestRead(t *testing.T) {
	t.Parallel()
	o := newOrderedTest(t, 6)
	life := lifecycle.New()
	t.Cleanup(life.End)
	read := func(ctx context.Context, stream string, follow bool, each func(n int) bool) (bool, error) {
		n := 0
		return ordered.Read(ctx, o.api, life, stream, jetstream.ConsumerConfig{FilterSubjects: []string{"s.0", "s.1"}}, follow, func(ctx context.Context, m *natsgo.Msg) bool {
			require.NoError(t, ctx.Err())
			n++
			return each(n)
		})
	}
	last := 0
	begun, err := read(t.Context(), "S", false, func(n int) bool { last = n; return true })
	require.NoError(t, err)
	assert.True(t, begun)
	assert.Equal(t, 4, last)
	begun, err = read(t.Context(), "NONE", false, func(int) bool { return true })
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound)
	assert.False(t, begun)
	_, err = read(t.Context(), "S", true, func(n int) bool {
		if n == 4 {
			o.publish(t, 6, 8)
		}
		return n < 6
	})
	require.NoError(t, err)
	_, err = read(t.Context(), "S", true, func(n int) bool {
		if n == 4 {
			_, err := life.Close(context.Background(), func(context.Context) {}, func(context.Context) {})
			assert.NoError(t, err)
		}
		return true
	})
	require.ErrorIs(t, err, fault.ErrClosed)
}
