package nats_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// largeMessages fills the stream ORDERS and the bucket large with one message of each size, whose first bytes are its
// number.
func largeMessages(t *testing.T, s *natstest.Server, replicas int, sizes []int) {
	t.Helper()
	client := connect(t, s, nil)
	_, err := client.CreateStream(within(t, patience), &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}, Replicas: replicas})
	require.NoError(t, err)
	kv, err := client.CreateKeyValue(within(t, patience), "large", nats.WithKeyValueConfig(func(c *jetstream.KeyValueConfig) { c.Replicas = replicas }))
	require.NoError(t, err)
	for i, size := range sizes {
		data := make([]byte, size)
		copy(data, fmt.Sprintf("%03d", i))
		_, err := client.PublishToStream(within(t, patience), "orders.created", data)
		require.NoError(t, err)
		_, err = kv.Put(within(t, patience), fmt.Sprintf("k%03d", i), data)
		require.NoError(t, err)
	}
}

// readings are the ways to get many messages; each returns what it got, which is n unless it takes too long.
var readings = map[string]func(t *testing.T, client *nats.Client, n int) []string{
	"ReadStream": func(t *testing.T, client *nats.Client, n int) (got []string) {
		for msg, err := range client.ReadStream(within(t, 2*patience), "ORDERS") {
			require.NoError(t, err)
			got = append(got, string(msg.Data[:3]))
		}
		return got
	},
	"ReadStream follows": func(t *testing.T, client *nats.Client, n int) (got []string) {
		for msg, err := range client.ReadStream(within(t, 2*patience), "ORDERS", nats.WithReadFollow()) {
			require.NoError(t, err)
			if got = append(got, string(msg.Data[:3])); len(got) == n {
				break
			}
		}
		return got
	},
	"Consume": func(t *testing.T, client *nats.Client, n int) []string {
		return consumeLarge(t, client, n, jetstream.ConsumerConfig{})
	},
	"Consume with MaxRequestMaxBytes": func(t *testing.T, client *nats.Client, n int) []string {
		return consumeLarge(t, client, n, jetstream.ConsumerConfig{MaxRequestMaxBytes: 2 << 20})
	},
	"PullMessages": func(t *testing.T, client *nats.Client, n int) []string {
		return pullLarge(t, client, n, jetstream.ConsumerConfig{Name: "p"})
	},
	"PullMessages with MaxRequestMaxBytes": func(t *testing.T, client *nats.Client, n int) []string {
		return pullLarge(t, client, n, jetstream.ConsumerConfig{Name: "q", MaxRequestMaxBytes: 1 << 20})
	},
	"GetMany": func(t *testing.T, client *nats.Client, n int) (got []string) {
		kv, err := client.GetKeyValue(within(t, patience), "large")
		require.NoError(t, err)
		keys := make([]string, n)
		for i := range keys {
			keys[i] = fmt.Sprintf("k%03d", i)
		}
		entries, err := kv.GetMany(within(t, 2*patience), keys...)
		require.NoError(t, err)
		for _, key := range keys {
			if entry := entries[key]; entry != nil {
				got = append(got, string(entry.Value()[:3]))
			}
		}
		return got
	},
	"KeyValue": func(t *testing.T, client *nats.Client, n int) (got []string) {
		kv, err := client.GetKeyValue(within(t, patience), "large")
		require.NoError(t, err)
		for entry, err := range kv.All(within(t, 2*patience)) {
			require.NoError(t, err)
			got = append(got, string(entry.Value()[:3]))
		}
		return got
	},
}

func consumeLarge(t *testing.T, client *nats.Client, n int, cfg jetstream.ConsumerConfig) (got []string) {
	cfg.AckPolicy = jetstream.AckExplicitPolicy
	came := make(chan string, n)
	consumption, err := client.Consume(within(t, 2*patience), "ORDERS", fmt.Sprint("c", cfg.MaxRequestMaxBytes), func(msg *nats.Message) error {
		meta, err := msg.Metadata()
		if assert.NoError(t, err) {
			assert.EqualValues(t, 1, meta.NumDelivered)
		}
		came <- string(msg.Data[:3])
		return nil
	}, nats.WithConsumerConfig(&cfg))
	require.NoError(t, err)
	for range n {
		select {
		case one := <-came:
			got = append(got, one)
		case <-consumption.Done():
			return got
		}
	}
	require.NoError(t, consumption.Stop(context.Background()))
	return got
}

