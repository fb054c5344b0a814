package nats_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestRequest(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	_, err := client.Subscribe(ctx, "service.*", func(msg *nats.Message) error {
		switch msg.Subject {
		case "service.echo":
			return msg.RespondMsg(&nats.Message{Header: msg.Header, Data: msg.Data})
		case "service.fail":
			return msg.RespondError(404, "no such order")
		case "service.empty":
			return msg.Respond(nil)
		}
		return nil
	}, nats.WithConcurrency(8))
	require.NoError(t, err)

	answer, err := client.Request(ctx, "service.echo", []byte("hello"), patience)
	require.NoError(t, err)
	assert.Equal(t, "hello", string(answer.Data))
	answer, err = client.RequestMsg(ctx, &nats.Message{Subject: "service.echo", Header: natsgo.Header{"K": {"v"}}}, 0)
	require.NoError(t, err)
	assert.Equal(t, natsgo.Header{"K": {"v"}}, answer.Header)
	require.ErrorIs(t, answer.Respond(nil), nats.ErrNoReply)
	answer, err = client.Request(ctx, "service.empty", nil, patience)
	require.NoError(t, err)
	assert.Empty(t, answer.Data)
	answer, err = client.Request(ctx, "service.fail", nil, patience)
	require.ErrorIs(t, err, &nats.ServiceError{Code: 404, Description: "no such order"})
	require.EqualError(t, err, `request "service.fail": service error 404: no such order`)
	assert.Equal(t, "404", answer.Header.Get(micro.ErrorCodeHeader))
	assert.Equal(t, "no such order", answer.Header.Get(micro.ErrorHeader))

	var wg sync.WaitGroup
	for i := range 500 { // every answer finds its request
		wg.Go(func() {
			want := fmt.Sprint(i)
			answer, err := client.Request(ctx, "service.echo", []byte(want), patience)
			if assert.NoError(t, err) {
				assert.Equal(t, want, string(answer.Data))
			}
		})
	}
	wg.Wait()
}

func TestRespondWithoutReply(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	errs := make(chan error, 3)
	_, err := client.Subscribe(ctx, "x", func(msg *nats.Message) error {
		errs <- msg.Respond(nil)
		errs <- msg.RespondError(500, "")
		errs <- msg.RespondMsg(nil)
		return nil
	})
	require.NoError(t, err)
	require.NoError(t, client.Publish(ctx, "x", nil))
	require.ErrorIs(t, <-errs, nats.ErrNoReply)
	require.ErrorIs(t, <-errs, nats.ErrNoReply)
	require.ErrorIs(t, <-errs, nats.ErrInvalidArgument)
	require.ErrorIs(t, (&nats.Message{Subject: "x", Reply: "y"}).Respond(nil), nats.ErrNoReply, "not received")
}

func TestRequestTimeouts(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), func(c *nats.Config) { c.RequestTimeout = 50 * time.Millisecond })
	_, err := client.Subscribe(within(t, 10*time.Second), "silent", func(*nats.Message) error { return nil })
	require.NoError(t, err)
	for name, c := range map[string]struct {
		within  time.Duration // of the context; 0 means none
		timeout time.Duration
		also    error
	}{
		"timeout, Background": {0, 50 * time.Millisecond, natsgo.ErrTimeout},
		"timeout first":       {time.Minute, 50 * time.Millisecond, natsgo.ErrTimeout},
		"default":             {time.Minute, 0, natsgo.ErrTimeout},
		"ctx first":           {50 * time.Millisecond, time.Minute, context.DeadlineExceeded},
	} {
		ctx := context.Background()
		if c.within > 0 {
			ctx = within(t, c.within)
		}
		begin := time.Now()
		_, err := client.Request(ctx, "silent", nil, c.timeout)
		took, late := time.Since(begin), since(begin)
		assert.ErrorIs(t, err, nats.ErrTimeout, name)
		assert.ErrorIs(t, err, c.also, name)
		assert.ErrorContains(t, err, `request "silent": timed out`, name)
		assert.GreaterOrEqual(t, took, 40*time.Millisecond, name)
		assert.Less(t, late, 2*time.Second, name)
	}
	cancelled, cancel := context.WithCancel(context.Background())
	time.AfterFunc(10*time.Millisecond, cancel)
	_, err = client.Request(cancelled, "silent", nil, time.Minute)
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, nats.ErrTimeout)
}

