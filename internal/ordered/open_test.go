package ordered_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/ordered"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/sentinel"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// created counts the consumers that are made from now on.
func (o *orderedTest) created(t *testing.T) *atomic.Int64 {
	t.Helper()
	var n atomic.Int64
	nc := o.observer.Conn()
	_, err := nc.Subscribe("$JS.EVENT.ADVISORY.CONSUMER.CREATED.>", func(*natsgo.Msg) { n.Add(1) })
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	return &n
}

// A server far away is asked for one consumer; one that is found to be slow for some, of which one is left.
func TestOneConsumerAtADistance(t *testing.T) {
	t.Parallel()
	for name, trip := range map[string]time.Duration{"0.6": 600 * time.Millisecond, "1.2": 1200 * time.Millisecond, "2.4": 2400 * time.Millisecond} {
		for _, known := range []bool{true, false} {
			t.Run(name+map[bool]string{true: " known", false: " not known"}[known], func(t *testing.T) {
				t.Parallel()
				o := newOrderedTest(t, 3)
				if known {
					o.proxy.Delay(trip / 2)
					o.api = dial(t, o.proxy.URL())
				} else {
					o.proxy.Delay(trip / 2)
				}
				created := o.created(t)
				r := o.reader(t, jetstream.ConsumerConfig{})
				for i := range 3 {
					_, d, err := r.Next(timed(t, time.Minute))
					require.NoError(t, err)
					assert.EqualValues(t, i+1, d.Sequence)
				}
				if known {
					assert.EqualValues(t, 1, created.Load())
				}
				require.Eventually(t, func() bool { return len(o.consumers(t)) == 1 }, time.Minute, 10*time.Millisecond)
				r.Close()
				o.noConsumers(t)
			})
		}
	}
}

// A reading that ends before the server has answered leaves nothing behind either.
func TestNoConsumerIsLeftByAReadingThatTookTooLong(t *testing.T) {
	t.Parallel()
	o := newOrderedTest(t, 3)
	o.proxy.Delay(500 * time.Millisecond)
	created := o.created(t)
	r := ordered.New(o.api, ordered.Options{Stream: "S", Batch: 10})
	_, err := r.Start(timed(t, 900*time.Millisecond))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	r.Close()
	require.Eventually(t, func() bool { return created.Load() > 0 }, time.Minute, 10*time.Millisecond)
	o.noConsumers(t)
}

// A server that compares thousands of filters with each other is not asked again while it does.
func TestOneQuestionForManyFilters(t *testing.T) {
	t.Parallel()
	o := newOrderedTest(t, 0)
	api, err := jsapi.New(o.api.Conn(), jsapi.Options{Prefix: "SILENT", Timeout: time.Minute})
	require.NoError(t, err)
	var asked atomic.Int64
	_, err = o.observer.Conn().Subscribe("SILENT.CONSUMER.CREATE.>", func(*natsgo.Msg) { asked.Add(1) })
	require.NoError(t, err)
	require.NoError(t, o.observer.Conn().Flush())
	filters := make([]string, 4000)
	for i := range filters {
		filters[i] = fmt.Sprint("s.", i)
	}
	r := ordered.New(api, ordered.Options{Stream: "S", Batch: 10, Config: jetstream.ConsumerConfig{FilterSubjects: filters}})
	_, err = r.Start(timed(t, 3*time.Second))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	r.Close()
	assert.EqualValues(t, 1, asked.Load())
}

// However long nobody answers, the reader does not grow.
func TestNamesAreForgotten(t *testing.T) {
	t.Parallel()
	o := newOrderedTest(t, 0)
	r := ordered.New(o.api, ordered.Options{Stream: "S", Batch: 10})
	for range 1000 {
		r.Ask()
	}
	assert.Equal(t, 32, r.Names())
}

