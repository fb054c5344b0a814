package nats_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// publishAtOnce publishes from that many callers at once, and returns how many messages went to the server
// for each of them.
func publishAtOnce(t *testing.T, client *nats.Client, callers int, publish func(context.Context, int) error) float64 {
	t.Helper()
	ctx := within(t, 3*patience)
	before := client.Stats().OutMsgs
	start := make(chan struct{})
	var failed atomic.Int64
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			<-start
			if err := publish(ctx, i); err != nil && failed.Add(1) == 1 {
				t.Errorf("caller %d: %v", i, err)
			}
		})
	}
	begin := time.Now()
	close(start)
	wg.Wait()
	each := float64(client.Stats().OutMsgs-before) / float64(callers)
	t.Logf("%d callers: reconnects %d, %d failed, %.2f messages into the server for each, in %v", callers, client.Stats().Reconnects, failed.Load(), each, time.Since(begin).Round(time.Millisecond))
	assert.Zero(t, failed.Load(), "failed calls")
	return each
}

// A server that syncs every message answers none for long. Nobody fails, and nobody makes it slower.
func TestManyCallersAtOnce(t *testing.T) {
	t.Parallel()
	const callers = 2000
	s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) { o.SyncAlways = true }))
	client := connect(t, s, nil)
	ctx := context.Background()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders"}})
	require.NoError(t, err)
	each := publishAtOnce(t, client, callers, func(ctx context.Context, _ int) error {
		_, err := client.PublishToStream(ctx, "orders", []byte("order"))
		return err
	})
	assert.LessOrEqual(t, each, 2.0, "1.0 on a machine that has the time") // asked again by patience alone, it is 5
	info, err := client.GetStreamInfo(ctx, "ORDERS")
	require.NoError(t, err)
	assert.EqualValues(t, callers, info.State.Msgs)
}

// A server that has no room for all of them is given fewer at a time, whichever way they come.
func TestManyCallersAndASmallQueue(t *testing.T) {
	t.Parallel()
	const callers = 800
	s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) { o.SyncAlways, o.StreamMaxBufferedMsgs = true, 100 }))
	ctx := context.Background()
	for name, publish := range map[string]func(context.Context, *nats.Client, *nats.Message) error{
		"sync": func(ctx context.Context, client *nats.Client, msg *nats.Message) error {
			_, err := client.PublishMsgToStream(ctx, msg)
			return err
		},
		"async": func(ctx context.Context, client *nats.Client, msg *nats.Message) error {
			future, err := client.PublishAsync(ctx, msg)
			if err != nil {
				return err
			}
			return resolved(t, future)
		},
		"batch": func(ctx context.Context, client *nats.Client, msg *nats.Message) error {
			_, err := client.PublishBatch(ctx, slices.Repeat([]*nats.Message{msg}, 10))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			client := connect(t, s, nil)
			_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: name, Subjects: []string{name + ".*"}})
			require.NoError(t, err)
			each := 1
			if name == "batch" {
				each = 10
			}
			publishAtOnce(t, client, callers/each, func(ctx context.Context, i int) error {
				return publish(ctx, client, &nats.Message{Subject: fmt.Sprint(name, ".", i)})
			})
			info, err := client.GetStreamInfo(ctx, name)
			require.NoError(t, err)
			assert.EqualValues(t, callers, info.State.Msgs)
		})
	}
}

// However far the server is, what is sent again is the same message, and its first answer counts.
func TestServerFarAway(t *testing.T) {
	t.Parallel()
	for _, trip := range []time.Duration{600 * time.Millisecond, 1200 * time.Millisecond} {
		t.Run(trip.String(), func(t *testing.T) {
			t.Parallel()
			s := natstest.RunServer(t)
			near := connect(t, s, nil)
			ctx := within(t, 9*patience)
			_, err := near.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders"}, AllowAtomicPublish: true})
			require.NoError(t, err)
			_, err = near.CreateKeyValue(ctx, "prices")
			require.NoError(t, err)
			_, err = near.CreateObjectStore(ctx, "files")
			require.NoError(t, err)
			client, proxy := through(t, s)
			files, err := client.GetObjectStore(ctx, "files")
			require.NoError(t, err)
			kv, err := client.GetKeyValue(ctx, "prices")
			require.NoError(t, err)
			proxy.Delay(trip / 2)
			msgs := []*nats.Message{{Subject: "orders"}, {Subject: "orders"}}
			calls := []struct {
				name  string
				trips int // that it takes
				call  func(context.Context) error
			}{
				{"PublishToStream", 1, func(ctx context.Context) error { _, err := client.PublishToStream(ctx, "orders", nil); return err }},
				{"PublishAsync", 1, func(ctx context.Context) error {
					future, err := client.PublishAsync(ctx, msgs[0])
					require.NoError(t, err)
					return resolved(t, future)
				}},
				{"PublishBatch", 1, func(ctx context.Context) error { _, err := client.PublishBatch(ctx, msgs); return err }},
				{"PublishAtomic", 2, func(ctx context.Context) error { _, err := client.PublishAtomic(ctx, msgs); return err }},
				{"Create", 1, func(ctx context.Context) error { _, err := kv.Create(ctx, "a", nil); return err }},
				{"Put", 1, func(ctx context.Context) error { _, err := kv.Put(ctx, "b", nil); return err }},
				{"PutBytes", 3, func(ctx context.Context) error { _, err := files.PutBytes(ctx, "c", []byte("x")); return err }},
				{"Get", 1, func(ctx context.Context) error { _, err := kv.Get(ctx, "a"); return err }},
				{"GetMany", 1, func(ctx context.Context) error { _, err := kv.GetMany(ctx, "a", "b"); return err }},
			}
			for _, c := range calls {
				begin := time.Now()
				require.NoError(t, c.call(within(t, 3*patience)), c.name)
				took := since(begin)
				t.Logf("%s: %.1f round trips", c.name, took.Seconds()/trip.Seconds())
				assert.Less(t, took, time.Duration(c.trips+3)*trip+time.Second, c.name)
			}
			info, err := near.GetStreamInfo(ctx, "ORDERS")
			require.NoError(t, err)
			assert.EqualValues(t, 6, info.State.Msgs)
		})
	}
}
