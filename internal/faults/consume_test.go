package faults_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// resumeWithin is how soon consumption must be back when what it needs is. A busy machine may now and
// then take longer, but not always, and not for long.
const resumeWithin = 2 * time.Second

// consumeSeen is what a consumer has handled.
type consumeSeen struct {
	mu    sync.Mutex
	times map[int]int // how often each number came
	order []int
}

func (s *consumeSeen) note(t *testing.T, msg *nats.Message) {
	number, err := strconv.Atoi(string(msg.Data))
	assert.NoError(t, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.times == nil {
		s.times = make(map[int]int)
	}
	s.times[number]++
	s.order = append(s.order, number)
}

func (s *consumeSeen) has(number int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.times[number] > 0
}

// consumeFlow publishes numbers to "s" and sees them come back.
type consumeFlow struct {
	t         *testing.T
	publisher *nats.Client
	next      int
	seen      []*consumeSeen
	resumed   [][]time.Duration // by consumeSeen
}

func (f *consumeFlow) publish(n int) {
	f.t.Helper()
	for range n {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		_, err := f.publisher.PublishToStream(ctx, "s", fmt.Append(nil, f.next))
		cancel()
		require.NoError(f.t, err)
		f.next++
	}
}

// Those that see what is published: consumers and a reader.
const (
	seenBound = iota
	seenOwn
	seenReader
)

// resume publishes, now that everything is back for these, and measures how long it takes to come.
func (f *consumeFlow) resume(by ...int) {
	f.t.Helper()
	begin := time.Now()
	f.publish(1)
	for _, i := range by {
		publishEventually(f.t, "a message after the recovery", func() bool { return f.seen[i].has(f.next - 1) })
		f.resumed[i] = append(f.resumed[i], since(begin))
	}
}

// end checks that all came, and soon.
func (f *consumeFlow) end() {
	f.t.Helper()
	for i, seen := range f.seen {
		publishEventually(f.t, "all of them", func() bool {
			seen.mu.Lock()
			defer seen.mu.Unlock()
			return len(seen.times) == f.next
		})
		slices.Sort(f.resumed[i])
		f.t.Logf("%d messages, handled %d times; resumed after %v", f.next, len(seen.order), f.resumed[i])
		f.t.Attr("figure", fmt.Sprintf("%d messages, handled %d times; again within %v", f.next, len(seen.order), f.resumed[i][len(f.resumed[i])-1].Round(time.Millisecond)))
		assert.Less(f.t, f.resumed[i][len(f.resumed[i])/2], resumeWithin, "most times")
		assert.Less(f.t, f.resumed[i][len(f.resumed[i])-1], 5*resumeWithin, "always")
	}
}

// startConsumeFlow makes a stream with a consumer, whose messages two consumptions and a reader see.
func startConsumeFlow(t *testing.T, publisher, client *nats.Client) *consumeFlow {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	publishEventually(t, "the stream is created", func() bool { // once the cluster has a leader
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_, err := publisher.EnsureStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: 3})
		return err == nil
	})
	_, err := publisher.CreateConsumer(ctx, "S", &jetstream.ConsumerConfig{Name: "bound", AckWait: 5 * time.Second})
	require.NoError(t, err)
	f := &consumeFlow{t: t, publisher: publisher, seen: []*consumeSeen{{}, {}, {}}, resumed: make([][]time.Duration, 3)}
	handle := func(seen *consumeSeen) nats.Handler {
		return func(msg *nats.Message) error {
			seen.note(t, msg)
			return nil
		}
	}
	_, err = client.Consume(ctx, "S", "bound", handle(f.seen[seenBound]))
	require.NoError(t, err)
	_, err = client.Consume(ctx, "S", "own", handle(f.seen[seenOwn]), nats.WithWorkers(4), nats.WithConsumerConfig(&jetstream.ConsumerConfig{
		AckWait: 5 * time.Second, Replicas: 1, MemoryStorage: true, // lost with its server
	}))
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for msg, err := range client.ReadStream(ctx, "S", nats.WithReadFollow()) {
			if err != nil {
				assert.ErrorIs(t, err, context.Canceled)
				return
			}
			f.seen[seenReader].note(t, msg)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		assert.IsIncreasing(t, f.seen[seenReader].order, "the reader's order")
	})
	return f
}