// A stream that was made anew, or has lost its last messages, is told from the one that was read.
func TestAnotherStreamOfTheName(t *testing.T) {
	t.Parallel()
	o := newOrderedTest(t, 3)
	var anew []bool
	var r *ordered.Reader
	r, _ = o.start(t, ordered.Options{Stream: "S", Batch: 10, Opened: func(o ordered.Opening) error {
		if anew = append(anew, o.Anew); o.Anew {
			r.Restart(jetstream.DeliverAllPolicy)
		}
		return nil
	}})
	read := func(from, to int) {
		t.Helper()
		for i := from; i <= to; i++ {
			_, d, err := r.Next(timed(t, time.Minute))
			require.NoError(t, err)
			require.EqualValues(t, i, d.Sequence)
		}
	}
	while := func(meanwhile func()) { // there is no connection
		o.proxy.Cut()
		require.Eventually(t, func() bool { return !o.api.Conn().IsUp() }, time.Minute, time.Millisecond)
		meanwhile()
		o.proxy.Restore()
	}
	read(1, 3)
	while(func() { o.publish(t, 3, 4) })
	read(4, 4)
	while(func() {
		ctx := context.Background()
		require.NoError(t, o.observer.DeleteStream(ctx, "S"))
		_, err := o.observer.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s.*"}})
		require.NoError(t, err)
		o.publish(t, 0, 5)
	})
	read(1, 5)
	r.SkipTo(0)
	while(func() { o.publish(t, 5, 6) })
	read(6, 6)
	assert.Equal(t, []bool{false, true, false}, slices.Compact(anew)) // who is slow to answer is asked again
}

// A reader that has nothing to do costs what upstream's does: the server says so every 15 s.
func TestIdleReaderIsCalm(t *testing.T) {
	t.Parallel()
	o := newOrderedTest(t, 0)
	r, _ := o.start(t, ordered.Options{Stream: "S", Batch: 256, Lasting: true})
	_, _, err := r.Next(timed(t, 12*time.Second)) // what its youth takes
	require.ErrorIs(t, err, context.DeadlineExceeded)
	name, before := r.Consumer(), o.api.Conn().NATS().Stats()
	_, _, err = r.Next(timed(t, 8*time.Second))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	after := o.api.Conn().NATS().Stats()
	assert.LessOrEqual(t, after.InMsgs-before.InMsgs, uint64(2))
	assert.LessOrEqual(t, after.OutMsgs-before.OutMsgs, uint64(2))
	assert.Equal(t, name, r.Consumer())
	for i := range 2 { // what comes now and then costs no new consumer
		o.publish(t, i, i+1)
		_, d, err := r.Next(timed(t, time.Minute))
		require.NoError(t, err)
		assert.EqualValues(t, i+1, d.Sequence)
		_, _, err = r.Next(timed(t, 3*time.Second)) // longer than another reader bears silence
		require.ErrorIs(t, err, context.DeadlineExceeded)
		assert.Equal(t, name, r.Consumer())
	}
}

// A reader that has had nothing to do for long hears of its consumer every 5 s, where a server that it is not connected
// to may lead it: the first that it hears tells of the loss.
func TestCalmReaderNoticesLossAtTheEnd(t *testing.T) {
	t.Parallel()
	o := newOrderedTest(t, 0, natstest.WithConfig(func(o *server.Options) { o.JetStreamDomain = "far" }))
	var err error
	o.api, err = jsapi.New(o.api.Conn(), jsapi.Options{Domain: "far", Timeout: time.Minute})
	require.NoError(t, err)
	quick, _ := o.start(t, ordered.Options{Stream: "S", Batch: 256, Lasting: true}) // for both
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			_, _, _ = quick.Next(ctx)
		}
	}()
	defer func() { end(); <-ended }()
	r, _ := o.start(t, ordered.Options{Stream: "S", Batch: 256, Lasting: true})
	var beats atomic.Int64
	_, err = o.observer.Conn().Subscribe(r.Inbox().Subject, func(m *natsgo.Msg) {
		if status, _ := wire.Status(m); status == wire.StatusHeartbeat {
			beats.Add(1)
		}
	})
	require.NoError(t, err)
	require.NoError(t, o.observer.Conn().Flush())
	for before := int64(-100); beats.Load() > before+1; {
		before = beats.Load()
		_, _, err := r.Next(timed(t, 3*time.Second))
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	o.publish(t, 0, 1)
	for m := <-r.Received(); len(m.Data) == 0; {
		m = <-r.Received()
	}
	beats.Store(0)
	_, d, err := r.Next(timed(t, time.Minute))
	require.NoError(t, err)
	assert.EqualValues(t, 1, d.Sequence)
	assert.LessOrEqual(t, beats.Load(), int64(1))
}

