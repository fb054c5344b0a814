package nats_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

func TestGetMessage(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	newStream(t, client, 0)
	sent := &nats.Message{Subject: "orders.created", Header: natsgo.Header{"Key": {"value"}}, Data: []byte("one")}
	_, err := client.PublishMsgToStream(ctx, sent)
	require.NoError(t, err)
	got, err := client.GetMessage(ctx, "ORDERS", 1)
	require.NoError(t, err)
	assert.Equal(t, sent.Subject, got.Subject)
	assert.Equal(t, "value", got.Header.Get("Key"))
	assert.Equal(t, sent.Data, got.Data)
	require.NoError(t, got.Context().Err())
	require.ErrorIs(t, got.Ack(), nats.ErrNotJetStream)
	meta, err := got.Metadata()
	require.NoError(t, err)
	assert.Equal(t, "ORDERS", meta.Stream)
	assert.EqualValues(t, 1, meta.Sequence.Stream)
	assert.WithinDuration(t, time.Now(), meta.Timestamp, time.Minute)

	_, err = client.GetMessage(ctx, "ORDERS", 2)
	require.ErrorIs(t, err, nats.ErrMessageNotFound)
	_, err = client.GetMessage(ctx, "ORDERS", 0)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
	_, err = client.GetMessage(ctx, "NONE", 1)
	require.ErrorIs(t, err, nats.ErrStreamNotFound)
	_, err = client.GetMessage(ctx, "NO.NE", 1)
	require.ErrorIs(t, err, nats.ErrInvalidArgument)
}

// However the stream is asked, the messages are the same.
func TestGetLastMessages(t *testing.T) {
	t.Parallel()
	client := connect(t, natstest.RunServer(t), nil)
	ctx := context.Background()
	const n = 1200 // more than one question may ask for
	for _, direct := range []bool{true, false} {
		t.Run(fmt.Sprint("direct ", direct), func(t *testing.T) {
			name := fmt.Sprint("S", direct)
			_, err := client.CreateStream(ctx, &jetstream.StreamConfig{Name: name, Subjects: []string{name + ".>"}, AllowDirect: direct})
			require.NoError(t, err)
			var batch []*nats.Message
			var all []string
			for i := range n {
				subject := fmt.Sprintf("%s.a.%d", name, i)
				all = append(all, subject)
				batch = append(batch, &nats.Message{Subject: subject}, &nats.Message{Subject: subject, Data: []byte(subject)})
			}
			_, err = client.PublishBatch(ctx, batch)
			require.NoError(t, err)
			for what, of := range map[string][]string{
				"each": append(all, name+".a.none"), "wildcard": {name + ".a.*"}, "all": nil, "twice": append(all, all...),
			} {
				seen := map[string]bool{}
				for msg, err := range client.GetLastMessages(ctx, name, of...) {
					require.NoError(t, err, what)
					require.Equal(t, msg.Subject, string(msg.Data))
					require.Empty(t, msg.Header.Get("Nats-Sequence"))
					meta, err := msg.Metadata()
					require.NoError(t, err)
					require.Zero(t, meta.Sequence.Stream%2)
					require.False(t, seen[msg.Subject])
					seen[msg.Subject] = true
				}
				assert.Len(t, seen, n, what)
			}
			for _, err := range client.GetLastMessages(ctx, name, all...) {
				require.NoError(t, err)
				break
			}
			for msg, err := range client.GetLastMessages(ctx, name, name+".none") {
				t.Fatal(msg, err)
			}
		})
	}
	for _, of := range [][]string{{"x"}, {"x.*"}, nil} {
		count := 0
		for msg, err := range client.GetLastMessages(ctx, "NONE", of...) {
			require.ErrorIs(t, err, nats.ErrStreamNotFound)
			require.Nil(t, msg)
			count++
		}
		assert.Equal(t, 1, count)
	}
	for _, err := range client.GetLastMessages(ctx, "Strue", "a..b") {
		require.ErrorIs(t, err, nats.ErrInvalidSubject)
	}
}

// What the loop does with a message takes none of the time that the question has.
func TestGetLastMessagesOfASlowLoop(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	near := connect(t, s, nil)
	ctx := context.Background()
	_, err := near.CreateStream(ctx, &jetstream.StreamConfig{Name: "S", Subjects: []string{"s.>"}, AllowDirect: true})
	require.NoError(t, err)
	const timeout = 3 * time.Second
	client := connect(t, s, func(c *nats.Config) { c.RequestTimeout = timeout })
	of := []string{"s.1", "s.2", "s.3"}
	for _, subject := range of {
		_, err := near.PublishToStream(ctx, subject, nil)
		require.NoError(t, err)
	}
	seen := 0
	for _, err := range client.GetLastMessages(ctx, "S", of...) {
		require.NoError(t, err)
		time.Sleep(2 * timeout / 3)
		seen++
	}
	assert.Len(t, of, seen)
}
