package otelnats

import (
	"context"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/messagingconv"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// durations makes what calls and handlers are measured with.
func (t *telemetry) durations() {
	buckets := metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
	operation, err := messagingconv.NewClientOperationDuration(t.meter, buckets)
	handle(err)
	process, err := messagingconv.NewProcessDuration(t.meter, buckets)
	handle(err)
	t.operation, t.process = operation.Inst(), process.Inst()
}

func handle(err error) {
	if err != nil {
		otel.Handle(err)
	}
}

// clients are those that are counted. What one has counted outlives it, for a total that falls would look like a start
// from nothing.
type clients struct {
	mu     sync.Mutex
	living map[*nats.Client]*time.Time // when it was stopped, which it still does something after
	totals totals                      // of those that are gone
}

// aftermath is how long after its stop a client counts no more.
const aftermath = 10 * time.Minute

// totals are what never falls.
type totals [len(counters)]int64

// counters are read from Stats.
var counters = [...]struct {
	name, unit, text string
	read             func(nats.Stats) uint64
	operation        string // an attribute of those of the conventions
}{
	{messagingconv.ClientSentMessages{}.Name(), "{message}", messagingconv.ClientSentMessages{}.Description(), func(s nats.Stats) uint64 { return s.Sent }, "send"},
	{messagingconv.ClientConsumedMessages{}.Name(), "{message}", messagingconv.ClientConsumedMessages{}.Description(), func(s nats.Stats) uint64 { return s.Received }, "receive"},
	{"nats.client.retried", "{message}", "Messages sent away to be delivered again later.", func(s nats.Stats) uint64 { return s.Retried }, ""},
	{"nats.client.dead_lettered", "{message}", "Messages stored as dead letters.", func(s nats.Stats) uint64 { return s.DeadLettered }, ""},
	{"nats.client.dropped", "{message}", "Messages thrown away because handlers were too slow.", func(s nats.Stats) uint64 { return s.Dropped }, ""},
	{"nats.client.reconnects", "{reconnect}", "Connections made anew.", func(s nats.Stats) uint64 { return s.Reconnects }, ""},
	{"nats.client.stale_watchers", "{watcher}", "Watchers and caches that may have missed an update.", func(s nats.Stats) uint64 { return s.StaleWatchers }, ""},
	{"nats.client.lost_locks", "{lock}", "Locks that ended before they were unlocked.", func(s nats.Stats) uint64 { return s.LostLocks }, ""},
}

// states go up and down. Of several clients they add up.
var states = [...]struct {
	name, unit, text string
	read             func(nats.Stats) int64
}{
	{"nats.client.in_flight", "{handler}", "Handlers that run.", func(s nats.Stats) int64 { return int64(s.InFlight) }},
	{"nats.client.queued", "{message}", "Messages received that wait for their handlers.", func(s nats.Stats) int64 { return int64(s.Pending) }},
	{"nats.client.buffered", "By", "Bytes published that are not on their way yet.", func(s nats.Stats) int64 { return int64(s.Buffered) }},
	{"nats.client.unconfirmed", "By", "Bytes published that an outage now could cost.", func(s nats.Stats) int64 { return int64(s.Unconfirmed) }},
}

// start implements nats.WithStart.
func (t *telemetry) start(client *nats.Client) (stop func()) {
	if prefix := client.Config().InboxPrefix + "."; t.inbox(prefix) == "" {
		t.mu.Lock()
		t.inboxes = append(t.inboxes, prefix)
		t.mu.Unlock()
	}
	t.clients.mu.Lock()
	defer t.clients.mu.Unlock()
	if t.clients.living == nil {
		t.clients.living = make(map[*nats.Client]*time.Time)
		handle(contained(t.observe))
	}
	t.clients.living[client] = nil
	return func() {
		now := time.Now()
		t.clients.mu.Lock()
		defer t.clients.mu.Unlock()
		t.clients.living[client] = &now
	}
}

// sum adds up what the clients say, and returns those that are not closed.
func (c *clients) sum() (sum totals, now [len(states)]int64, open []*nats.Client) {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum = c.totals
	for client, stopped := range c.living {
		s := client.Stats()
		gone := stopped != nil && time.Since(*stopped) > aftermath
		for i, counter := range counters {
			n := int64(counter.read(s))
			if sum[i] += n; gone {
				c.totals[i] += n
			}
		}
		for i, state := range states {
			now[i] += state.read(s)
		}
		if gone {
			delete(c.living, client)
		} else if stopped == nil {
			open = append(open, client)
		}
	}
	return sum, now, open
}

// observe lets the meter read what there is, when it is collected.
func (t *telemetry) observe() {
	var all []metric.Observable
	var counted [len(counters)]metric.Int64ObservableCounter
	for i, c := range counters {
		inst, err := t.meter.Int64ObservableCounter(c.name, metric.WithUnit(c.unit), metric.WithDescription(c.text))
		handle(err)
		counted[i], all = inst, append(all, inst)
	}
	var present [len(states)]metric.Int64ObservableUpDownCounter
	for i, s := range states {
		inst, err := t.meter.Int64ObservableUpDownCounter(s.name, metric.WithUnit(s.unit), metric.WithDescription(s.text))
		handle(err)
		present[i], all = inst, append(all, inst)
	}
	consumers, more := t.consumerGauges()
	_, err := t.meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		sum, now, open := t.clients.sum()
		for i, c := range counters {
			var attrs []attribute.KeyValue
			if c.operation != "" {
				attrs = []attribute.KeyValue{system, semconv.MessagingOperationName(c.operation)}
			}
			o.ObserveInt64(counted[i], sum[i], metric.WithAttributes(attrs...))
		}
		for i := range states {
			o.ObserveInt64(present[i], now[i])
		}
		consumers.observe(ctx, o, open)
		return nil
	}, append(all, more...)...)
	handle(err)
}
