package otelnats_test

import (
	"slices"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/otelnats"
)

// isChild asserts that a span was begun by another one.
func isChild(t *testing.T, parent, child tracetest.SpanStub) {
	t.Helper()
	assert.Equal(t, parent.SpanContext.TraceID(), child.SpanContext.TraceID(), "%s and %s", parent.Name, child.Name)
	assert.Equal(t, parent.SpanContext.SpanID(), child.Parent.SpanID(), "%s and %s", parent.Name, child.Name)
}

// isLinked asserts that a span begins a trace, with a link to another one.
func isLinked(t *testing.T, to, span tracetest.SpanStub) {
	t.Helper()
	assert.False(t, span.Parent.IsValid(), span.Name)
	assert.NotEqual(t, to.SpanContext.TraceID(), span.SpanContext.TraceID(), span.Name)
	if assert.Len(t, span.Links, 1, span.Name) {
		assert.Equal(t, to.SpanContext.SpanID(), span.Links[0].SpanContext.SpanID(), span.Name)
	}
}

// A message that is stored and handled, and what its handler does, are one trace; the second try belongs to it.
func TestSpansOfAStream(t *testing.T) {
	t.Parallel()
	s := observed(t)
	ctx := s.orders(t)
	_, err := s.PublishToStream(ctx, "orders.4711", []byte("12345"), jetstream.WithMsgID("first"))
	require.NoError(t, err)
	tries := 0
	s.consume(t, func(msg *nats.Message) error {
		if tries++; tries == 1 {
			return errPoison
		}
		return s.Publish(msg.Context(), "audit", nil)
	}, nats.WithBackoff(time.Millisecond))
	spans := s.take(t, 4)
	sent, failed, handled, audit := spans[0], spans[1], spans[2], spans[3]
	isChild(t, sent, failed)
	isChild(t, sent, handled)
	isChild(t, handled, audit)

	assert.Equal(t, []string{"send orders.*", "process orders.*", "process orders.*", "send"},
		[]string{sent.Name, failed.Name, handled.Name, audit.Name})
	assert.Equal(t, []trace.SpanKind{trace.SpanKindProducer, trace.SpanKindConsumer}, []trace.SpanKind{sent.SpanKind, handled.SpanKind})
	assert.Equal(t, map[string]string{
		"messaging.system": "nats", "messaging.operation.name": "send", "messaging.operation.type": "send",
		"messaging.destination.template": "orders.*", "messaging.message.id": "first", "messaging.message.body.size": "5",
	}, attrs(sent))
	want := map[string]string{
		"messaging.system": "nats", "messaging.operation.name": "process", "messaging.operation.type": "process",
		"messaging.destination.template": "orders.*", "messaging.message.id": "first", "messaging.message.body.size": "5",
		"messaging.consumer.group.name": "worker", "messaging.nats.message.delivery_count": "2",
	}
	assert.Equal(t, want, attrs(handled))
	want["messaging.nats.message.delivery_count"], want["error.type"] = "1", "_OTHER"
	assert.Equal(t, want, attrs(failed))
	assert.Equal(t, codes.Error, failed.Status.Code)
	assert.Equal(t, codes.Unset, handled.Status.Code)
}

