package nats_test

import (
	"context"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// telemetry is what a module for traces and metrics is made of, against the exported API alone: spans that parents reach
// over the wire, counters that are read from the client, and events.
type telemetry struct {
	mu       sync.Mutex
	spans    []*span
	counters map[string]uint64
	events   map[nats.EventType]int
}

type span struct {
	id, parent    int
	name, outcome string
}

type spanKey struct{}

const traceHeader = "Trace-Parent"

func newTelemetry() *telemetry {
	return &telemetry{counters: make(map[string]uint64), events: make(map[nats.EventType]int)}
}

// option adds all of it to a client.
func (t *telemetry) option() nats.Option {
	return nats.WithOptions(
		nats.WithInterceptor(nats.Interceptor{Publish: t.publish, Stored: t.stored, Request: t.request, Handle: t.handle}),
		nats.WithEventHandler(t.event),
		nats.WithStart(t.start),
	)
}

func (t *telemetry) begin(ctx context.Context, name string) (context.Context, *span) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := &span{id: len(t.spans) + 1, name: name}
	if parent, ok := ctx.Value(spanKey{}).(*span); ok {
		s.parent = parent.id
	}
	t.spans = append(t.spans, s)
	return context.WithValue(ctx, spanKey{}, s), s
}

func (t *telemetry) end(s *span, outcome any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.outcome += fmt.Sprint(outcome, ";")
}

func (t *telemetry) publish(ctx context.Context, msg *nats.Message, next func(context.Context, *nats.Message) error) error {
	if strings.HasPrefix(msg.Subject, "_INBOX.") { // an answer
		return next(ctx, msg)
	}
	ctx, s := t.begin(ctx, "publish "+msg.Subject)
	msg.Header.Set(traceHeader, strconv.Itoa(s.id))
	err := next(ctx, msg)
	t.end(s, err)
	return err
}

func (t *telemetry) stored(ctx context.Context, _ *nats.Message, ack *jetstream.PubAck, err error) {
	if s, ok := ctx.Value(spanKey{}).(*span); ok && err == nil {
		t.end(s, fmt.Sprintf("%s/%d", ack.Stream, ack.Sequence))
	}
}

func (t *telemetry) request(ctx context.Context, msg *nats.Message, next func(context.Context, *nats.Message) (*nats.Message, error)) (*nats.Message, error) {
	ctx, s := t.begin(ctx, "request "+msg.Subject)
	msg.Header.Set(traceHeader, strconv.Itoa(s.id))
	answer, err := next(ctx, msg)
	t.end(s, err)
	return answer, err
}

func (t *telemetry) handle(msg *nats.Message, next nats.Handler) error {
	ctx, s := t.begin(msg.Context(), "handle "+msg.Pattern())
	s.parent, _ = strconv.Atoi(msg.Header.Get(traceHeader))
	err := next(msg.WithContext(ctx))
	t.end(s, err)
	return err
}

func (t *telemetry) event(e nats.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.events[e.Type]++
}

// start reads the counters now and then, and once more at the end.
func (t *telemetry) start(client *nats.Client) (stop func()) {
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			t.read(client)
			select {
			case <-tick.C:
			case <-over:
				t.read(client)
				return
			}
		}
	}()
	return func() {
		close(over)
		<-ended
	}
}

func (t *telemetry) read(client *nats.Client) {
	stats := client.Stats()
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, field := range reflect.VisibleFields(reflect.TypeOf(stats)) {
		if value := reflect.ValueOf(stats).FieldByIndex(field.Index); value.CanUint() {
			t.counters[field.Name] = value.Uint()
		}
	}
	for c := range client.Consumptions() {
		t.counters["handled of "+c.Stream()+"/"+c.Consumer()] = c.Stats().Handled
	}
}

// A module that is built against the exported API alone follows a message over every path, and counts what happens.
func TestTelemetryModule(t *testing.T) {
	t.Parallel()
	telemetry := newTelemetry()
	client := connect(t, natstest.RunServer(t), nil, telemetry.option())
	ctx := within(t, time.Minute)
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}})
	require.NoError(t, err)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "worker", FilterSubject: "orders.*"})
	consume(t, client, func(msg *nats.Message) error {
		_, err := client.Request(msg.Context(), "price", nil, 0)
		return err
	})
	_, err = client.HandleRequests(ctx, "price", "", func(msg *nats.Message) ([]byte, error) {
		return nil, client.Publish(msg.Context(), "audit", nil)
	})
	require.NoError(t, err)
	future, err := client.PublishAsync(ctx, &nats.Message{Subject: "orders.1"})
	require.NoError(t, err)
	<-future.Ok()
	eventually(t, "the consumption is counted", func() bool {
		telemetry.mu.Lock()
		defer telemetry.mu.Unlock()
		return telemetry.counters["handled of ORDERS/worker"] == 1
	})
	require.NoError(t, client.Close())

	telemetry.mu.Lock()
	defer telemetry.mu.Unlock()
	spans := make([]span, len(telemetry.spans))
	for i, s := range telemetry.spans {
		spans[i] = *s
	}
	outcome := spans[0].outcome // of what is stored and handed back at the same time
	spans[0].outcome = ""
	assert.Contains(t, outcome, "ORDERS/1;")
	assert.Equal(t, []span{
		{1, 0, "publish orders.1", ""},
		{2, 1, "handle orders.*", "<nil>;"},
		{3, 2, "request price", "<nil>;"},
		{4, 3, "handle price", "<nil>;"},
		{5, 4, "publish audit", "<nil>;"},
	}, spans)
	for counter, want := range map[string]uint64{"Sent": 4, "Received": 3, "Processed": 2, "Failed": 0} {
		assert.Equal(t, want, telemetry.counters[counter], counter)
	}
	assert.Equal(t, 1, telemetry.events[nats.EventConnected])
}
