package nats_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// Upstream's Close drops what is queued: with 50 messages and 20 ms handlers, 46 of them.
func TestCloseHandlesEverythingReceived(t *testing.T) {
	t.Parallel()
	for _, workers := range []int{1, 4} {
		t.Run(fmt.Sprint(workers, " workers"), func(t *testing.T) {
			t.Parallel()
			s := natstest.RunServer(t)
			client, publisher := connect(t, s, nil), connect(t, s, nil)
			ctx := context.Background()
			var handled, replied atomic.Int64
			_, err := client.Subscribe(ctx, "work", func(msg *nats.Message) error {
				time.Sleep(20 * time.Millisecond) // the work
				if msg.Context().Err() != nil {
					return errors.New("the context ended before the handler")
				}
				handled.Add(1)
				return msg.Respond([]byte("done"))
			}, nats.WithConcurrency(workers))
			require.NoError(t, err)
			_, err = publisher.Subscribe(ctx, "answers", func(*nats.Message) error { replied.Add(1); return nil })
			require.NoError(t, err)
			for range 50 {
				require.NoError(t, publisher.PublishWithReply(ctx, "work", "answers", nil))
			}
			require.NoError(t, publisher.Flush(ctx))
			eventually(t, "5 handled", func() bool { return handled.Load() >= 5 })

			require.NoError(t, client.Close())
			assert.EqualValues(t, 50, handled.Load())
			eventually(t, "50 answers", func() bool { return replied.Load() == 50 })
		})
	}
}

// What follows a bucket leaves no consumer on the server: not when it was stopped just before, and not for being many.
func TestCloseLeavesNoConsumer(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, other := connect(t, s, nil), connect(t, s, nil)
	ctx := within(t, patience)
	kv, err := client.CreateKeyValue(ctx, "settings")
	require.NoError(t, err)
	files, err := client.CreateObjectStore(ctx, "files")
	require.NoError(t, err)
	for i := range 50 {
		cache(t, kv)
		watcher, err := kv.WatchAll(ctx)
		require.NoError(t, err)
		objects, err := files.Watch(ctx)
		require.NoError(t, err)
		if i%2 == 0 {
			require.NoError(t, errors.Join(watcher.Stop(), objects.Stop()))
		}
	}
	require.NoError(t, client.Close())
	left := func() (n int) {
		for _, name := range []string{"KV_settings", "OBJ_files"} {
			info, err := other.JetStream().Stream(ctx, name)
			require.NoError(t, err)
			n += info.CachedInfo().State.Consumers
		}
		return n
	}
	// The server itself forgets them after a minute.
	require.Eventually(t, func() bool { return left() == 0 }, patience/2, 10*time.Millisecond)
}

func TestShutdownSaysWhatItLeft(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	eventually(t, "the end within 150 ms, however busy the machine is", func() bool {
		return shutdownInTheMiddle(t, s) < 150*time.Millisecond
	})
}

// shutdownInTheMiddle gives Shutdown 100 ms while one handler hangs and nine messages wait, and
// returns how long it took.
func shutdownInTheMiddle(t *testing.T, s *natstest.Server) time.Duration {
	client := connect(t, s, nil)
	ctx := context.Background()
	started, release := make(chan struct{}, 10), make(chan struct{})
	defer close(release)
	_, err := client.Subscribe(ctx, "work", func(*nats.Message) error {
		started <- struct{}{}
		<-release
		return nil
	})
	require.NoError(t, err)
	for range 10 {
		require.NoError(t, client.Publish(ctx, "work", nil))
	}
	require.NoError(t, client.Flush(ctx))
	<-started
	eventually(t, "9 pending", func() bool { return client.Stats().Pending == 9 })

	begin := time.Now()
	err = client.Shutdown(within(t, 100*time.Millisecond))
	took := since(begin)
	require.ErrorIs(t, err, nats.ErrDrainTimeout)
	require.NotErrorIs(t, err, nats.ErrUnflushed, "everything published was sent")
	var left *nats.ShutdownError
	require.ErrorAs(t, err, &left)
	assert.Equal(t, 1, left.Handlers)
	assert.Equal(t, 9, left.Messages)
	assert.Contains(t, err.Error(), "1 handlers still running, 9 messages not handled")
	return took
}