// Of those that want to know for how long their server is silent, one has quick heartbeats, which count for all, and
// when it ends another one. What makes all look at something else costs no consumer.
func TestOneOfIdleReadersIsQuick(t *testing.T) {
	t.Parallel()
	const n = 20
	o := newOrderedTest(t, 0)
	var readers []*ordered.Reader
	var ends []func()
	var woken, stale atomic.Int64
	for range n {
		r, _ := o.start(t, ordered.Options{
			Stream: "S", Batch: 256, Lasting: true,
			Woken: func() error { woken.Add(1); return nil },
			Observe: func(fresh bool) {
				if !fresh {
					stale.Add(1)
				}
			},
		})
		readers = append(readers, r)
		ctx, end := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _, err := r.Next(ctx)
			assert.ErrorIs(t, err, context.Canceled)
			assert.Less(t, r.ServerSilence(), time.Minute, "it was heard until Next returned")
			r.Close()
		}()
		ends = append(ends, sync.OnceFunc(func() { end(); <-ended }))
		t.Cleanup(ends[len(ends)-1])
	}
	time.Sleep(12 * time.Second) // what their youth takes
	created := o.created(t)
	const span = 8 * time.Second
	before := o.api.Conn().NATS().Stats()
	time.Sleep(span)
	after := o.api.Conn().NATS().Stats()
	assert.LessOrEqual(t, after.InMsgs-before.InMsgs, uint64(2*n), "fewer than upstream's, which are told every 5 s")
	for _, r := range readers {
		assert.Less(t, r.ServerSilence(), 3*time.Second)
		r.Wake()
	}
	require.Eventually(t, func() bool { return woken.Load() >= n }, time.Minute, time.Millisecond)

	inboxes := make([]atomic.Int64, n)
	for i, r := range readers {
		_, err := o.observer.Conn().Subscribe(r.Inbox().Subject, func(*natsgo.Msg) { inboxes[i].Add(1) })
		require.NoError(t, err)
	}
	quick := func() (at int) {
		for i := range inboxes {
			inboxes[i].Store(0)
		}
		require.Eventually(t, func() bool {
			for at = range inboxes {
				if inboxes[at].Load() >= 5 {
					return true
				}
			}
			return false
		}, time.Minute, time.Millisecond)
		return at
	}
	first := quick()
	ends[first]()
	assert.NotEqual(t, first, quick())
	assert.Zero(t, created.Load())

	// A server that is silent is so for all, and all look for themselves, until it is heard again.
	seen := stale.Load()
	o.proxy.BlackHole()
	require.Eventually(t, func() bool { return stale.Load() >= seen+n-1 }, time.Minute, time.Millisecond)
	o.proxy.Restore()
	require.Eventually(t, func() bool {
		return !slices.ContainsFunc(readers, func(r *ordered.Reader) bool { return r != readers[first] && r.ServerSilence() > sentinel.Silence })
	}, time.Minute, time.Millisecond)
}

// A server that limits pulls is asked for as much as it gives.
func TestServerLimitsPulls(t *testing.T) {
	t.Parallel()
	for _, most := range []int{1, 2, 10} {
		for _, lasting := range []bool{false, true} {
			o := newOrderedTest(t, 30, natstest.WithConfig(func(o *server.Options) { o.JetStreamLimits.MaxRequestBatch = most }))
			created := o.created(t)
			r, _ := o.start(t, ordered.Options{Stream: "S", Batch: 256, Lasting: lasting})
			for i := range 30 {
				_, d, err := r.Next(timed(t, time.Minute))
				require.NoError(t, err)
				assert.EqualValues(t, i+1, d.Sequence)
			}
			assert.LessOrEqual(t, created.Load(), int64(1)) // which may not have been told yet
		}
	}
}