func TestRequestNobodyAnswers(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	eventually(t, "an answer within 50 ms, however busy the machine is", func() bool {
		begin := time.Now()
		_, err := client.Request(context.Background(), "nobody", nil, time.Minute)
		require.ErrorIs(t, err, nats.ErrNoResponders)
		require.ErrorIs(t, err, natsgo.ErrNoResponders)
		return since(begin) < 50*time.Millisecond
	})
}

// Upstream buffers the request and says "timeout"; it is sent, and handled, when the server is back.
func TestRequestWhileDisconnected(t *testing.T) {
	t.Parallel()
	client, proxy := through(t, natstest.RunServer(t))
	proxy.Cut()
	eventually(t, "disconnected", func() bool { return !client.IsConnected() })
	begin := time.Now()
	_, err := client.Request(context.Background(), "service", nil, 100*time.Millisecond)
	require.ErrorIs(t, err, nats.ErrNotConnected)
	assert.GreaterOrEqual(t, time.Since(begin), 100*time.Millisecond, "it waits for the connection")
	_, err = client.Request(within(t, 50*time.Millisecond), "service", nil, time.Minute)
	require.ErrorIs(t, err, nats.ErrNotConnected)
	assert.Zero(t, client.Stats().Buffered, "nothing is sent later")

	answered := make(chan error, 1)
	go func() {
		_, err := client.Request(context.Background(), "service", nil, patience)
		answered <- err
	}()
	proxy.Restore()
	require.ErrorIs(t, <-answered, nats.ErrNoResponders, "it went out on the new connection")
}

// While upstream fails a request at once when its connection is replaced, the answer still comes.
func TestRequestSurvivesReconnect(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, server := connect(t, s, nil), connect(t, s, nil)
	received, release := make(chan struct{}), make(chan struct{})
	_, err := server.Subscribe(context.Background(), "service", func(msg *nats.Message) error {
		close(received)
		<-release
		return msg.Respond([]byte("late"))
	})
	require.NoError(t, err)
	type result struct {
		msg *nats.Message
		err error
	}
	results := make(chan result, 1)
	go func() {
		msg, err := client.Request(context.Background(), "service", nil, patience)
		results <- result{msg, err}
	}()
	<-received
	reconnects := client.Stats().Reconnects
	require.NoError(t, client.Conn().ForceReconnect())
	eventually(t, "reconnected", func() bool { return client.IsConnected() && client.Stats().Reconnects > reconnects })
	require.NoError(t, client.Flush(context.Background()))
	close(release)
	got := <-results
	require.NoError(t, got.err)
	assert.Equal(t, "late", string(got.msg.Data))
}

func TestRequestLostWithTheConnection(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	server := connect(t, s, nil)
	client, proxy := through(t, s)
	var handled atomic.Int64
	_, err := server.Subscribe(context.Background(), "service", func(*nats.Message) error { handled.Add(1); return nil })
	require.NoError(t, err)
	errs := make(chan error, 2)
	begin := time.Now()
	go func() {
		_, err := client.Request(context.Background(), "service", nil, 3*time.Second)
		errs <- err
	}()
	go func() {
		_, err := client.Request(within(t, 3*time.Second), "service", nil, time.Minute)
		errs <- err
	}()
	eventually(t, "handled", func() bool { return handled.Load() == 2 })
	proxy.Cut()
	for range 2 {
		err := <-errs
		require.ErrorIs(t, err, nats.ErrConnectionLost)
		require.NotErrorIs(t, err, nats.ErrNotConnected)
	}
	assert.GreaterOrEqual(t, time.Since(begin), 2900*time.Millisecond, "it waits for the answer to its end")
}

func TestErrorsNameWhatFailed(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	_, err := client.Request(context.Background(), "orders.get", nil, patience)
	assert.True(t, strings.HasPrefix(err.Error(), `request "orders.get": no responders`), err.Error())
	err = client.Publish(context.Background(), "a..b", nil)
	assert.EqualError(t, err, `publish "a..b": invalid subject: it has an empty token`)
}