func TestCloseWhileDisconnectedCountsUnsentBytes(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	proxy := natstest.NewProxy(t, s.URL()) // it keeps its port, that of a stopped server may become another one's
	client := connect(t, s, func(c *nats.Config) { c.URLs = []string{proxy.URL()}; c.DrainTimeout = 200 * time.Millisecond })
	proxy.Cut()
	eventually(t, "disconnected", func() bool { return !client.IsConnected() })
	for range 100 {
		require.NoError(t, client.Publish(context.Background(), "events", []byte("0123456789")))
	}
	buffered := client.Stats().Buffered
	require.Equal(t, 100*len("PUB events 10\r\n0123456789\r\n"), buffered)

	err := client.Close()
	require.ErrorIs(t, err, nats.ErrUnflushed)
	require.NotErrorIs(t, err, nats.ErrDrainTimeout)
	var left *nats.ShutdownError
	require.ErrorAs(t, err, &left)
	assert.Equal(t, buffered, left.Bytes)
	assert.Contains(t, err.Error(), fmt.Sprint(buffered, " published bytes not sent"))
}

// With nothing to send there is nothing to wait for.
func TestCloseWhileDisconnectedIsQuick(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	ctx := context.Background()
	var handled atomic.Int64
	_, err := client.Subscribe(ctx, "work", func(*nats.Message) error {
		time.Sleep(20 * time.Millisecond) // the work
		handled.Add(1)
		return nil
	})
	require.NoError(t, err)
	for range 10 {
		require.NoError(t, client.Publish(ctx, "work", nil))
	}
	require.NoError(t, client.Flush(ctx))
	eventually(t, "all received", func() bool {
		stats := client.Stats()
		return stats.Pending+stats.InFlight+int(handled.Load()) == 10
	})
	s.Stop()
	begin := time.Now()
	require.NoError(t, client.Close())
	assert.Less(t, since(begin), 5*time.Second)
	assert.EqualValues(t, 10, handled.Load(), "what was received is handled without a server")
}

func TestCloseWaitsForTheConnectionToSendTheRest(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	s.Stop()
	eventually(t, "disconnected", func() bool { return !client.IsConnected() })
	require.NoError(t, client.Publish(context.Background(), "events", []byte("kept")))
	closed := make(chan error, 1)
	go func() { closed <- client.Close() }()
	s.Restart()
	require.NoError(t, <-closed)
}

// Upstream leaves every future unresolved for ever: 5,000 of 5,000.
func TestCloseWaitsForAsynchronousPublishes(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Storage: jetstream.MemoryStorage})
	require.NoError(t, err)
	futures := make([]jetstream.PubAckFuture, 5000)
	for i := range futures {
		futures[i], err = client.JetStream().PublishAsync("s", []byte("x"), jetstream.WithStallWait(patience))
		require.NoError(t, err)
	}
	require.NoError(t, client.Close())
	for _, future := range futures {
		select {
		case <-future.Ok():
		case err := <-future.Err():
			t.Fatal(err)
		default:
			t.Fatal("a future is unresolved")
		}
	}
}

func TestCloseFailsFuturesThatCannotResolve(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, func(c *nats.Config) { c.DrainTimeout = 100 * time.Millisecond; c.RequestTimeout = time.Minute })
	// A subscriber that does not answer keeps the server from saying that no stream is there.
	_, err := client.Subscribe(context.Background(), "nowhere", func(*nats.Message) error { return nil })
	require.NoError(t, err)
	future, err := client.JetStream().PublishAsync("nowhere", nil)
	require.NoError(t, err)
	err = client.Close()
	require.ErrorIs(t, err, nats.ErrDrainTimeout)
	assert.Contains(t, err.Error(), "1 asynchronous publishes not acknowledged")
	select {
	case err := <-future.Err():
		require.Error(t, err)
	case <-time.After(patience):
		t.Fatal("the future is unresolved")
	}
}