// A request is one span on either side. Its answer has none, and who subscribed is not the parent of what comes.
func TestSpansOfARequest(t *testing.T) {
	t.Parallel()
	s := observed(t)
	ctx := within(t)
	starting := trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}}))
	_, err := s.HandleRequests(starting, "price.*", "pricers", func(*nats.Message) ([]byte, error) { return []byte("30"), nil })
	require.NoError(t, err)
	_, err = s.Request(ctx, "price.4711", nil, 0)
	require.NoError(t, err)
	spans := s.take(t, 2)
	isChild(t, spans[0], spans[1])
	assert.Equal(t, []string{"request", "process price.*"}, []string{spans[0].Name, spans[1].Name})
	assert.Equal(t, []trace.SpanKind{trace.SpanKindClient, trace.SpanKindServer}, []trace.SpanKind{spans[0].SpanKind, spans[1].SpanKind})
	assert.Equal(t, "pricers", attrs(spans[1])["messaging.consumer.group.name"])

	_, err = s.Request(ctx, "nobody", nil, 0)
	require.ErrorIs(t, err, nats.ErrNoResponders)
	assert.Equal(t, "unavailable", attrs(s.take(t, 1)[0])["error.type"])

	for _, err := range s.RequestMany(ctx, "price.1", nil, nats.WithMaxReplies(1)) {
		require.NoError(t, err)
	}
	spans = s.take(t, 2)
	isChild(t, spans[0], spans[1])
	assert.Equal(t, trace.SpanKindClient, spans[0].SpanKind)

	// Without a publisher's context a message begins a trace, and not that of who subscribed.
	require.NoError(t, s.Conn().Publish("price.1", nil))
	plain := s.take(t, 1)[0]
	assert.False(t, plain.Parent.IsValid())
	assert.NotEqual(t, trace.TraceID{1}, plain.SpanContext.TraceID())
	assert.Equal(t, trace.SpanKindConsumer, plain.SpanKind)
}

// What is stored in the background is created, and sent until it is stored or refused.
func TestSpansOfBatches(t *testing.T) {
	t.Parallel()
	s := observed(t)
	ctx := s.orders(t)
	_, err := s.PublishBatch(ctx, []*nats.Message{{Subject: "orders.1"}})
	require.NoError(t, err)
	_, err = s.PublishAtomic(ctx, []*nats.Message{{Subject: "orders.1"}})
	require.NoError(t, err)
	future, err := s.PublishAsync(ctx, &nats.Message{Subject: "orders.1"}, jetstream.WithExpectLastSequence(4711))
	require.NoError(t, err)
	require.ErrorIs(t, <-future.Err(), nats.ErrConflict)
	spans := s.take(t, 6)
	for i := 0; i < 6; i += 2 {
		created, sent := spans[i], spans[i+1]
		assert.Equal(t, []string{"create orders.*", "send orders.*"}, []string{created.Name, sent.Name})
		assert.Equal(t, []trace.SpanKind{trace.SpanKindProducer, trace.SpanKindClient}, []trace.SpanKind{created.SpanKind, sent.SpanKind})
		isLinked(t, created, sent)
	}
	assert.Equal(t, codes.Unset, spans[3].Status.Code)
	assert.Equal(t, "aborted", attrs(spans[5])["error.type"])
	s.consume(t, func(*nats.Message) error { return nil })
	for i, handled := range s.take(t, 2) {
		isChild(t, spans[2*i], handled)
	}
}

// A dead letter follows from its last delivery, and its replay begins a trace that knows where it comes from.
func TestSpansOfDeadLetters(t *testing.T) {
	t.Parallel()
	s := observed(t, otelnats.WithSubjectTemplate("dlq.ORDERS.worker"))
	ctx := s.orders(t)
	_, err := s.PublishToStream(ctx, "orders.1", nil)
	require.NoError(t, err)
	handled := 0
	s.consume(t, func(*nats.Message) error {
		if handled++; handled < 3 {
			return errPoison
		}
		return nil
	}, nats.WithMaxDeliver(2), nats.WithBackoff(time.Millisecond))
	spans := s.take(t, 4)
	sent, last, dead := spans[0], spans[2], spans[3]
	assert.Equal(t, "send dlq.ORDERS.worker", dead.Name)
	isChild(t, last, dead)
	require.Len(t, dead.Links, 1)
	assert.Equal(t, last.SpanContext.SpanID(), dead.Links[0].SpanContext.SpanID())
	letter, err := s.GetMessage(ctx, "ORDERS_DLQ", 1)
	require.NoError(t, err)
	assert.Contains(t, letter.Header.Get("traceparent"), sent.SpanContext.SpanID().String(), "its headers are the message's")

	_, err = s.ReplayDeadLetters(ctx, "ORDERS")
	require.NoError(t, err)
	spans = s.take(t, 2)
	isLinked(t, sent, spans[0])
	isChild(t, spans[0], spans[1])
}

