package receive_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/receive"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait for a state that is sure to come.
const patience = time.Minute

// reports counts.
type reports struct {
	mu      sync.Mutex
	failed  []error
	lost    []error
	dropped uint64
	slow    map[bool]int // reports, those that begin an episode and the others
}

func (r *reports) Failed(_, _ string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = append(r.failed, err)
}

func (r *reports) Lost(_, _ string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost = append(r.lost, err)
}

func (r *reports) Slow(s *receive.Subscription, dropped uint64, first bool) {
	_ = s.Stats() // a user's logger may ask
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropped += dropped
	r.slow[first]++
}

func (r *reports) episodes() (begun, goneOn int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.slow[true], r.slow[false]
}

func (r *reports) all() (failed, lost []error, dropped uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed, r.lost, r.dropped
}

func newEngine(t *testing.T) (*receive.Engine, *natsgo.Conn, *reports) {
	t.Helper()
	url := natstest.RunServer(t, natstest.WithoutJetStream()).URL()
	c := conntest.Open(t, url, func(o *conn.Options) { o.Denied = nil }) // the engine hears of denials
	r := &reports{slow: map[bool]int{}}
	return receive.New(c, r), c.NATS(), r
}

func options(workers int, h func(*natsgo.Msg) error) receive.Options {
	return receive.Options{Workers: workers, DrainTimeout: patience, Handle: h, Ended: func(error) {}}
}

func publish(t *testing.T, nc *natsgo.Conn, subject string, n int) {
	t.Helper()
	for i := range n {
		require.NoError(t, nc.Publish(subject, fmt.Append(nil, i)))
	}
	require.NoError(t, nc.Flush())
}

func over(s *receive.Subscription) bool {
	select {
	case <-s.Done():
		return true
	case <-time.After(patience):
		return false
	}
}

// Whatever handlers do, one message is handled after the other, each once.
func TestOrder(t *testing.T) {
	t.Parallel()
	e, nc, r := newEngine(t)
	var handled []string
	var running atomic.Int64
	published := make(chan struct{}) // others wait while the first is handled
	s, err := e.Subscribe(context.Background(), "a", "", options(1, func(m *natsgo.Msg) error {
		defer running.Add(-1)
		assert.EqualValues(t, 1, running.Add(1))
		<-published
		handled = append(handled, string(m.Data))
		switch len(handled) % 10 {
		case 3:
			runtime.Goexit()
		case 7:
			return errors.New("no")
		}
		return nil
	}), false)
	require.NoError(t, err)
	publish(t, nc, "a", 100)
	require.Eventually(t, func() bool { return s.Stats().Pending >= 10 }, patience, time.Millisecond)
	close(published)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, s.Drain(ctx, fault.ErrUnsubscribed))
	require.Len(t, handled, 100)
	for i, data := range handled {
		assert.Equal(t, fmt.Sprint(i), data)
	}
	failed, lost, _ := r.all()
	assert.Len(t, failed, 20)
	assert.Empty(t, lost)
	exited := 0
	for _, err := range failed {
		if errors.Is(err, fault.ErrHandlerPanic) {
			exited++
		}
	}
	assert.Equal(t, 10, exited)
	assert.Equal(t, receive.Stats{Handled: 100, Failed: 20}, s.Stats())
	assert.Empty(t, e.All())
}

func TestWorkers(t *testing.T) {
	t.Parallel()
	e, nc, _ := newEngine(t)
	var running, most atomic.Int64
	s, err := e.Subscribe(context.Background(), "a", "", options(5, func(*natsgo.Msg) error {
		n := running.Add(1)
		defer running.Add(-1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		time.Sleep(time.Millisecond)
		if n == 2 {
			runtime.Goexit()
		}
		return nil
	}), false)
	require.NoError(t, err)
	publish(t, nc, "a", 200)
	require.Eventually(t, func() bool { return s.Stats().Handled == 200 }, patience, time.Millisecond)
	assert.EqualValues(t, 5, most.Load())
	s.Stop(fault.ErrUnsubscribed)
	require.True(t, over(s))
}

// Stop drops what waits, also what the worker has taken, and leaves the handler that runs.
func TestStop(t *testing.T) {
	t.Parallel()
	e, nc, _ := newEngine(t)
	begun, release := make(chan struct{}, 100), make(chan struct{})
	s, err := e.Subscribe(context.Background(), "a", "", options(1, func(*natsgo.Msg) error {
		begun <- struct{}{}
		<-release
		return nil
	}), false)
	require.NoError(t, err)
	publish(t, nc, "a", 1)
	<-begun
	publish(t, nc, "a", 50)
	release <- struct{}{}
	<-begun // of the fifty, which are more than a worker takes
	require.Eventually(t, func() bool { return s.Stats().Pending == 49 }, patience, time.Millisecond)
	s.Stop(fault.ErrUnsubscribed)
	assert.Equal(t, 1, s.Stats().InFlight)
	close(release)
	require.True(t, over(s))
	assert.Empty(t, begun)
	assert.Equal(t, receive.Stats{Handled: 2}, s.Stats())
}

// What is over the limits is dropped, counted and reported, all of it, and Stop changes none of that.
func TestLimits(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]struct{ messages, bytes int }{"messages": {3, -1}, "bytes": {-1, 3 * len("a0")}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, nc, r := newEngine(t)
			begun, release := make(chan struct{}), make(chan struct{})
			o := options(1, func(*natsgo.Msg) error {
				begun <- struct{}{}
				<-release
				return nil
			})
			o.Messages, o.Bytes = limit.messages, limit.bytes
			s, err := e.Subscribe(context.Background(), "a", "", o, false)
			require.NoError(t, err)
			publish(t, nc, "a", 1)
			<-begun
			publish(t, nc, "a", 10)
			require.Eventually(t, func() bool { return s.Stats().Dropped == 7 }, patience, time.Millisecond)
			assert.Equal(t, receive.Stats{Pending: 3, PendingBytes: 3 * len("a0"), InFlight: 1, Dropped: 7}, s.Stats())
			s.Stop(fault.ErrUnsubscribed)
			close(release)
			require.True(t, over(s))
			_, _, dropped := r.all()
			assert.EqualValues(t, 7, dropped)
			sum, live := e.Stats()
			assert.Equal(t, receive.Stats{Handled: 1, Dropped: 7}, sum)
			assert.Zero(t, live)
			assert.Equal(t, receive.Stats{Handled: 1, Dropped: 7}, s.Stats())
		})
	}
}