func TestClosedClient(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	ctx := context.Background()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	require.NoError(t, err)
	_, err = client.CreateConsumer(ctx, "S", &jetstream.ConsumerConfig{Name: "c"})
	require.NoError(t, err)
	_, err = client.PublishToStream(ctx, "s", nil)
	require.NoError(t, err)
	pulled, err := client.PullMessages(ctx, "S", "c", 1)
	require.NoError(t, err)
	kv, err := client.CreateKeyValue(ctx, "kv")
	require.NoError(t, err)
	objects, err := client.CreateObjectStore(ctx, "objects")
	require.NoError(t, err)
	handler := func(*nats.Message) error { return nil }
	sub, err := client.Subscribe(ctx, "x", handler)
	require.NoError(t, err)

	require.NoError(t, client.Close())
	require.NoError(t, client.Close(), "twice is fine")
	require.NoError(t, client.Shutdown(ctx))
	require.ErrorIs(t, sub.Err(), nats.ErrClosed)
	require.NoError(t, sub.Unsubscribe())
	require.NoError(t, sub.Drain(ctx))
	assert.False(t, client.IsConnected())

	calls := jetStreamCalls(ctx, client)
	maps.Copy(calls, map[string]error{
		"Publish":          client.Publish(ctx, "x", nil),
		"PublishMsg":       client.PublishMsg(ctx, &nats.Message{Subject: "x"}),
		"PublishJSON":      client.PublishJSON(ctx, "x", 1),
		"PublishWithReply": client.PublishWithReply(ctx, "x", "y", nil),
		"Subscribe":        second(client.Subscribe(ctx, "x", handler)),
		"QueueSubscribe":   second(client.QueueSubscribe(ctx, "x", "q", handler)),
		"Request":          second(client.Request(ctx, "x", nil, patience)),
		"RequestMsg":       second(client.RequestMsg(ctx, &nats.Message{Subject: "x"}, patience)),
		"Ping":             client.Ping(ctx),
		"Flush":            client.Flush(ctx),
		"AckMessage":       client.AckMessage(ctx, pulled[0]),
		"Ack":              pulled[0].Ack(),
		"InProgress":       pulled[0].InProgress(),
		"KV Get":           second(kv.Get(ctx, "k")),
		"KV Put":           second(kv.Put(ctx, "k", nil)),
		"KV Delete":        kv.Delete(ctx, "k"),
		"KV Watch":         second(kv.Watch(ctx, "k")),
		"KV Status":        second(kv.Status(ctx)),
		"Object PutBytes":  second(objects.PutBytes(ctx, "o", nil)),
		"Object Get":       second(objects.Get(ctx, "o")),
		"Object GetBytes":  second(objects.GetBytes(ctx, "o")),
		"Object List":      second(objects.List(ctx)),
		"Object Watch":     second(objects.Watch(ctx)),
		"Object Delete":    objects.Delete(ctx, "o"),
	})
	for name, err := range calls {
		assert.ErrorIs(t, err, nats.ErrClosed, name)
	}
	for _, err := range client.Messages(ctx, "x") {
		require.ErrorIs(t, err, nats.ErrClosed)
	}
}