// What waited for long is no part of the trace of its publisher.
func TestSpansAreLinkedAfter(t *testing.T) {
	t.Parallel()
	s := observed(t, otelnats.WithLinkAfter(0))
	ctx := s.orders(t)
	_, err := s.PublishToStream(ctx, "orders.1", nil)
	require.NoError(t, err)
	s.consume(t, func(*nats.Message) error { return nil })
	spans := s.take(t, 2)
	isLinked(t, spans[0], spans[1])
}

// A context that was put into the headers elsewhere is that of the message; a stale one of the same trace is not.
func TestSpansOfForwardedMessages(t *testing.T) {
	t.Parallel()
	s := observed(t)
	ctx := s.orders(t)
	const elsewhere = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	_, err := s.PublishMsgToStream(ctx, &nats.Message{Subject: "orders.1", Header: natsgo.Header{"Traceparent": {elsewhere}}})
	require.NoError(t, err)
	s.consume(t, func(msg *nats.Message) error {
		if msg.Subject == "orders.2" {
			return nil
		}
		_, err := s.PublishMsgToStream(msg.Context(), &nats.Message{Subject: "orders.2", Header: natsgo.Header{"Traceparent": msg.Header["Traceparent"]}})
		return err
	})
	spans := s.take(t, 4)
	relayed, handled, forwarded, again := spans[0], spans[1], spans[2], spans[3]
	require.Len(t, relayed.Links, 1)
	assert.Equal(t, "b7ad6b7169203331", relayed.Links[0].SpanContext.SpanID().String())
	assert.Equal(t, "b7ad6b7169203331", handled.Parent.SpanID().String())
	isChild(t, handled, forwarded)
	isChild(t, forwarded, again)
}

// Who pulls and ranges begins the spans, with what the client was given.
func TestStart(t *testing.T) {
	t.Parallel()
	s := observed(t)
	ctx := s.orders(t)
	member, err := baggage.NewMember("tenant", "isa")
	require.NoError(t, err)
	bag, err := baggage.New(member)
	require.NoError(t, err)
	_, err = s.PublishToStream(baggage.ContextWithBaggage(ctx, bag), "orders.1", []byte("1"))
	require.NoError(t, err)
	_, err = s.CreateConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{Name: "puller"})
	require.NoError(t, err)
	pulled, err := s.PullMessages(ctx, "ORDERS", "puller", 1)
	require.NoError(t, err)
	inner, span := otelnats.Start(pulled[0], "pack")
	assert.Equal(t, "isa", baggage.FromContext(inner).Member("tenant").Value())
	require.NoError(t, s.Publish(inner, "orders.2", nil))
	span.End()
	for msg, err := range s.ReadStream(ctx, "ORDERS") {
		require.NoError(t, err)
		_, span := otelnats.Start(msg, "")
		span.End()
		break
	}
	spans := s.take(t, 4)
	assert.Equal(t, []string{"send orders.*", "pack orders.*", "send orders.*", "process orders.*"},
		[]string{spans[0].Name, spans[1].Name, spans[2].Name, spans[3].Name})
	isChild(t, spans[0], spans[1])
	isChild(t, spans[1], spans[2])
	isChild(t, spans[0], spans[3])
	assert.Equal(t, "puller", attrs(spans[1])["messaging.consumer.group.name"])

	ctx, span = otelnats.Start(&nats.Message{Subject: "made"}, "test")
	assert.NotNil(t, ctx)
	span.End()
	_, span = otelnats.Start(nil, "")
	span.End()
	require.Empty(t, s.spans.GetSpans())
}