// consumeLeader returns who leads the consumer, or "" when nobody does.
func consumeLeader(client *nats.Client, consumer string) string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	info, err := client.GetConsumerInfo(ctx, "S", consumer)
	if err != nil || info.Cluster == nil {
		return ""
	}
	return info.Cluster.Leader
}

// Consumption and reading go on when the leader of the consumer is killed, and when it steps down.
// Raw nats.go: its ordered consumer was stuck for as long as a dead node stayed down in 4 of 21 kills.
func TestConsumeOverKilledLeaders(t *testing.T) {
	servers := publishServers(t, 3)
	publisher, client := publishClient(t, servers), publishClient(t, servers)
	f := startConsumeFlow(t, publisher, client)
	f.publish(100)
	for range 5 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		_, err := publisher.Request(ctx, "$JS.API.CONSUMER.LEADER.STEPDOWN.S.bound", nil, 0)
		cancel()
		require.NoError(t, err)
		f.publish(10)
		publishEventually(t, "a leader", func() bool { return consumeLeader(publisher, "bound") != "" })
		f.resume(seenBound, seenOwn, seenReader)
	}
	for i := range 4 {
		publishLeader(t, publisher, servers, "S") // the replicas have caught up
		consumer := []string{"bound", "own"}[i%2]
		name := consumeLeader(publisher, consumer)
		killed := servers[slices.IndexFunc(servers, func(s *publishServer) bool { return s.spec.Name == name })]
		killed.kill()
		f.publish(10)
		publishEventually(t, "another leader", func() bool {
			leader := consumeLeader(publisher, "bound")
			return leader != "" && leader != name
		})
		if consumer == "bound" { // the other one is where its server is
			f.resume(seenBound, seenReader)
		}
		killed.start()
		publishEventually(t, "the own consumer", func() bool { return consumeLeader(publisher, "own") != "" })
		f.resume(seenBound, seenOwn, seenReader)
	}
	f.end()
}

// The next leader of a consumer tells all pulls that wait, also where others are done. Raw nats.go's have one subject, which
// the first of them that is done takes along: then nobody is told, and the rest is waited for until two heartbeats are missing.
func TestConsumeWithManyPullsHearsOfAnotherLeader(t *testing.T) {
	t.Parallel()
	cluster := natstest.RunCluster(t, 3)
	client, publisher := connect(t, cluster.URLs()...), connect(t, cluster.URLs()...)
	ctx := context.Background()
	_, err := publisher.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: 3})
	require.NoError(t, err)
	_, err = publisher.CreateConsumer(ctx, "S", &jetstream.ConsumerConfig{Name: "bound"})
	require.NoError(t, err)
	var mu sync.Mutex
	var open []int // what is left of the pulls that are not young any more
	_, err = publisher.Subscribe(ctx, "$JS.API.CONSUMER.MSG.NEXT.S.bound", func(msg *nats.Message) error {
		var pull struct {
			Batch int           `json:"batch"`
			Beat  time.Duration `json:"idle_heartbeat"`
		}
		mu.Lock()
		defer mu.Unlock()
		if err := msg.DecodeJSON(&pull); err != nil || pull.Beat < time.Second {
			return err
		}
		open = append(open, pull.Batch)
		return nil
	})
	require.NoError(t, err)
	pulls := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(open)
	}
	var handled atomic.Int64
	_, err = client.Consume(ctx, "S", "bound", func(*nats.Message) error {
		time.Sleep(2 * time.Millisecond) // or so: it is asked for as many messages as that makes
		handled.Add(1)
		return nil
	}, nats.WithWorkers(4))
	require.NoError(t, err)
	sent := int64(0)
	publish := func() {
		_, err := publisher.PublishToStream(ctx, "s", nil)
		require.NoError(t, err)
		sent++
		publishEventually(t, "it is handled", func() bool { return handled.Load() == sent })
	}
	publish()
	publishEventually(t, "the pull of an idle consumption", func() bool { return pulls() == 1 })
	for first, done := 0, false; !done; {
		before := pulls()
		publish()
		require.NoError(t, client.Flush(ctx))
		publishEventually(t, "the pull that brought it is known", func() bool { return pulls() > first })
		mu.Lock()
		if open[first]--; open[first] == 0 {
			first++
			done = len(open) == before && first < before // another one is open, and was before
		}
		mu.Unlock()
	}
	before := consumeLeader(publisher, "bound")
	_, err = publisher.Request(ctx, "$JS.API.CONSUMER.LEADER.STEPDOWN.S.bound", nil, 0)
	require.NoError(t, err)
	publishEventually(t, "another leader", func() bool {
		leader := consumeLeader(publisher, "bound")
		return leader != "" && leader != before
	})
	begin := time.Now()
	publish()
	assert.Less(t, since(begin), resumeWithin)
}