// Each of them leaves goroutines behind for ever when upstream's connection is closed.
func TestCloseEndsWhatTheCallerForgot(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	kv, err := client.CreateKeyValue(ctx, "kv")
	require.NoError(t, err)
	for i := range 600 { // more than upstream buffers
		_, err := kv.Put(ctx, fmt.Sprint("key.", i), nil)
		require.NoError(t, err)
	}
	objects, err := client.CreateObjectStore(ctx, "objects")
	require.NoError(t, err)
	_, err = objects.PutBytes(ctx, "large", make([]byte, 16<<20))
	require.NoError(t, err)

	watcher, err := kv.WatchAll(ctx)
	require.NoError(t, err)
	lister, err := kv.ListKeys(ctx)
	require.NoError(t, err)
	objectWatcher, err := objects.Watch(ctx)
	require.NoError(t, err)
	object, err := objects.Get(ctx, "large")
	require.NoError(t, err)
	_, err = object.Read(make([]byte, 100))
	require.NoError(t, err)
	iterated := make(chan struct{})
	go func() {
		defer close(iterated)
		for _, err := range client.Messages(ctx, "x") {
			assert.NoError(t, err)
		}
	}()
	eventually(t, "the iterator subscribes", func() bool { return client.Stats().Subscriptions == 1 })

	require.NoError(t, client.Close())
	<-iterated
	for range watcher.Updates() {
	}
	for range lister.Keys() {
	}
	for range objectWatcher.Updates() {
	}
	eventually(t, "the download ends", func() bool {
		_, err := object.Read(make([]byte, 1<<20))
		return err != nil
	})
}

// A handler that publishes asynchronously during Close is waited for like any other.
func TestCloseWaitsForWhatHandlersPublish(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	ctx := context.Background()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	require.NoError(t, err)
	_, err = client.Subscribe(ctx, "work", func(*nats.Message) error {
		time.Sleep(10 * time.Millisecond) // the work
		_, err := client.JetStream().PublishAsync("s", nil)
		return err
	})
	require.NoError(t, err)
	for range 20 {
		require.NoError(t, client.Publish(ctx, "work", nil))
	}
	require.NoError(t, client.Flush(ctx))
	require.NoError(t, client.Close())

	info, err := connect(t, s, nil).GetStreamInfo(ctx, "S")
	require.NoError(t, err)
	assert.EqualValues(t, 20, info.State.Msgs)
}

func TestUpstreamCloseIsNoticed(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	var events eventLog
	client := connect(t, s, nil, nats.WithEventHandler(events.handle))
	client.Conn().Close()
	eventually(t, "the event", func() bool { return len(events.of(nats.EventClosed)) == 1 })
	require.ErrorIs(t, events.of(nats.EventClosed)[0].Err, nats.ErrClosed)
	require.ErrorIs(t, client.Publish(context.Background(), "x", nil), nats.ErrClosed)
	require.ErrorIs(t, client.Publish(context.Background(), "x", nil), natsgo.ErrConnectionClosed)
	require.NoError(t, client.Close())
}

// Upstream holds the connection's lock for as long as the server may take to welcome the client.
func TestShutdownWhileAServerIsSilent(t *testing.T) {
	t.Parallel()
	var connections atomic.Int64
	hangUp := make(chan struct{})
	address := conntest.Serve(t, func(conn net.Conn) {
		if connections.Add(1) > 1 { // accepted, and not a word
			_, _ = io.Copy(io.Discard, conn)
			return
		}
		_, _ = fmt.Fprint(conn, `INFO {"server_id":"x","version":"2.10.0","max_payload":1048576,"headers":true}`+"\r\n")
		lines := bufio.NewScanner(conn)
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "PING") {
				break
			}
		}
		_, _ = fmt.Fprint(conn, "PONG\r\n")
		<-hangUp
		_ = conn.Close()
	})
	client, err := nats.NewClient(&nats.Config{
		URLs: []string{"nats://" + address}, Timeout: time.Minute, ReconnectWait: time.Millisecond, ReconnectMaxWait: time.Millisecond,
	})
	require.NoError(t, err)
	close(hangUp)
	eventually(t, "it dials again", func() bool { return connections.Load() == 2 })
	begin := time.Now()
	_ = client.Shutdown(within(t, 100*time.Millisecond))
	assert.Less(t, since(begin), 10*time.Second)
}