// What is pulled, and how messages are settled: by who has pulled them, by a handler, and for it.
func TestSpansOfReceiveAndSettle(t *testing.T) {
	t.Parallel()
	s := observed(t)
	ctx := s.orders(t)
	everything := func(string) bool { return true }
	_, err := s.CreateConsumer(ctx, "ORDERS", &jetstream.ConsumerConfig{Name: "puller"})
	require.NoError(t, err)
	_, err = s.PublishBatch(ctx, []*nats.Message{{Subject: "orders.1"}, {Subject: "orders.2"}})
	require.NoError(t, err)
	created := s.take(t, 4)
	calling, call := sdktrace.NewTracerProvider().Tracer("").Start(ctx, "call")
	pulled, err := s.PullMessages(calling, "ORDERS", "puller", 2)
	require.NoError(t, err)
	require.NoError(t, s.AckMessage(ctx, pulled[0]))
	require.NoError(t, pulled[1].NakWithDelay(time.Hour))
	_, err = s.PullMessages(ctx, "ORDERS", "nobody", 1)
	require.ErrorIs(t, err, nats.ErrConsumerNotFound)
	spans := s.takeOf(t, 4, everything)
	slices.SortStableFunc(spans, func(a, b tracetest.SpanStub) int { return a.EndTime.Compare(b.EndTime) })
	names := make([]string, 0, len(spans))
	for _, span := range spans {
		assert.Equal(t, trace.SpanKindClient, span.SpanKind, span.Name)
		names = append(names, span.Name)
	}
	require.Equal(t, []string{"receive orders.*", "ack orders.*", "nak orders.*", "receive"}, names)
	received, acked, naked, failed := spans[0], spans[1], spans[2], spans[3]
	assert.Equal(t, call.SpanContext().SpanID(), received.Parent.SpanID())
	require.Len(t, received.Links, 2)
	assert.Equal(t, created[0].SpanContext.SpanID(), received.Links[0].SpanContext.SpanID())
	assert.Equal(t, map[string]string{
		"messaging.system": "nats", "messaging.operation.name": "receive", "messaging.operation.type": "receive",
		"messaging.destination.template": "orders.*", "messaging.consumer.group.name": "puller", "messaging.batch.message_count": "2",
	}, attrs(received))
	isChild(t, created[0], acked)
	isChild(t, created[2], naked)
	assert.Equal(t, map[string]string{
		"messaging.system": "nats", "messaging.operation.name": "ack", "messaging.operation.type": "settle",
		"messaging.destination.template": "orders.*", "messaging.consumer.group.name": "puller",
		"messaging.message.id": attrs(created[0])["messaging.message.id"], "messaging.message.body.size": "0",
		"messaging.nats.message.delivery_count": "1",
	}, attrs(acked))
	assert.True(t, acked.EndTime.After(acked.StartTime), "the server's word was waited for")
	assert.Equal(t, "not_found", attrs(failed)["error.type"])

	s.consume(t, func(msg *nats.Message) error {
		if msg.Subject == "orders.1" {
			return msg.Term("poison")
		}
		return nil
	})
	spans = s.takeOf(t, 4, everything)
	byName := map[string]tracetest.SpanStub{}
	for _, span := range spans {
		byName[span.Name+attrs(span)["messaging.message.id"]] = span
	}
	first, second := attrs(created[0])["messaging.message.id"], attrs(created[2])["messaging.message.id"]
	isChild(t, byName["process orders.*"+first], byName["term orders.*"+first])
	isChild(t, created[2], byName["ack orders.*"+second])
	points := s.collect(t)
	for _, operation := range []string{"name=ack,messaging.operation.type=settle", "name=receive,messaging.operation.type=receive"} {
		assert.Equal(t, int64(1), points["messaging.client.operation.duration messaging.consumer.group.name=puller,"+
			"messaging.destination.template=orders.*,messaging.operation."+operation+",messaging.system=nats"], operation)
	}
	assert.Equal(t, int64(4), points["messaging.client.consumed.messages messaging.operation.name=receive,messaging.system=nats"])
}

// A handler that panics ends its span.
func TestSpanOfAPanic(t *testing.T) {
	t.Parallel()
	s := observed(t)
	ctx := within(t)
	_, err := s.Subscribe(ctx, "a", func(*nats.Message) error { panic("poison") })
	require.NoError(t, err)
	require.NoError(t, s.Publish(ctx, "a", nil))
	assert.Equal(t, "internal", attrs(s.take(t, 2)[1])["error.type"])
}
