package faults_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/faults/states"
)

// idleRate is what a connection costs while nothing happens.
type idleRate struct {
	in, out float64 // messages a second
	cpu     float64 // of the process, servers excluded, in parts of a core
}

// measureIdle watches the connections, all that the process has, for a while.
func measureIdle(t *testing.T, conns ...*natsgo.Conn) []idleRate {
	t.Helper()
	const span = 30 * time.Second // so long a pull is open
	cpu := func() time.Duration {
		var usage syscall.Rusage
		require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
		return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	before := make([]natsgo.Statistics, len(conns))
	for i, nc := range conns {
		before[i] = nc.Stats()
	}
	begin, used := time.Now(), cpu()
	time.Sleep(span)
	took := time.Since(begin).Seconds()
	rates := make([]idleRate, len(conns))
	for i, nc := range conns {
		now := nc.Stats()
		rates[i] = idleRate{
			in: float64(now.InMsgs-before[i].InMsgs) / took, out: float64(now.OutMsgs-before[i].OutMsgs) / took,
			cpu: (cpu() - used).Seconds() / took,
		}
	}
	return rates
}

// idleConsumers makes streams without replicas, and consumers on them.
func idleConsumers(t *testing.T, client *nats.Client, streams, consumers int) {
	t.Helper()
	ctx := context.Background()
	for i := range streams {
		name := fmt.Sprint("S", i)
		publishEventually(t, "the stream is created", func() bool {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			_, err := client.EnsureStream(ctx, &jetstream.StreamConfig{Name: name, Subjects: []string{name}})
			return err == nil
		})
	}
	for i := range consumers {
		_, err := client.CreateConsumer(ctx, fmt.Sprint("S", i%streams), &jetstream.ConsumerConfig{Name: fmt.Sprint("C", i)})
		require.NoError(t, err)
	}
}

// Idle consumptions cost about what raw nats.go's do, and yet notice within two seconds when the server that
// leads their consumers dies without a word, and are back as soon when it is.
func TestIdleConsumptionsAreWatchful(t *testing.T) {
	const streams, consumers = 6, 200
	servers := publishServers(t, 3)
	publisher := publishClient(t, servers)
	idleConsumers(t, publisher, streams, consumers)
	ctx := context.Background()
	leaders := make([]string, streams)
	for i := range leaders {
		info, err := publisher.GetStreamInfo(ctx, fmt.Sprint("S", i))
		require.NoError(t, err)
		leaders[i] = info.Cluster.Leader
	}
	t.Log("leaders of the streams: ", leaders)
	victim := slices.IndexFunc(servers, func(s *publishServer) bool { return s.spec.Name == leaders[0] })
	home := servers[(victim+1)%len(servers)]
	client := publishClient(t, []*publishServer{home})
	raw, err := natsgo.Connect(home.url())
	require.NoError(t, err)
	defer raw.Close()
	js, err := jetstream.New(raw)
	require.NoError(t, err)
	for i := range consumers {
		consumer, err := js.Consumer(ctx, fmt.Sprint("S", i%streams), fmt.Sprint("C", i))
		require.NoError(t, err)
		consuming, err := consumer.Consume(func(jetstream.Msg) {})
		require.NoError(t, err)
		defer consuming.Stop()
	}
	f := startConsumeFlow(t, publisher, client) // of a stream with replicas
	handled := make([]atomic.Int64, consumers)
	consumptions := make([]*nats.Consumption, consumers)
	for i := range consumptions {
		consumptions[i], err = client.Consume(ctx, fmt.Sprint("S", i%streams), fmt.Sprint("C", i), func(*nats.Message) error {
			handled[i].Add(1)
			return nil
		})
		require.NoError(t, err)
	}
	time.Sleep(15 * time.Second)
	rates := measureIdle(t, raw, client.Conn())
	t.Logf("%d idle, messages a second: raw %.1f in and %.1f out, here %.1f and %.1f", consumers,
		rates[0].in, rates[0].out, rates[1].in, rates[1].out)
	assert.LessOrEqual(t, rates[1].in, 3*rates[0].in)
	assert.LessOrEqual(t, rates[1].out, rates[0].out+1)
	raw.Close()

	before := consumeLeader(publisher, "bound")
	f.publish(1)
	// A leader that steps down while it delivers the last message that was asked for drops it, and the pull without a
	// word: that shows as silence only, a heartbeat later.
	publishEventually(t, "it is idle again", func() bool { return f.seen[seenBound].has(f.next - 1) })
	_, err = publisher.Request(ctx, "$JS.API.CONSUMER.LEADER.STEPDOWN.S.bound", nil, 0)
	require.NoError(t, err)
	publishEventually(t, "another leader", func() bool {
		leader := consumeLeader(publisher, "bound")
		return leader != "" && leader != before
	})
	f.resume(seenBound)

	require.NoError(t, publisher.DeleteConsumer(ctx, "S0", "C0"))
	begin := time.Now()
	publishEventually(t, "it knows", func() bool { return !consumptions[0].Healthy() })
	assert.Less(t, since(begin), 2*time.Second)
	_, err = publisher.CreateConsumer(ctx, "S0", &jetstream.ConsumerConfig{Name: "C0"})
	require.NoError(t, err)
	begin = time.Now()
	publishEventually(t, "it is back", consumptions[0].Healthy)
	assert.Less(t, since(begin), resumeWithin)
	time.Sleep(12 * time.Second) // until all are idle again

	begin = time.Now()
	servers[victim].kill()
	touched := func(i int) bool { return leaders[i%streams] == servers[victim].spec.Name }
	publishEventually(t, "all of them know", func() bool {
		for i, s := range consumptions {
			if touched(i) == s.Healthy() {
				return false
			}
		}
		return true
	})
	known := since(begin)
	publishEventually(t, "another leader", func() bool {
		leader := consumeLeader(publisher, "bound")
		return leader != "" && leader != servers[victim].spec.Name
	})
	f.resume(seenBound)
	servers[victim].start()
	publishEventually(t, "the streams are back", func() bool {
		for i := range streams {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			_, err := publisher.PublishToStream(ctx, fmt.Sprint("S", i), nil)
			cancel()
			if err != nil {
				return false
			}
		}
		return true
	})
	begin = time.Now()
	publishEventually(t, "all handle messages", func() bool {
		for i := range handled {
			if handled[i].Load() == 0 {
				return false
			}
		}
		return true
	})
	t.Logf("the death was known after %v, and all handled messages %v after the streams were back", known, time.Since(begin))
	assert.Less(t, known, 2*time.Second)
	assert.Less(t, since(begin), resumeWithin)
	publishEventually(t, "all are healthy", func() bool {
		return !slices.ContainsFunc(consumptions, func(s *nats.Consumption) bool { return !s.Healthy() })
	})
	t.Log("with replicas, messages came after ", f.resumed[seenBound])
	assert.Less(t, f.resumed[seenBound][0], resumeWithin, "after the change of the leader")
	// A leader that goes drops what it counts as delivered and has not sent: that comes after the ack wait.
	assert.Less(t, f.resumed[seenBound][1], 5*time.Second+resumeWithin, "after the death of the leader")
}

// A thousand of them take less than a fiftieth of a core, and are back when their only server is.
func TestAThousandIdleConsumptions(t *testing.T) {
	const consumers = 1000
	servers := publishServers(t, 1)
	client := publishClient(t, servers)
	idleConsumers(t, client, 1, consumers)
	ctx := context.Background()
	var conns []*natsgo.Conn
	var consumptions []*nats.Consumption
	handled := make([]atomic.Int64, consumers)
	for _, n := range []int{1, 200, consumers} {
		consuming := publishClient(t, servers)
		conns = append(conns, consuming.Conn())
		consumptions = nil
		for i := range n {
			consumption, err := consuming.Consume(ctx, "S0", fmt.Sprint("C", i), func(*nats.Message) error {
				handled[i].Add(1)
				return nil
			})
			require.NoError(t, err)
			consumptions = append(consumptions, consumption)
		}
	}
	time.Sleep(15 * time.Second)
	for i, rate := range measureIdle(t, conns...) {
		t.Logf("%d idle: %.1f messages a second in, %.1f out", []int{1, 200, consumers}[i], rate.in, rate.out)
		if i == 2 {
			t.Logf("the process takes %.2f %% of a core", 100*rate.cpu)
			most := 0.02
			if states.RaceEnabled {
				most *= 4 // what its detector takes
			}
			assert.Less(t, rate.cpu, most)
		}
	}
	servers[0].kill()
	publishEventually(t, "all of them know", func() bool {
		return !slices.ContainsFunc(consumptions, (*nats.Consumption).Healthy)
	})
	servers[0].start()
	_, err := client.PublishToStream(ctx, "S0", nil)
	require.NoError(t, err)
	begin := time.Now()
	publishEventually(t, "all handle messages", func() bool {
		for i := range handled {
			if handled[i].Load() == 0 {
				return false
			}
		}
		return true
	})
	t.Logf("all handled messages %v after the stream was back", time.Since(begin))
	assert.Less(t, since(begin), resumeWithin)
}
