package nats_test

import (
	"context"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// Upstream's options can only be read through upstream. This is what tells when that changes.
func TestPublishOptions(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{
		Name: "S", Subjects: []string{"s.>"}, AllowMsgTTL: true, AllowMsgSchedules: true, AllowRollup: true,
	})
	require.NoError(t, err)
	header := func(opts ...jetstream.PublishOpt) natsgo.Header {
		t.Helper()
		ack, err := client.PublishToStream(ctx, "s.a", nil, opts...)
		require.NoError(t, err)
		stream, err := client.GetStream(ctx, "S")
		require.NoError(t, err)
		msg, err := stream.GetMsg(ctx, ack.Sequence)
		require.NoError(t, err)
		return msg.Header
	}
	assert.Equal(t, natsgo.Header{jetstream.MsgIDHeader: {"1"}}, header(jetstream.WithMsgID("1")))
	assert.Equal(t, natsgo.Header{jetstream.MsgIDHeader: {"2"}}, header(jetstream.WithMsgID("2"),
		jetstream.WithRetryAttempts(7), jetstream.WithRetryWait(time.Hour), jetstream.WithStallWait(time.Hour)))
	assert.Equal(t, "1h0m0s", header(jetstream.WithMsgTTL(time.Hour)).Get(jetstream.MsgTTLHeader))
	assert.Equal(t, "S", header(jetstream.WithExpectStream("S")).Get(jetstream.ExpectedStreamHeader))
	assert.Equal(t, "4", header(jetstream.WithExpectLastSequence(4)).Get(jetstream.ExpectedLastSeqHeader))
	assert.Equal(t, "5", header(jetstream.WithExpectLastSequencePerSubject(5)).Get(jetstream.ExpectedLastSubjSeqHeader))
	mixed := header(jetstream.WithMsgID("3"), nats.WithHeader(jetstream.MsgRollup, jetstream.MsgRollupSubject), nats.WithHeader("X", "y"))
	assert.Equal(t, natsgo.Header{jetstream.MsgIDHeader: {"3"}, jetstream.MsgRollup: {"sub"}, "X": {"y"}}, mixed)
	assert.NotEmpty(t, header(jetstream.WithScheduleAt(time.Now().Add(time.Hour)), jetstream.WithScheduleTarget("s.b")).Get(jetstream.ScheduleHeader))

	_, err = client.PublishToStream(ctx, "s.a", nil, jetstream.WithScheduleEvery(time.Millisecond))
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	require.ErrorIs(t, err, jetstream.ErrInvalidOption)
	_, err = client.PublishToStream(ctx, "s.a", nil, jetstream.WithMsgID("4"), nats.WithHeader("a", "b\r\nNats-Rollup: all"))
	require.ErrorIs(t, err, nats.ErrInvalidHeader)
	_, err = client.JetStream().Publish(ctx, "s.a", nil, nats.WithHeader("a", "b"))
	require.ErrorContains(t, err, "nats.WithHeader")
}

// One stray Nats-Rollup in a header that came from a user purges the stream.
func TestServerCommandsInHeadersAreRefused(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, AllowRollup: true, AllowMsgTTL: true})
	require.NoError(t, err)
	for range 5 {
		_, err = client.PublishToStream(ctx, "s", nil)
		require.NoError(t, err)
	}
	for _, name := range []string{
		"Nats-Rollup", "nats-rollup", "NATS-ROLLUP", "Nats-Schedule", "Nats-Schedule-Target", "Nats-Schedule-TTL", "Nats-Batch-Id",
		"Nats-Batch-Sequence", "Nats-Batch-Commit", "Nats-Incr", "Nats-Marker-Reason", "Nats-Trace-Dest", "Nats-Trace-Only",
		"Nats-Stream-Source", "Nats-Required-Api-Level", "Nats-Not-Yet-Invented",
	} {
		msg := &nats.Message{Subject: "s", Header: natsgo.Header{name: {"all"}}}
		_, err := client.PublishMsgToStream(ctx, msg)
		require.ErrorIs(t, err, nats.ErrReservedHeader, name)
		require.ErrorContains(t, err, name)
		_, err = client.PublishAsync(ctx, msg)
		require.ErrorIs(t, err, nats.ErrReservedHeader, name)
		_, err = client.PublishBatch(ctx, []*nats.Message{{Subject: "s"}, msg})
		require.ErrorIs(t, err, nats.ErrReservedHeader, name)
		require.ErrorContains(t, err, "message 1")
		_, err = client.PublishAtomic(ctx, []*nats.Message{msg})
		require.ErrorIs(t, err, nats.ErrReservedHeader, name)
	}
	info, err := client.GetStreamInfo(ctx, "S")
	require.NoError(t, err)
	assert.EqualValues(t, 5, info.State.Msgs, "nothing was sent, the batch's first message included")

	for _, header := range []natsgo.Header{
		{"Nats-TTL": {"1h"}}, {"Nats-Expected-Stream": {"S"}}, {"Nats-Msg-Id": {"x"}}, {"Natsy": {"x"}},
		{"Nats-Stream": {"OTHER"}, "Nats-Subject": {"x"}, "Nats-Sequence": {"1"}, "Nats-Time-Stamp": {"x"}, "Nats-Last-Sequence": {"0"}},
	} {
		_, err := client.PublishMsgToStream(ctx, &nats.Message{Subject: "s", Header: header})
		require.NoError(t, err, header)
	}
	_, err = client.PublishToStream(ctx, "s", nil, nats.WithHeader("Nats-Rollup", "all"))
	require.NoError(t, err)
	info, err = client.GetStreamInfo(ctx, "S")
	require.NoError(t, err)
	assert.EqualValues(t, 1, info.State.Msgs, "on purpose it works")
}
