package faults_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// keyWrites is a writer of keys and a watcher of them, and when each revision was acknowledged and
// arrived.
type keyWrites struct {
	t       *testing.T
	writer  *nats.Client
	kv      *nats.KeyValue
	watcher *nats.KeyWatcher
	stop    chan struct{}
	writing sync.WaitGroup
	reading sync.WaitGroup

	mu      sync.Mutex
	acked   map[string][]keyMoment
	arrived map[string][]keyMoment
}

type keyMoment struct {
	revision uint64
	at       time.Time
}

func startKeyWrites(t *testing.T, writer, reader *nats.Client, bucket string) *keyWrites {
	t.Helper()
	ctx := within(t, 15*time.Minute)
	kv, err := writer.GetKeyValue(ctx, bucket)
	require.NoError(t, err)
	watched, err := reader.GetKeyValue(ctx, bucket)
	require.NoError(t, err)
	w := &keyWrites{
		t: t, writer: writer, kv: kv, stop: make(chan struct{}),
		acked: make(map[string][]keyMoment), arrived: make(map[string][]keyMoment),
	}
	w.watcher, err = watched.WatchAll(ctx)
	require.NoError(t, err)
	w.reading.Go(func() {
		for entry := range w.watcher.Updates() {
			if entry != nil {
				w.note(w.arrived, entry.Key(), entry.Revision())
			}
		}
	})
	for i := range 4 {
		w.writing.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-w.stop:
					return
				case <-time.After(5 * time.Millisecond):
				}
				key := fmt.Sprintf("k%d.%d", i, n%5)
				if revision, err := kv.Put(ctx, key, fmt.Append(nil, n)); assert.NoError(t, err) {
					w.note(w.acked, key, revision)
				}
			}
		})
	}
	return w
}

func (w *keyWrites) note(moments map[string][]keyMoment, key string, revision uint64) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	moments[key] = append(moments[key], keyMoment{revision, now})
}

// end stops the writers, waits until the last revision has arrived, and returns the longest time from
// an acknowledgement to the arrival of that revision or of a later one of the same key.
func (w *keyWrites) end() time.Duration {
	w.t.Helper()
	close(w.stop)
	w.writing.Wait()
	publishEventually(w.t, "the final values have arrived", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		for key, acked := range w.acked {
			arrived := w.arrived[key]
			if len(arrived) == 0 || arrived[len(arrived)-1].revision < acked[len(acked)-1].revision {
				return false
			}
		}
		return true
	})
	publishEventually(w.t, "the watcher is fresh", func() bool { return !w.watcher.Stale() })
	publishEventually(w.t, "one consumer is left", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		info, err := w.writer.GetStreamInfo(ctx, "KV_"+w.kv.Bucket())
		return err == nil && info.State.Consumers == 1
	})
	_ = w.watcher.Stop()
	w.reading.Wait()
	var worst time.Duration
	writes, updates := 0, 0
	for key, acked := range w.acked {
		arrived := w.arrived[key]
		writes, updates = writes+len(acked), updates+len(arrived)
		for i := 1; i < len(arrived); i++ {
			require.Greater(w.t, arrived[i].revision, arrived[i-1].revision, "in order and none twice")
		}
		next := 0
		for _, ack := range acked {
			for arrived[next].revision < ack.revision {
				next++
			}
			if gap := arrived[next].at.Sub(ack.at); gap > worst {
				worst = max(worst, gap-stalls.Between(ack.at, arrived[next].at))
			}
		}
	}
	w.t.Attr("figure", fmt.Sprintf("%d writes, %d updates, worst gap %v", writes, updates, worst.Round(time.Millisecond)))
	return worst
}

// Upstream's watcher is silent for 12 to 20 s after a restart.
func TestWatchOverRestarts(t *testing.T) {
	restarts := 20
	if testing.Short() {
		restarts = 3
	}
	s := natstest.RunServer(t)
	writer, reader := connect(t, s.URL()), connect(t, s.URL())
	_, err := writer.CreateKeyValue(context.Background(), "conf")
	require.NoError(t, err)
	w := startKeyWrites(t, writer, reader, "conf")
	for range restarts {
		s.Restart()
		require.NoError(t, reader.Ping(context.Background()))
		time.Sleep(300 * time.Millisecond) // the load
	}
	assert.Less(t, w.end(), 2*time.Second)
}

// Upstream's watcher is silent for 18 s after the leader of the bucket is killed.
func TestWatchOverKilledLeaders(t *testing.T) {
	t.Parallel()
	kills := 20
	if testing.Short() {
		kills = 2
	}
	servers := publishServers(t, 3)
	writer, reader := publishClient(t, servers), publishClient(t, servers)
	publishEventually(t, "the bucket is created", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_, err := writer.EnsureKeyValue(ctx, "conf", nats.WithKeyValueReplicas(3))
		return err == nil
	})
	w := startKeyWrites(t, writer, reader, "conf")
	for range kills {
		leader := publishLeader(t, writer, servers, "KV_conf")
		leader.kill()
		time.Sleep(time.Second) // nobody leads
		leader.start()
		publishLeader(t, writer, servers, "KV_conf")
		publishEventually(t, "the watcher is fresh", func() bool { return !w.watcher.Stale() })
		time.Sleep(time.Second) // the load
	}
	// An election takes longer, but what was acknowledged before and after it does not wait for it: less than
	// 2 s, were it not for machines that are busy, on which a new consumer can be lost with its server again.
	assert.Less(t, w.end(), 12*time.Second)
}

