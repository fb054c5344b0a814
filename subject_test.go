package nats_test

import (
	"context"
	"strings"
	"testing"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// badSubjects are refused everywhere, with a text that contains the reason.
var badSubjects = map[string]string{
	"":             "it is empty",
	".":            "empty token",
	"foo.":         "empty token",
	".foo":         "empty token",
	"foo..bar":     "empty token",
	"a b":          "space or control character",
	"a\tb":         "space or control character",
	"a\r\nPUB x 0": "space or control character",
	"a\x00b":       "space or control character",
	"a\x7fb":       "space or control character",
	"foo.>.bar":    "must be the last token",
	"foo*":         "tokens of their own",
	"foo.*bar":     "tokens of their own",
	"foo>":         "tokens of their own",
	"**":           "tokens of their own",
	"foo.>>":       "tokens of their own",
}

// Upstream accepts "foo*", "foo.>.bar" and publishing to wildcards, and drops the message.
func TestSubjectsAreRefusedBeforeSending(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	client := connect(t, s, nil)
	ctx := context.Background()
	handler := func(*nats.Message) error { return nil }
	before := client.Stats()
	for subject, reason := range badSubjects {
		calls := map[string]error{
			"publish":      client.Publish(ctx, subject, nil),
			"publish msg":  client.PublishMsg(ctx, &nats.Message{Subject: subject}),
			"publish JSON": client.PublishJSON(ctx, subject, nil),
		}
		if subject != "" { // no reply is a plain publish
			calls["reply"] = client.PublishWithReply(ctx, "ok", subject, nil)
		}
		_, calls["subscribe"] = client.Subscribe(ctx, subject, handler)
		_, calls["queue subscribe"] = client.QueueSubscribe(ctx, subject, "q", handler)
		_, calls["queue"] = client.QueueSubscribe(ctx, "ok", subject, handler)
		_, calls["request"] = client.Request(ctx, subject, nil, 0)
		_, calls["to stream"] = client.PublishToStream(ctx, subject, nil)
		_, calls["stream"] = client.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"ok", subject}})
		if subject != "" {
			_, calls["filter"] = client.CreateConsumer(ctx, "S", &jetstream.ConsumerConfig{FilterSubject: subject})
		}
		for call, err := range calls {
			require.ErrorIs(t, err, nats.ErrInvalidSubject, "%s %q", call, subject)
			if !strings.Contains(err.Error(), "wildcards are for subscriptions") { // also true of some
				assert.ErrorContains(t, err, reason, "%s %q", call, subject)
			}
		}
	}
	for _, subject := range []string{"*", ">", "foo.*", "foo.>", "*.bar"} {
		require.ErrorIs(t, client.Publish(ctx, subject, nil), nats.ErrInvalidSubject, subject)
		_, err := client.Request(ctx, subject, nil, 0)
		require.ErrorIs(t, err, nats.ErrInvalidSubject, subject)
		sub, err := client.Subscribe(ctx, subject, handler)
		require.NoError(t, err, subject)
		require.NoError(t, sub.Unsubscribe())
	}
	assert.Equal(t, before.OutMsgs, client.Stats().OutMsgs, "nothing was sent")

	nc := raw(t, s)
	require.NoError(t, nc.Publish("foo.*", nil), "upstream accepts it, and the message is gone")
	_, err := nc.SubscribeSync("foo.>.bar")
	require.NoError(t, err, "upstream accepts it, and it never matches")
}

func TestHeadersAreCheckedBeforeSending(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	for name, header := range map[string]natsgo.Header{
		"no name":       {"": {"v"}},
		"colon":         {"a:b": {"v"}},
		"space":         {"a b": {"v"}},
		"break in name": {"a\r\nb": {"v"}},
		"CR":            {"a": {"v\rw"}},
		"LF":            {"a": {"ok", "v\nNats-Rollup: all"}},
		"not ASCII":     {"ä": {"v"}},
	} {
		msg := &nats.Message{Subject: "x", Header: header}
		require.ErrorIs(t, client.PublishMsg(ctx, msg), nats.ErrInvalidHeader, name)
		_, err := client.RequestMsg(ctx, msg, 0)
		require.ErrorIs(t, err, nats.ErrInvalidHeader, name)
		_, err = client.PublishMsgToStream(ctx, msg)
		require.ErrorIs(t, err, nats.ErrInvalidHeader, name)
	}
}