// An episode of drops is told at its begin and while it goes on, and is over when there were none for a while.
func TestEpisodes(t *testing.T) {
	t.Parallel()
	e, nc, r := newEngine(t)
	release := make(chan struct{})
	o := options(1, func(*natsgo.Msg) error { <-release; return nil })
	o.Messages = 1
	s, err := e.Subscribe(context.Background(), "a", "", o, false)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		publish(t, nc, "a", 3)
		_, goneOn := r.episodes()
		return goneOn > 0
	}, patience, 10*time.Millisecond)
	before, _ := r.episodes()
	last := time.Now()
	require.Eventually(t, func() bool {
		if time.Since(last) > 3*time.Second { // each drop goes on with the old one, unless it is over
			publish(t, nc, "a", 3)
			last = time.Now()
		}
		begun, _ := r.episodes()
		return begun > before
	}, patience, 10*time.Millisecond)
	s.Stop(fault.ErrUnsubscribed)
	close(release)
	require.True(t, over(s))
	_, _, dropped := r.all()
	assert.Equal(t, s.Stats().Dropped, dropped)
}

// The end of the context is a graceful one, for as long as it may take.
func TestEndOfTheContext(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		within time.Duration
		hangs  bool
		want   int
	}{"in time": {patience, false, 20}, "too slow": {50 * time.Millisecond, true, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, nc, r := newEngine(t)
			ctx, cancel := context.WithCancelCause(context.Background())
			var handled atomic.Int64
			begun, cut := make(chan struct{}, 20), make(chan struct{})
			o := options(1, func(*natsgo.Msg) error {
				handled.Add(1)
				begun <- struct{}{}
				if c.hangs {
					<-cut
				}
				return nil
			})
			o.DrainTimeout = c.within
			var once sync.Once
			o.Ended = func(error) { once.Do(func() { close(cut) }) }
			s, err := e.Subscribe(ctx, "a", "", o, false)
			require.NoError(t, err)
			publish(t, nc, "a", 20)
			<-begun
			deployed := errors.New("a new version comes")
			cancel(deployed)
			require.True(t, over(s))
			require.ErrorIs(t, s.Err(), deployed)
			assert.EqualValues(t, c.want, handled.Load())
			_, lost, _ := r.all()
			if c.hangs {
				require.Len(t, lost, 1)
				require.ErrorIs(t, lost[0], fault.ErrDrainTimeout)
			} else {
				assert.Empty(t, lost)
			}
		})
	}
}

// What the server refuses is an error of the subscription that is being made, or shows in Err.
func TestRefusals(t *testing.T) {
	t.Parallel()
	e, _, _ := newEngine(t)
	handle := func(*natsgo.Msg) error { return nil }
	denied := fmt.Errorf(`%w: Permissions Violation for Subscription to "a" using queue "g"`, natsgo.ErrPermissionViolation)
	plain, err := e.Subscribe(context.Background(), "a", "", options(1, handle), false)
	require.NoError(t, err)
	group, err := e.Subscribe(context.Background(), "a", "g", options(1, handle), false)
	require.NoError(t, err)
	assert.False(t, e.OnError(denied), "no call returns it")
	require.NoError(t, plain.Err())
	require.ErrorIs(t, group.Err(), fault.ErrPermission)
	assert.False(t, e.OnError(natsgo.ErrMaxSubscriptionsExceeded))
	require.NoError(t, plain.Err())
	assert.False(t, e.OnError(errors.New("something else")))
	e.Close(context.Background())
}

// 10,000 subscriptions that have nothing to do end at once, with the engine or with their context.
func TestMany(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(context.Context, *receive.Engine, func()){
		"engine":  func(ctx context.Context, e *receive.Engine, _ func()) { assert.Zero(t, e.Close(ctx)) },
		"context": func(_ context.Context, _ *receive.Engine, cancel func()) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			e, _, r := newEngine(t)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			o := options(1, func(*natsgo.Msg) error { return nil })
			o.DrainTimeout = time.Minute // on a slow machine
			for i := range 10_000 {
				_, err := e.Subscribe(ctx, fmt.Sprint("s.", i), "", o, true)
				require.NoError(t, err)
			}
			all := e.All()
			within, stop := context.WithTimeout(context.Background(), patience)
			defer stop()
			begin := time.Now()
			end(within, e, cancel)
			for _, s := range all {
				require.True(t, over(s))
			}
			t.Logf("in %v", time.Since(begin))
			_, lost, _ := r.all()
			assert.Empty(t, lost)
		})
	}
}