// Idle watchers cost no more messages than raw nats.go's, which are told every 5 s that nothing has come, and yet all of
// them know soon when the server that leads their consumers dies without a word, or the connected one is silent. When it
// is back, so are they.
func TestIdleWatchersAreWatchful(t *testing.T) {
	const watchers = 50
	servers := publishServers(t, 3)
	ctx := context.Background()
	writer := publishClient(t, servers)
	publishEventually(t, "the bucket is created", func() bool {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_, err := writer.EnsureKeyValue(ctx, "conf")
		return err == nil
	})
	kv, err := writer.GetKeyValue(ctx, "conf")
	require.NoError(t, err)
	_, err = kv.Put(ctx, "k", []byte("1"))
	require.NoError(t, err)
	info, err := writer.GetStreamInfo(ctx, "KV_conf")
	require.NoError(t, err)
	at := slices.IndexFunc(servers, func(s *publishServer) bool { return s.spec.Name == info.Cluster.Leader })
	victim, home := servers[at], servers[(at+1)%len(servers)]
	proxy := natstest.NewProxy(t, home.url())
	client := connect(t, proxy.URL())
	watched, err := client.GetKeyValue(ctx, "conf")
	require.NoError(t, err)
	all := make([]*nats.KeyWatcher, watchers)
	for i := range all {
		all[i], err = watched.WatchAll(ctx)
		require.NoError(t, err)
	}
	come := func(value string) {
		t.Helper()
		for _, w := range all {
			for {
				if entry := <-w.Updates(); entry != nil && string(entry.Value()) == value {
					break
				}
			}
		}
	}
	stale := func(is bool) func() bool {
		return func() bool {
			return !slices.ContainsFunc(all, func(w *nats.KeyWatcher) bool { return w.Stale() != is })
		}
	}
	come("1")
	for _, w := range all {
		assert.Nil(t, <-w.Updates())
	}
	idle := func() { time.Sleep(15 * time.Second) }
	idle()
	before, span := client.Conn().Stats(), 10*time.Second
	time.Sleep(span)
	after := client.Conn().Stats()
	messages := after.InMsgs + after.OutMsgs - before.InMsgs - before.OutMsgs
	t.Attr("figure", fmt.Sprintf("%d idle, %.1f messages/s", watchers, float64(messages)/span.Seconds()))
	assert.LessOrEqual(t, messages, uint64(watchers*10/5+50), "of one sentinel, and of the question for the bucket")
	publishEventually(t, "all are fresh", stale(false))

	begin := time.Now()
	proxy.BlackHole()
	publishEventually(t, "all are stale", stale(true))
	silent := since(begin)
	proxy.Restore()
	publishEventually(t, "all are fresh", stale(false))
	idle()

	begin = time.Now()
	victim.kill()
	publishEventually(t, "all are stale", stale(true))
	dead := since(begin)
	victim.start()
	publishEventually(t, "the next value is stored", func() bool {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_, err := kv.Put(ctx, "k", []byte("2"))
		return err == nil
	})
	begin = time.Now()
	come("2")
	t.Logf("stale %v after silence and %v after death, back after %v", silent, dead, since(begin))
	assert.Less(t, silent, 4*time.Second)
	assert.Less(t, dead, 3*time.Second)
	publishEventually(t, "all are fresh", stale(false))
}

// What was acknowledged comes to a watcher also when the bucket has lost its leader and cannot have
// another: from the replica that is left.
func TestWatchWithoutALeaderOfTheBucket(t *testing.T) {
	servers := natstest.RunCluster(t, 5).Servers()
	ctx := context.Background()
	other := connect(t, servers[0].URL())
	kv, err := other.CreateKeyValue(ctx, "conf", nats.WithKeyValueReplicas(3))
	require.NoError(t, err)
	info, err := other.GetStreamInfo(ctx, "KV_conf")
	require.NoError(t, err)
	left, gone := info.Cluster.Replicas[0].Name, []string{info.Cluster.Replicas[1].Name, info.Cluster.Leader}
	server := func(name string) *natstest.Server {
		return servers[slices.IndexFunc(servers, func(s *natstest.Server) bool { return s.Embedded().Name() == name })]
	}
	proxy := natstest.NewProxy(t, server(left).URL())
	watched, err := connect(t, proxy.URL()).GetKeyValue(ctx, "conf")
	require.NoError(t, err)
	_, err = kv.Put(ctx, "k", []byte("1"))
	require.NoError(t, err)
	w, err := watched.WatchAll(ctx)
	require.NoError(t, err)
	assert.Equal(t, "1", string((<-w.Updates()).Value()))
	assert.Nil(t, <-w.Updates())
	proxy.BlackHole()
	_, err = kv.Put(ctx, "k", []byte("2"))
	require.NoError(t, err)
	publishEventually(t, "the replica has it", func() bool {
		info, err := other.GetStreamInfo(ctx, "KV_conf")
		return err == nil && info.Cluster.Replicas[0].Name == left && info.Cluster.Replicas[0].Current && info.Cluster.Replicas[0].Lag == 0
	})
	for _, name := range gone {
		server(name).Stop()
	}
	proxy.Cut()
	proxy.Restore()
	select {
	case entry := <-w.Updates():
		assert.Equal(t, "2", string(entry.Value()))
	case <-time.After(time.Minute):
		t.Error("it does not come")
	}
	assert.True(t, w.Stale())
}
