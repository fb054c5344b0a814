package faults_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
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

const restarts = 10

func connect(t *testing.T, urls ...string) *nats.Client {
	t.Helper()
	client, err := nats.NewClient(&nats.Config{
		URLs: urls, JetStreamEnabled: true,
		ReconnectWait: 20 * time.Millisecond, ReconnectMaxWait: 100 * time.Millisecond,
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// restart restarts s again and again, and each time waits until the clients are back.
func restart(t *testing.T, s *natstest.Server, clients ...*nats.Client) {
	t.Helper()
	for range restarts {
		s.Restart()
		for _, client := range clients {
			deadline := time.Now().Add(time.Minute)
			for client.Ping(context.Background()) != nil {
				require.True(t, time.Now().Before(deadline), "the client does not come back")
			}
		}
	}
}

// Every message of the stream is pulled and confirmed, whatever happens meanwhile.
func TestPullOverRestarts(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, publisher := connect(t, s.URL()), connect(t, s.URL())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}})
	require.NoError(t, err)
	_, err = client.CreateConsumer(ctx, "S", &jetstream.ConsumerConfig{Name: "c", AckWait: 2 * time.Second})
	require.NoError(t, err)
	const messages = 2000
	var mu sync.Mutex
	seen := make(map[string]bool)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			pulled, err := client.PullMessages(ctx, "S", "c", 50)
			if err != nil && ctx.Err() == nil {
				continue
			}
			for _, msg := range pulled {
				err := client.AckMessage(ctx, msg)
				for errors.Is(err, nats.ErrTimeout) {
					err = client.AckMessage(ctx, msg)
				}
				if err == nil || errors.Is(err, nats.ErrLateAck) { // it holds all the same
					mu.Lock()
					seen[string(msg.Data)] = true
					if len(seen) == messages {
						mu.Unlock()
						return
					}
					mu.Unlock()
				}
			}
		}
	}()
	published := make(chan struct{})
	go func() {
		defer close(published)
		for i := range messages {
			id := fmt.Sprint(i)
			for ctx.Err() == nil {
				if _, err := publisher.PublishToStream(ctx, "s", []byte(id), jetstream.WithMsgID(id)); err == nil {
					break
				}
			}
		}
	}()
	restart(t, s, client, publisher)
	<-published
	select {
	case <-done:
	case <-time.After(time.Minute):
		mu.Lock()
		defer mu.Unlock()
		t.Fatalf("%d of %d messages were handled", len(seen), messages)
	}
	info, err := client.GetStreamInfo(ctx, "S")
	require.NoError(t, err)
	assert.EqualValues(t, messages, info.State.Msgs, "stored once each")
}

// A request is answered, or its error says that it was not sent or may have been handled: a bare
// timeout or a wrong answer never.
func TestRequestsOverRestarts(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, server := connect(t, s.URL()), connect(t, s.URL())
	var handled atomic.Int64
	_, err := server.QueueSubscribe(context.Background(), "echo", "q", func(msg *nats.Message) error {
		handled.Add(1)
		return msg.Respond(msg.Data)
	})
	require.NoError(t, err)
	stop := make(chan struct{})
	var answered, failed atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			want := fmt.Sprint(i)
			answer, err := client.Request(context.Background(), "echo", []byte(want), 500*time.Millisecond)
			switch {
			case err == nil:
				answered.Add(1)
				assert.Equal(t, want, string(answer.Data))
			case errors.Is(err, nats.ErrConnectionLost), errors.Is(err, nats.ErrNotConnected), errors.Is(err, nats.ErrNoResponders):
				failed.Add(1) // the responder may come back later than the client
			default:
				// The answer of a responder that was cut off itself never comes.
				if !assert.ErrorIs(t, err, nats.ErrTimeout) {
					return
				}
				failed.Add(1)
			}
		}
	}()
	for range restarts {
		s.Restart()
		before := answered.Load()
		for deadline := time.Now().Add(time.Minute); answered.Load() < before+100; time.Sleep(time.Millisecond) {
			require.True(t, time.Now().Before(deadline), "no answers after a restart")
		}
	}
	close(stop)
	<-done
	assert.LessOrEqual(t, answered.Load(), handled.Load())
	t.Attr("figure", fmt.Sprintf("%d requests answered, %d failed over %d restarts", answered.Load(), failed.Load(), restarts))
}

func TestDownloadsOverRestarts(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s.URL())
	ctx := context.Background()
	store, err := client.CreateObjectStore(ctx, "store")
	require.NoError(t, err)
	want := make([]byte, 64<<20)
	_, err = rand.Read(want)
	require.NoError(t, err)
	_, err = store.PutBytes(ctx, "large", want)
	require.NoError(t, err)
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		defer func() { done <- n }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			// Without a deadline a silent server is borne for request_timeout at a time.
			got, err := store.GetBytes(ctx, "large")
			if err == nil {
				assert.True(t, bytes.Equal(want, got))
				n++
			}
		}
	}()
	restart(t, s, client)
	close(stop)
	n := <-done
	got, err := store.GetBytes(ctx, "large")
	require.NoError(t, err)
	assert.True(t, bytes.Equal(want, got))
	t.Logf("%d whole downloads over %d restarts", n, restarts)
}