// The server says nothing of the end of a pull whose limit of bytes is met exactly: what follows is read of the same consumer.
func TestMessagesThatFillAPull(t *testing.T) {
	t.Parallel()
	o := newOrderedTest(t, 1)
	m, _, err := o.reader(t, jetstream.ConsumerConfig{}).Next(timed(t, time.Minute))
	require.NoError(t, err)
	around, room := m.Size()-len(m.Data), wire.MaxBytes-m.Size()
	for i := range 7 {
		size := 500_000 + 40_000*i
		if i == 6 {
			size = room
		}
		room -= size
		_, err := o.observer.Publish(t.Context(), "s.0", make([]byte, size-around))
		require.NoError(t, err)
	}
	_, err = o.observer.Publish(t.Context(), "s.0", nil)
	require.NoError(t, err)
	created := o.created(t)
	r := o.reader(t, jetstream.ConsumerConfig{})
	for i := range 9 {
		_, d, err := r.Next(timed(t, time.Minute))
		require.NoError(t, err)
		assert.EqualValues(t, i+1, d.Sequence)
	}
	assert.LessOrEqual(t, created.Load(), int64(1)) // which may not have been told yet
}

// Somebody who deletes each consumer as soon as it is made meets ever fewer of them.
func TestConsumersThatAreDeleted(t *testing.T) {
	t.Parallel()
	o := newOrderedTest(t, 0)
	created := o.created(t)
	nc := o.observer.Conn()
	_, err := nc.Subscribe("$JS.EVENT.ADVISORY.CONSUMER.CREATED.>", func(m *natsgo.Msg) {
		_ = nc.Publish("$JS.API.CONSUMER.DELETE.S."+m.Subject[strings.LastIndexByte(m.Subject, '.')+1:], nil)
	})
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	r := o.reader(t, jetstream.ConsumerConfig{})
	_, _, err = r.Next(timed(t, 3*time.Second))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Less(t, created.Load(), int64(30))
}

// A pass over the last message of each subject meets all, however often some are replaced meanwhile; who follows then
// asks for nothing beyond the messages.
func TestPassMeetsWhatIsReplaced(t *testing.T) {
	t.Parallel()
	o := newOrderedTest(t, 0)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	_, err := o.observer.CreateStream(ctx, jetstream.StreamConfig{Name: "L", Subjects: []string{"l.*"}, MaxMsgsPerSubject: 1})
	require.NoError(t, err)
	const n = 1000
	for i := range n {
		_, err := o.observer.PublishAsync(fmt.Sprint("l.", i), nil)
		require.NoError(t, err)
	}
	<-o.observer.PublishAsyncComplete()
	replacing, stop := context.WithCancel(ctx)
	var replaced sync.WaitGroup
	for i := range 3 {
		replaced.Go(func() {
			for replacing.Err() == nil {
				_, _ = o.observer.Publish(replacing, fmt.Sprint("l.", i*n/3), nil)
			}
		})
	}
	errIdle := errors.New("idle")
	var r *ordered.Reader
	for range 30 {
		seen := make(map[string]bool)
		r, _ = o.start(t, ordered.Options{
			Stream: "L", Config: jetstream.ConsumerConfig{FilterSubject: ">", DeliverPolicy: jetstream.DeliverLastPerSubjectPolicy},
			Batch: 256, Whole: true, Idle: func(context.Context) error { return errIdle },
		})
		for more := true; more; {
			m, d, err := r.Next(ctx)
			if errors.Is(err, errIdle) {
				break
			}
			require.NoError(t, err)
			seen[m.Subject] = true
			more = d.Pending > 0
		}
		require.Equal(t, n, len(seen)) //nolint:testifylint // Len shows them all
	}
	stop()
	replaced.Wait()
	r.SkipTo(0)
	for {
		if _, _, err := r.Next(ctx); err != nil {
			require.ErrorIs(t, err, errIdle)
			break
		}
	}
	pulls := make(chan *natsgo.Msg, 64)
	_, err = o.observer.Conn().ChanSubscribe("$JS.API.CONSUMER.MSG.NEXT.L."+r.Consumer(), pulls)
	require.NoError(t, err)
	require.NoError(t, o.observer.Conn().Flush())
	for i := range 10 {
		_, err := o.observer.Publish(ctx, fmt.Sprint("l.", i), nil)
		require.NoError(t, err)
		for err = errIdle; errors.Is(err, errIdle); { // a heartbeat may come first
			_, _, err = r.Next(ctx)
		}
		require.NoError(t, err)
	}
	assert.Less(t, len(pulls), 10)
}
