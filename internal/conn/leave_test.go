package conn_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lifecycle"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// A queue group with one member alone gets every message once, over moves from server to server and back.
func TestLeaveLosesNothingOfAGroup(t *testing.T) {
	t.Parallel()
	cluster := natstest.RunCluster(t, 2)
	urls := cluster.URLs()
	c, _ := open(t, nil, urls[0])
	require.NoError(t, c.SetServers(urls))
	counts := make(map[string]int)
	var mu sync.Mutex
	group, err := c.NATS().QueueSubscribe("g", "q", func(m *natsgo.Msg) {
		mu.Lock()
		defer mu.Unlock()
		counts[string(m.Data)]++
	})
	require.NoError(t, err)
	ends, err := c.NATS().QueueSubscribe("ends", "q", func(*natsgo.Msg) {})
	require.NoError(t, err)
	live := []*natsgo.Subscription{group, ends}
	require.NoError(t, c.RoundTrip(within(t, time.Minute), "test", ""))

	publishers := make([]*natsgo.Conn, 2)
	for i, url := range urls {
		publishers[i], err = natsgo.Connect(url)
		require.NoError(t, err)
		t.Cleanup(publishers[i].Close)
	}
	heard, err := publishers[1].Request("nobody", nil, time.Minute) // the cluster's interest has settled
	require.ErrorIs(t, err, natsgo.ErrNoResponders, "%v", heard)
	require.Eventually(t, func() bool {
		_ = publishers[1].Publish("g", []byte("begin"))
		_ = publishers[1].Flush()
		mu.Lock()
		defer mu.Unlock()
		return counts["begin"] > 0
	}, time.Minute, 10*time.Millisecond)

	var sent atomic.Int64
	stop := make(chan struct{})
	var load sync.WaitGroup
	for _, nc := range publishers {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(100 * time.Microsecond):
					assert.NoError(t, nc.Publish("g", strconv.AppendInt(nil, sent.Add(1), 10)))
				}
			}
		})
	}
	for i := range 6 {
		require.NoError(t, c.Leave(within(t, time.Minute), urls, true, func() []*natsgo.Subscription {
			if i == 3 && len(live) == 2 { // it ends between the beginning and the end of the move
				defer func() {
					require.NoError(t, ends.Unsubscribe())
					live = live[:1]
				}()
			}
			return live
		}))
		require.NoError(t, c.RoundTrip(within(t, time.Minute), "test", ""))
	}
	close(stop)
	load.Wait()
	for _, nc := range publishers {
		require.NoError(t, nc.Flush())
	}
	require.Eventually(t, func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(counts) == int(sent.Load())+1
	}, time.Minute, time.Millisecond)
	delete(counts, "begin")
	t.Attr("figure", fmt.Sprintf("%d messages over 6 moves", len(counts)))
	for data, n := range counts {
		require.Equal(t, 1, n, data)
	}
	// Nobody swallows the share of a group that has ended.
	_, err = publishers[0].Request("ends", nil, time.Minute)
	require.ErrorIs(t, err, natsgo.ErrNoResponders)
}

// A wish to leave lasts until another server stands, and the last one holds.
func TestDepart(t *testing.T) {
	t.Parallel()
	cluster := natstest.RunCluster(t, 2)
	life := lifecycle.New()
	t.Cleanup(life.End)
	c, h := open(t, func(o *conn.Options) {
		o.Life, o.NATS.IgnoreDiscoveredServers = life, true
		o.Groups = func() []*natsgo.Subscription { return nil }
	}, cluster.URLs()[0])
	c.Depart(conn.Departure{Reason: "unlisted", Unlisted: true}) // it is listed
	c.Depart(conn.Departure{Reason: "another", Another: true})
	require.Eventually(t, func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.stays) > 0
	}, time.Minute, time.Millisecond)
	h.do(func() { assert.Equal(t, []conn.Departure{{Reason: "another", Another: true}}, h.stays) })
	assert.Equal(t, cluster.URLs()[0], c.Server())
	require.NoError(t, c.SetServers(cluster.URLs()))
	require.Eventually(t, func() bool { return c.Server() == cluster.URLs()[1] }, time.Minute, time.Millisecond)

	first, err := life.Close(within(t, time.Minute), func(context.Context) {
		c.Depart(conn.Departure{Another: true}) // it ends at once
	}, func(context.Context) {})
	require.NoError(t, err)
	assert.True(t, first)
	c.Depart(conn.Departure{Another: true})
}

// Handlers of others return before the end, whatever they call, and those that do not are counted.
func TestDrainForeign(t *testing.T) {
	t.Parallel()
	server := natstest.RunServer(t)
	c, _ := open(t, nil, server.URL())
	begun, goOn := make(chan struct{}), make(chan struct{})
	_, err := c.NATS().Subscribe("s", func(m *natsgo.Msg) {
		begun <- struct{}{}
		<-goOn
		assert.NoError(t, m.Respond(m.Data))
	})
	require.NoError(t, err)
	answers, err := c.NATS().SubscribeSync("answers")
	require.NoError(t, err)
	for range 2 {
		require.NoError(t, c.NATS().PublishRequest("s", "answers", []byte("data")))
	}
	<-begun
	require.NoError(t, c.RoundTrip(within(t, time.Minute), "test", ""))
	over, cancel := context.WithCancel(context.Background())
	cancel()
	handlers, messages := c.DrainForeign(over)
	assert.Equal(t, []int{1, 1}, []int{handlers, messages})
	go func() { <-begun }()
	close(goOn)
	handlers, messages = c.DrainForeign(within(t, time.Minute))
	assert.Zero(t, handlers+messages)
	for range 2 {
		_, err = answers.NextMsg(10 * time.Second)
		require.NoError(t, err)
	}
}

// A callback of the user's that panics ends nothing.
func TestCallbacksAreContained(t *testing.T) {
	t.Parallel()
	names := make(chan string, 1)
	c, _ := open(t, func(o *conn.Options) {
		o.NATS.DisconnectedErrCB = func(*natsgo.Conn, error) { panic("of the user's") }
		o.Contain = func(name string, callback func()) {
			defer func() {
				if recover() != nil {
					names <- name
				}
			}()
			callback()
		}
	}, natstest.RunServer(t).URL())
	c.Close()
	assert.Equal(t, "DisconnectedErrCB", <-names)
}