func pullLarge(t *testing.T, client *nats.Client, n int, cfg jetstream.ConsumerConfig) (got []string) {
	newConsumer(t, client, cfg)
	ctx := within(t, 2*patience)
	for len(got) < n && ctx.Err() == nil {
		messages, err := client.PullMessages(ctx, "ORDERS", cfg.Name, n)
		require.NoError(t, err)
		for _, msg := range messages {
			got = append(got, string(msg.Data[:3]))
			require.NoError(t, msg.Ack())
		}
	}
	return got
}

func numbers(n int) (want []string) {
	for i := range n {
		want = append(want, fmt.Sprintf("%03d", i))
	}
	return want
}

// A server closes the connection of who does not take what is sent for it as fast as it is read from the disk.
func TestLargeMessagesOverASlowLine(t *testing.T) {
	t.Parallel()
	const n, size = 48, 1<<20 - 4096
	s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) { o.MaxPending = 20 << 20 }))
	sizes := make([]int, n)
	for i := range sizes {
		sizes[i] = size
	}
	largeMessages(t, s, 1, sizes)
	for name, reading := range readings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy := natstest.NewProxy(t, s.URL())
			client := connect(t, s, func(c *nats.Config) { c.URLs = []string{proxy.URL()} })
			proxy.Throttle(16 << 20)
			assert.Equal(t, numbers(n), reading(t, client, n))
			assert.Zero(t, client.Stats().Reconnects)
		})
	}
}

// A message may be larger than what is asked for at once, alone or among others.
func TestMessagesLargerThanAPull(t *testing.T) {
	t.Parallel()
	const large = 5 << 20
	sizes := []int{large, 10, 1 << 20, 3 << 20, large, 10}
	roomy := natstest.WithConfig(func(o *server.Options) { o.MaxPayload = 6 << 20 })
	for servers, run := range map[int]func() *natstest.Server{
		1: func() *natstest.Server { return natstest.RunServer(t, roomy) },
		3: func() *natstest.Server { return natstest.RunCluster(t, 3, roomy).Servers()[0] },
	} {
		s := run()
		largeMessages(t, s, servers, sizes)
		for name, reading := range readings {
			t.Run(fmt.Sprint(name, " of ", servers), func(t *testing.T) {
				t.Parallel()
				client := connect(t, s, nil)
				assert.Equal(t, numbers(len(sizes)), reading(t, client, len(sizes)))
				assert.Zero(t, client.Stats().Reconnects)
			})
		}
	}
}

// The server says nothing of the end of a pull whose limit of bytes is met exactly: no message takes long for it.
func TestConsumeFillsAPull(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, nc := connect(t, s, nil), raw(t, s)
	newStream(t, client, 0)
	const n = 8
	around := len("orders.created") + len("$JS.ACK.ORDERS.worker.1.1.1.1234567890123456789.7")
	for range n {
		_, err := nc.Request("orders.created", make([]byte, 4<<20/n-around), patience)
		require.NoError(t, err)
	}
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker"})
	pulls, err := nc.SubscribeSync("$JS.API.CONSUMER.MSG.NEXT.ORDERS.worker")
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	stalls, watched := conntest.WatchStalls()
	defer watched()
	begin := time.Now()
	var got calls
	release := make(chan struct{})
	defer close(release)
	consume(t, client, func(msg *nats.Message) error {
		got.note(msg)
		<-release
		return nil
	}, nats.WithWorkers(100))
	eventually(t, "all of them come", func() bool { return got.len() == n })
	_, err = client.PublishToStream(within(t, patience), "orders.created", nil)
	require.NoError(t, err)
	eventually(t, "another one comes", func() bool { return got.len() == n+1 })
	inboxes := map[string]bool{}
	require.NoError(t, nc.Flush())
	heard, _, err := pulls.Pending()
	require.NoError(t, err)
	for range heard {
		m, err := pulls.NextMsg(patience)
		require.NoError(t, err)
		inbox, _, _ := strings.Cut(m.Reply, ".pull.")
		inboxes[inbox] = true
	}
	if stalls.Worst(begin, time.Now()) < 100*time.Millisecond { // else it is silent for another reason
		assert.Len(t, inboxes, 1, "none was taken for lost")
	}
}
