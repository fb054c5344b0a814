package nats_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// An event is printed with what applies, and with its cause.
func TestEventIsPrintedWhole(t *testing.T) {
	t.Parallel()
	e := nats.Event{
		Type: nats.EventDeadLetter, Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Server: "nats://a:4222",
		Subject: "orders.new", Stream: "ORDERS", Consumer: "billing", Sequence: 7, Deliveries: 3, Err: errors.New("no such account"),
	}
	const want = `{"consumer":"billing","deliveries":3,"error":"no such account","sequence":7,"server":"nats://a:4222",` +
		`"stream":"ORDERS","subject":"orders.new","time":"2026-01-02T03:04:05Z","type":"dead_letter"}`
	data, err := json.Marshal(e)
	require.NoError(t, err)
	assert.JSONEq(t, want, string(data))
	data, err = json.Marshal(&e)
	require.NoError(t, err)
	assert.JSONEq(t, want, string(data))

	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("event", "event", e)
	var line struct{ Event json.RawMessage }
	require.NoError(t, json.Unmarshal(log.Bytes(), &line))
	assert.JSONEq(t, want, string(line.Event))

	data, err = json.Marshal(nats.Event{Type: nats.EventClosed})
	require.NoError(t, err)
	assert.JSONEq(t, `{"type":"closed"}`, string(data))
}

// jsonLog returns the lines of a JSON log.
func jsonLog(t *testing.T, text string) (lines []map[string]any) {
	t.Helper()
	for line := range strings.Lines(text) {
		var fields map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &fields))
		lines = append(lines, fields)
	}
	return lines
}

// Whoever looks for a message in the log finds it by stream, consumer and sequence, or by subject, and
// reads how often it was tried and when it will be again.
func TestLogLinesAboutMessages(t *testing.T) {
	t.Parallel()
	var log logBuffer
	var events eventLog
	client := connect(t, natstest.RunServer(t), nil, nats.WithEventHandler(events.handle),
		nats.WithLogger(slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
	newStream(t, client, 3)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", AckWait: time.Minute})
	consumption := consume(t, client, func(msg *nats.Message) error {
		switch string(msg.Data) {
		case "0":
			return errPoison
		case "1":
			_ = msg.Ack()
			return errPoison
		}
		panic("no two")
	}, nats.WithBackoff(30*time.Millisecond), nats.WithMaxDeliver(2))
	_, err := client.QueueSubscribe(context.Background(), "core", "q", func(*nats.Message) error { return errPoison })
	require.NoError(t, err)
	require.NoError(t, client.Publish(context.Background(), "core", nil))
	eventually(t, "two dead letters", func() bool { return consumption.Stats().DeadLettered == 2 })
	idle(t, client)
	eventually(t, "the events", func() bool { return len(events.of(nats.EventHandlerError)) == 6 })
	require.NoError(t, client.Close())

	var about []string
	for _, line := range jsonLog(t, log.String()) {
		errText, isText := line["error"].(string)
		_, there := line["error"]
		assert.Equal(t, there, isText && errText != "", "%v", line)
		if line["msg"] == "closed" {
			assert.NotEmpty(t, line["server"])
		}
		if line["subject"] == "core" {
			assert.Equal(t, "q", line["queue"])
			continue
		}
		if line["subject"] == nil {
			continue
		}
		assert.NotContains(t, line, "queue")
		assert.Equal(t, "ORDERS", line["stream"])
		assert.Equal(t, "worker", line["consumer"])
		next, _ := line["next_try"].(string)
		if rest, timed := strings.CutPrefix(next, "after "); timed {
			_, err := time.ParseDuration(rest)
			require.NoError(t, err)
			next = "after"
		}
		about = append(about, fmt.Sprint(line["msg"], " ", line["sequence"], " ", line["delivery"], " ", next))
	}
	assert.ElementsMatch(t, []string{
		"message handler failed 1 1 after", "message handler failed 1 2 none", "message moved to the dead letters 1 2 none",
		"message handler failed 2 1 as the handler has acknowledged it",
		"message handler failed 3 1 after", "message handler failed 3 2 none", "message moved to the dead letters 3 2 none",
	}, about)
	for _, e := range events.of(nats.EventHandlerError) {
		if e.Subject != "core" {
			assert.Equal(t, "ORDERS/worker", e.Stream+"/"+e.Consumer)
			assert.Empty(t, e.Queue)
			assert.True(t, e.Sequence > 0 && e.Deliveries > 0, "%+v", e)
		}
	}
}
