package nats

import (
	"encoding/json"
	"log/slog"
	"reflect"
	"slices"
	"time"
)

// EventType sorts events.
type EventType string

// The events of a client.
const (
	// EventConnected: the first connection stands.
	EventConnected EventType = "connected"
	// EventDisconnected: the connection broke; Err is the cause when it is known.
	EventDisconnected EventType = "disconnected"
	// EventReconnected: a connection stands again; Gap is for how long none did.
	EventReconnected EventType = "reconnected"
	// EventClosed: the connection is closed for good, by Close or because the attempts to
	// reconnect are used up; then Err says so.
	EventClosed EventType = "closed"
	// EventLameDuck: the server is about to shut down and asks its clients to leave.
	EventLameDuck EventType = "lame_duck"
	// EventReconnectFailed: an attempt to connect again failed; Err is why. It comes once for each
	// reason in an outage.
	EventReconnectFailed EventType = "reconnect_failed"
	// EventServersChanged: discovery names other servers.
	EventServersChanged EventType = "servers_changed"
	// EventServersFallback: service discovery failed and the configured URLs are used; Err is why.
	EventServersFallback EventType = "servers_fallback"
	// EventSlowConsumer: a subscription dropped messages; Subject and Queue name it, and Messages is
	// how many since the last such event. It comes when the dropping begins and, with the rest, when
	// it is over.
	EventSlowConsumer EventType = "slow_consumer"
	// EventHandlerError: a handler returned an error or panicked.
	EventHandlerError EventType = "handler_error"
	// EventDeadLetter: a message went to the dead letters; Err is why, Subject is its own.
	EventDeadLetter EventType = "dead_letter"
	// EventUnconfirmedAck: the server did not confirm an acknowledgement, so the message may be
	// delivered again.
	EventUnconfirmedAck EventType = "unconfirmed_ack"
	// EventConsumerUnavailable: a Consumption gets nothing from its consumer; Err is why.
	EventConsumerUnavailable EventType = "consumer_unavailable"
	// EventConsumerAvailable: it gets messages again.
	EventConsumerAvailable EventType = "consumer_available"
	// EventRetriesCrowd: more than half of a consumer's MaxAckPending waits for its next try, or seems
	// to: the server tells how many in all, not which. Err says what helps.
	EventRetriesCrowd EventType = "retries_crowd"
	// EventRetriesLeft: a retry stream holds messages that a Consume without WithRetryStream handles now;
	// Messages is how many.
	EventRetriesLeft EventType = "retries_left"
	// EventWatchStale: watched keys may have updates that their watcher or cache does not know of;
	// Subject is the bucket and the filters, and Err is why when it is known.
	EventWatchStale EventType = "watch_stale"
	// EventWatchFresh: the watcher or cache knows every update again.
	EventWatchFresh EventType = "watch_fresh"
	// EventLeadershipLost: a leader elected by Elect lost its leadership while it ran; Subject is the
	// bucket and the key, and Err is why.
	EventLeadershipLost EventType = "leadership_lost"
	// EventAsyncError: an error that no call could return, such as a publish that the server denied.
	EventAsyncError EventType = "async_error"
)

// Event is something that happened to the client beside its calls. Fields that do not apply are
// zero.
type Event struct {
	Type    EventType
	Time    time.Time
	Server  string // the server's URL, without credentials
	Subject string
	Queue   string
	// Stream and Consumer name a Consumption; Sequence, in the stream, and Deliveries tell of its message.
	Stream     string
	Consumer   string
	Sequence   uint64
	Deliveries int
	Err        error
	// Gap is for how long, as far as the client knows, nothing was received before EventReconnected:
	// the messages of that time are missed by subscriptions that are no members of a queue group with
	// another one elsewhere.
	Gap time.Duration
	// Bytes of payload and headers that a disconnect may have lost, at most.
	Bytes uint64
	// Messages that a slow consumer dropped since the last such event of its subscription, or that a retry
	// stream holds.
	Messages uint64
	// Dropped is how many events were lost before this one because the handler was too slow.
	Dropped int
}

// LogValue is the event as a group of those of its fields that apply.
func (e Event) LogValue() slog.Value {
	attrs := []slog.Attr{
		slog.String("type", string(e.Type)), slog.Time("time", e.Time), slog.String("server", e.Server),
		slog.String("subject", e.Subject), slog.String("queue", e.Queue),
		slog.String("stream", e.Stream), slog.String("consumer", e.Consumer),
		slog.Uint64("sequence", e.Sequence), slog.Int("deliveries", e.Deliveries),
		slog.Duration("gap", e.Gap), slog.Uint64("bytes", e.Bytes), slog.Uint64("messages", e.Messages), slog.Int("dropped", e.Dropped),
	}
	if e.Err != nil {
		attrs = append(attrs, slog.String("error", e.Err.Error()))
	}
	doesNotApply := func(a slog.Attr) bool { return reflect.ValueOf(a.Value.Any()).IsZero() }
	return slog.GroupValue(slices.DeleteFunc(attrs, doesNotApply)...)
}

// MarshalJSON is LogValue in JSON; Err is its text.
func (e Event) MarshalJSON() ([]byte, error) {
	fields := make(map[string]any)
	for _, a := range e.LogValue().Group() {
		fields[a.Key] = a.Value.Any()
	}
	return json.Marshal(fields)
}
