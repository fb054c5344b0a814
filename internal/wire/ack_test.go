package wire_test

import (
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// The parser says what upstream's says.
func FuzzParseReply(f *testing.F) {
	f.Add("$JS.ACK.ORDERS.worker.1.2.3.1700000000000000000.4")
	f.Add("$JS.ACK.hub.abcdef.ORDERS.worker.12.34.56.1700000000000000000.78")
	f.Add("$JS.ACK._.abcdef.ORDERS.worker.12.34.56.1700000000000000000.78.random")
	f.Add("$JS.ACK.ORDERS.worker.1.2.3")
	f.Add("$JS.ACK.ORDERS.worker.x.y.z.t.p")
	f.Fuzz(func(t *testing.T, reply string) {
		d, ok := wire.ParseReply(reply)
		meta, err := (&natsgo.Msg{Sub: &natsgo.Subscription{}, Reply: reply}).Metadata()
		if err != nil || !ok {
			return
		}
		assert.EqualValues(t, meta.NumDelivered, d.Count)
		assert.Equal(t, natsgo.SequencePair{Stream: d.Sequence, Consumer: d.Consumer}, meta.Sequence)
		assert.Equal(t, meta.Timestamp, time.Unix(0, d.Stored))
		assert.Equal(t, meta.NumPending, d.Pending)
	})
}

func TestParseReply(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{
		"$JS.ACK.ORDERS.worker.12.34.56.1700000000000000001.78",
		"$JS.ACK.hub.abcdef.ORDERS.worker.12.34.56.1700000000000000001.78",
		"$JS.ACK._.abcdef.ORDERS.worker.12.34.56.1700000000000000001.78.random",
	} {
		d, ok := wire.ParseReply(reply)
		require.True(t, ok, reply)
		assert.Equal(t, wire.Delivery{Count: 12, Sequence: 34, Consumer: 56, Stored: 1700000000000000001, Pending: 78}, d)
	}
	d, ok := wire.ParseReply("$JS.ACK._.abcdef.ORDERS.worker.90.19.56.1700000000000000001.78.random.and.more")
	assert.True(t, ok && d.Count == 90 && d.Sequence == 19 && d.Pending == 78)
	for _, reply := range []string{"", "_INBOX.x", "$JS.ACK.ORDERS.worker.1.2.3", "$JS.ACK.ORDERS.worker.x.2.3.4.5", "$JS.ACK.ORDERS.worker.-1.2.3.4.5", "$JS.ACK.ORDERS.worker.1.2.3.4.x"} {
		_, ok := wire.ParseReply(reply)
		assert.False(t, ok, reply)
	}
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	m := &natsgo.Msg{Sub: &natsgo.Subscription{}, Reply: "$JS.ACK.hub.abcdef.ORDERS.worker.12.34.56.78.90"}
	meta, err := wire.Metadata(m)
	require.NoError(t, err)
	assert.Equal(t, &jetstream.MsgMetadata{
		Sequence: jetstream.SequencePair{Consumer: 56, Stream: 34}, NumDelivered: 12, NumPending: 90, Timestamp: time.Unix(0, 78),
		Stream: "ORDERS", Consumer: "worker", Domain: "hub",
	}, meta)
	m.Reply = "_INBOX.x"
	_, err = wire.Metadata(m)
	require.Error(t, err)
}

func TestToken(t *testing.T) {
	t.Parallel()
	var token wire.Token
	assert.False(t, token.Taken())
	assert.True(t, token.Take())
	assert.True(t, token.Taken())
	assert.False(t, token.Take())
	token.GiveBack()
	assert.False(t, token.Taken())
}

func TestAckOf(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{
		"$JS.ACK.ORDERS.worker.12.34.56.1700000000000000001.78",
		"$JS.ACK.hub.abcdef.ORDERS.worker.12.34.56.1700000000000000001.78",
		"$JS.ACK._.abcdef.ORDERS.worker.12.34.56.1700000000000000001.78.random",
	} {
		stream, consumer, ok := wire.AckOf(reply)
		assert.True(t, ok)
		assert.Equal(t, []string{"ORDERS", "worker"}, []string{stream, consumer}, reply)
	}
	for _, other := range []string{"orders", "$JS.ACK.ORDERS.worker", "a.b.c.d.e.f.g.h.i.j.k"} {
		_, _, ok := wire.AckOf(other)
		assert.False(t, ok, other)
	}
}
