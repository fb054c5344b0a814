package nats_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// gather returns the payloads of the answers, those of errors with their codes, and the last error.
func gather(ctx context.Context, client *nats.Client, subject string, opts ...nats.RequestManyOption) (answers []string, err error) {
	for msg, err := range client.RequestMany(ctx, subject, []byte("x"), opts...) {
		var e *nats.ServiceError
		switch {
		case msg == nil:
			return answers, err
		case errors.As(err, &e):
			answers = append(answers, fmt.Sprint(e.Code))
		default:
			answers = append(answers, string(msg.Data))
		}
	}
	return answers, nil
}

func TestRequestMany(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, nc := connect(t, s, nil), raw(t, s)
	for _, name := range []string{"a", "b", "c"} {
		_, err := client.HandleRequests(context.Background(), "all", "", func(*nats.Message) ([]byte, error) {
			if name == "c" {
				return nil, &nats.ServiceError{Code: 404}
			}
			return []byte(name), nil
		})
		require.NoError(t, err)
	}
	answer := func(subject string, h func(m *natsgo.Msg)) {
		_, err := nc.Subscribe(subject, h)
		require.NoError(t, err)
	}
	answer("silent", func(*natsgo.Msg) {})
	answer("count", func(m *natsgo.Msg) {
		for i := range 10_000 {
			assert.NoError(t, m.Respond(fmt.Append(nil, i)))
		}
		assert.NoError(t, m.Respond(nil))
	})
	require.NoError(t, nc.Flush())
	ctx := context.Background()

	answers, err := gather(ctx, client, "all", nats.WithMaxReplies(3))
	require.NoError(t, err)
	assert.ElementsMatch(t, []string{"a", "b", "404"}, answers)
	answers, err = gather(ctx, client, "all", nats.WithStall(2*time.Second))
	require.NoError(t, err)
	assert.Len(t, answers, 3)
	answers, err = gather(within(t, 2*time.Second), client, "all")
	require.NoError(t, err, "the end of the time is a regular one")
	assert.Len(t, answers, 3)
	answers, err = gather(within(t, patience), client, "count", nats.WithSentinel(func(m *nats.Message) bool { return len(m.Data) == 0 }))
	require.NoError(t, err)
	require.Len(t, answers, 10_000)
	for i, answer := range answers {
		require.Equal(t, fmt.Sprint(i), answer)
	}

	_, err = gather(ctx, client, "nobody")
	require.ErrorIs(t, err, nats.ErrNoResponders)
	_, err = gather(within(t, 50*time.Millisecond), client, "silent")
	require.ErrorIs(t, err, nats.ErrTimeout)
	_, err = gather(ctx, client, "a b")
	require.ErrorIs(t, err, nats.ErrInvalidSubject)
	_, err = gather(nil, client, "all") //nolint:staticcheck // on purpose
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	cancelled, cancel := context.WithCancel(ctx)
	defer cancel()
	got := 0
	for msg, err := range client.RequestMany(cancelled, "count", nil) {
		if msg == nil {
			require.ErrorIs(t, err, context.Canceled)
			break
		}
		got++
		cancel()
	}
	assert.Equal(t, 1, got, "it ends at once")
	for _, err := range client.RequestMany(ctx, "count", nil) {
		require.NoError(t, err)
		break
	}
	_, err = client.Request(ctx, "all", nil, patience)
	assert.True(t, err == nil || errors.Is(err, &nats.ServiceError{Code: 404}), "nothing is left of what was broken off: %v", err)
}

// Answers that may be missing are told, those that have come are handed over.
func TestRequestManyOverABreak(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	proxy := natstest.NewProxy(t, s.URL())
	server, client := connect(t, s, nil), connect(t, s, func(c *nats.Config) { c.URLs = []string{proxy.URL()} })
	_, err := server.Subscribe(context.Background(), "service", func(msg *nats.Message) error { return msg.Respond([]byte("first")) })
	require.NoError(t, err)
	var answers []string
	for msg, err := range client.RequestMany(within(t, 5*time.Second), "service", nil) {
		if msg == nil {
			require.ErrorIs(t, err, nats.ErrConnectionLost)
			answers = append(answers, "lost")
			continue
		}
		answers = append(answers, string(msg.Data))
		proxy.Cut()
		eventually(t, "broken", func() bool { return client.Stats().Reconnects > 0 || !client.IsConnected() })
	}
	assert.Equal(t, []string{"first", "lost"}, answers)
}

// A loop that does not keep up ends, instead of filling the memory.
func TestRequestManyOfTooMuch(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, nc := connect(t, s, nil), raw(t, s)
	data := []byte(strings.Repeat("x", 1<<19))
	_, err := nc.Subscribe("flood", func(m *natsgo.Msg) {
		for range 200 {
			assert.NoError(t, m.Respond(data))
		}
		assert.NoError(t, nc.Publish("flooded", nil))
	})
	require.NoError(t, err)
	ended := make(chan struct{})
	_, err = client.Subscribe(context.Background(), "flooded", func(*nats.Message) error { close(ended); return nil })
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	answers := 0
	for msg, err := range client.RequestMany(within(t, patience), "flood", nil) {
		if msg == nil {
			require.ErrorIs(t, err, nats.ErrSlowConsumer)
			break
		}
		if answers++; answers == 1 {
			<-ended // what follows all of them
		}
	}
	assert.Greater(t, answers, 100)
	assert.Less(t, answers, 200)
}

// Who answers without end is heard for as long as there is time.
func TestRequestManyWithoutEnd(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client, nc := connect(t, s, func(c *nats.Config) { c.RequestTimeout = 2 * time.Second }), raw(t, s)
	var inbox string
	_, err := nc.Subscribe("endless.*", func(m *natsgo.Msg) {
		if m.Subject == "endless.begin" {
			inbox = m.Reply
		}
		assert.NoError(t, nc.Publish(inbox, []byte("answer")))
		if m.Subject == "endless.more" {
			assert.NoError(t, m.Respond(nil))
		}
	})
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	begin := time.Now()
	for _, err := range client.RequestMany(context.Background(), "endless.begin", nil) {
		require.NoError(t, err)
		require.Less(t, since(begin), 20*time.Second)
		_, err = client.Request(context.Background(), "endless.more", nil, patience) // the next one is there before its answer
		require.NoError(t, err)
	}
}
