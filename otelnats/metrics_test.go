package otelnats_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/otelnats"
)

// Every measurement, of a service whose messages fail, and whose client is closed at last.
func TestMetrics(t *testing.T) {
	t.Parallel()
	s := observed(t)
	ctx := s.orders(t)
	_, err := s.HandleRequests(ctx, "price.*", "pricers", func(*nats.Message) ([]byte, error) { return nil, nil })
	require.NoError(t, err)
	s.consume(t, func(*nats.Message) error { return nats.Permanent(errPoison) })
	_, err = s.PublishBatch(ctx, []*nats.Message{{Subject: "orders.1"}, {Subject: "orders.2"}})
	require.NoError(t, err)
	_, err = s.Request(ctx, "price.1", nil, 0)
	require.NoError(t, err)
	_, err = s.Request(ctx, "nobody", nil, 0)
	require.Error(t, err)
	eventually(t, func() bool { return s.Stats().DeadLettered == 2 && s.Stats().InFlight == 0 })

	const send, duration, process = "messaging.operation.name=send,messaging.system=nats", "messaging.client.operation.duration ", "messaging.process.duration "
	const consumer = " messaging.consumer.group.name=worker,messaging.nats.stream=ORDERS"
	want := map[string]int64{
		duration + "messaging.destination.template=orders.*,messaging.operation.name=send,messaging.operation.type=send,messaging.system=nats":                                                             2,
		duration + "messaging.operation.name=send,messaging.operation.type=send,messaging.system=nats":                                                                                                     2, // dead letters
		duration + "messaging.operation.name=request,messaging.operation.type=send,messaging.system=nats":                                                                                                  1,
		duration + "error.type=unavailable,messaging.operation.name=request,messaging.operation.type=send,messaging.system=nats":                                                                           1,
		duration + "messaging.consumer.group.name=worker,messaging.destination.template=orders.*,messaging.operation.name=term,messaging.operation.type=settle,messaging.system=nats":                      2,
		process + "error.type=_OTHER,messaging.consumer.group.name=worker,messaging.destination.template=orders.*,messaging.operation.name=process,messaging.operation.type=process,messaging.system=nats": 2,
		process + "messaging.consumer.group.name=pricers,messaging.destination.template=price.*,messaging.operation.name=process,messaging.operation.type=process,messaging.system=nats":                   1,
		"messaging.client.sent.messages " + send: 5, "messaging.client.consumed.messages messaging.operation.name=receive,messaging.system=nats": 4,
		"nats.client.retried ": 0, "nats.client.dead_lettered ": 2, "nats.client.dropped ": 0, "nats.client.reconnects ": 0,
		"nats.client.stale_watchers ": 0, "nats.client.lost_locks ": 0,
		"nats.client.in_flight ": 0, "nats.client.queued ": 0, "nats.client.buffered ": 0,
		"nats.client.consumption.pending" + consumer: 0, "nats.client.consumption.ack_pending" + consumer: 0,
		"nats.client.consumption.redelivered" + consumer: 0, "nats.client.consumption.lag" + consumer: 0,
	}
	require.EventuallyWithT(t, func(c *assert.CollectT) { // once the server has its acknowledgements
		got := s.collect(t)
		assert.Contains(c, got, "nats.client.unconfirmed ")
		delete(got, "nats.client.unconfirmed ")
		assert.Equal(c, want, got)
	}, time.Minute, 10*time.Millisecond)

	// What the server does not say is not there, and what was counted stays.
	s.server.Stop()
	eventually(t, func() bool { return !s.IsConnected() })
	unknown := s.collect(t)
	assert.NotContains(t, unknown, "nats.client.consumption.lag"+consumer)
	assert.Contains(t, unknown, "nats.client.retried ")
	s.server.Restart()
	eventually(t, s.IsConnected)
	require.NoError(t, s.Close())
	assert.Equal(t, int64(5), s.collect(t)["messaging.client.sent.messages "+send])
}

// However many subjects there are, and whatever their inboxes are called, there are as many series.
func TestSeriesAreFew(t *testing.T) {
	t.Parallel()
	s := observed(t)
	ctx := s.orders(t)
	_, err := s.Subscribe(ctx, "users.>", func(msg *nats.Message) error {
		if msg.Reply == "" {
			return nil
		}
		return msg.Respond(nil)
	})
	require.NoError(t, err)
	_, err = s.Subscribe(ctx, s.Conn().NewInbox()+".*", func(*nats.Message) error { return errors.New("late") })
	require.NoError(t, err)
	publish := func(from, n int) int {
		for i := range n {
			require.NoError(t, s.Publish(ctx, fmt.Sprintf("users.%d", from+i), nil))
			require.NoError(t, s.PublishWithReply(ctx, fmt.Sprintf("users.%d", from+i), s.Conn().NewInbox(), nil))
			future, err := s.PublishAsync(ctx, &nats.Message{Subject: fmt.Sprintf("orders.%d", from+i)}, jetstream.WithExpectStream("ORDERS"))
			require.NoError(t, err)
			if i == n-1 {
				<-future.Ok()
			}
		}
		eventually(t, func() bool { return s.Stats().Processed == uint64(2*(from+n)) })
		s.spans.Reset()
		return len(s.collect(t))
	}
	few := publish(0, 10)
	assert.Equal(t, few, publish(10, 10_000))
	for series := range s.collect(t) {
		assert.False(t, strings.Contains(series, "users.1") || strings.Contains(series, "_INBOX.") && !strings.Contains(series, "_INBOX.>"), series)
	}
}

// Patterns are matched as the server matches them.
func TestSubjectTemplate(t *testing.T) {
	t.Parallel()
	s := observed(t, otelnats.WithSubjectTemplate("a.*.c", "b.>", "exact"))
	for subject, want := range map[string]string{
		"a.b.c": "send a.*.c", "a.b": "send", "a.b.c.d": "send", "b.c.d": "send b.>", "b": "send", "exact": "send exact", "exact.not": "send",
	} {
		require.NoError(t, s.Publish(t.Context(), subject, nil))
		assert.Equal(t, want, s.take(t, 1)[0].Name, subject)
	}
}