// Every server of the cluster is restarted in its turn, as for an upgrade.
func TestConsumeOverARollingRestart(t *testing.T) {
	cluster := natstest.RunCluster(t, 3)
	publisher, client := connect(t, cluster.URLs()...), connect(t, cluster.URLs()...)
	f := startConsumeFlow(t, publisher, client)
	f.publish(100)
	for _, s := range cluster.Servers() {
		s.Stop()
		f.publish(10)
		s.Restart()
		cluster.WaitReady()
		require.NoError(t, publisher.Ping(context.Background()))
		require.NoError(t, client.Ping(context.Background()))
		publishEventually(t, "the leaders", func() bool {
			return consumeLeader(publisher, "bound") != "" && consumeLeader(publisher, "own") != ""
		})
		f.resume(seenBound, seenOwn, seenReader)
	}
	f.end()
}

// Consumption follows a client that leaves a server in time, and every message is handled once.
func TestConsumeLeavesALameDuck(t *testing.T) {
	cluster := natstest.RunCluster(t, 3)
	servers := cluster.Servers()
	client, publisher := connect(t, cluster.URLs()...), connect(t, cluster.URLs()...)
	ctx := context.Background()
	_, err := publisher.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: 3})
	require.NoError(t, err)
	_, err = publisher.CreateConsumer(ctx, "S", &jetstream.ConsumerConfig{Name: "bound", AckWait: 10 * time.Second})
	require.NoError(t, err)
	var seen consumeSeen
	_, err = client.Consume(ctx, "S", "bound", func(msg *nats.Message) error { seen.note(t, msg); return nil },
		nats.WithConfirmedAcks()) // others may be lost with the consumer's old leader
	require.NoError(t, err)
	left := client.Conn().ConnectedUrl()
	f := &consumeFlow{t: t, publisher: publisher}
	f.publish(100)
	servers[slices.IndexFunc(servers, func(s *natstest.Server) bool { return s.URL() == left })].LameDuck()
	for client.Conn().ConnectedUrl() == left {
		f.publish(10)
	}
	f.publish(100)
	// What a server has on its way to an inbox that moves comes again after the ack wait.
	publishEventually(t, "all of them", func() bool {
		seen.mu.Lock()
		defer seen.mu.Unlock()
		return len(seen.times) == f.next
	})
	assert.Len(t, seen.order, f.next, "each once")
}

// That nobody leads the consumer is not that there are no messages.
func TestPullWithoutALeader(t *testing.T) {
	servers := publishServers(t, 3)
	client := publishClient(t, servers)
	publishEventually(t, "the stream is created", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_, err := client.EnsureStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: 3})
		return err == nil
	})
	_, err := client.CreateConsumer(context.Background(), "S", &jetstream.ConsumerConfig{Name: "c"})
	require.NoError(t, err)
	leader := consumeLeader(client, "c")
	follower := slices.IndexFunc(servers, func(s *publishServer) bool { return s.spec.Name != leader })
	pulling := publishClient(t, servers[follower:follower+1])
	for i, s := range servers {
		if i != follower {
			s.kill()
		}
	}
	publishEventually(t, "a pull that nobody takes", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		defer cancel()
		_, err := pulling.PullMessages(ctx, "S", "c", 1)
		return errors.Is(err, nats.ErrNoResponders)
	})
}
