package nats

import (
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The parser says what upstream's says.
func FuzzParseAck(f *testing.F) {
	f.Add("$JS.ACK.ORDERS.worker.1.2.3.1700000000000000000.4")
	f.Add("$JS.ACK.hub.abcdef.ORDERS.worker.12.34.56.1700000000000000000.78")
	f.Add("$JS.ACK._.abcdef.ORDERS.worker.12.34.56.1700000000000000000.78.random")
	f.Add("$JS.ACK.ORDERS.worker.1.2.3")
	f.Add("$JS.ACK.ORDERS.worker.x.y.z.t.p")
	f.Fuzz(func(t *testing.T, reply string) {
		deliveries, seq, stored, ok := parseAck(reply)
		meta, err := (&natsgo.Msg{Sub: &natsgo.Subscription{}, Reply: reply}).Metadata()
		if err != nil || !ok {
			return
		}
		assert.EqualValues(t, meta.NumDelivered, deliveries)
		assert.Equal(t, meta.Sequence.Stream, seq)
		assert.Equal(t, meta.Timestamp, time.Unix(0, stored))
	})
}

func TestParseAck(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{
		"$JS.ACK.ORDERS.worker.12.34.56.1700000000000000001.78",
		"$JS.ACK.hub.abcdef.ORDERS.worker.12.34.56.1700000000000000001.78",
		"$JS.ACK._.abcdef.ORDERS.worker.12.34.56.1700000000000000001.78.random",
	} {
		deliveries, seq, stored, ok := parseAck(reply)
		require.True(t, ok, reply)
		assert.Equal(t, 12, deliveries)
		assert.EqualValues(t, 34, seq)
		assert.Equal(t, int64(1700000000000000001), stored)
	}
	for _, reply := range []string{"", "_INBOX.x", "$JS.ACK.ORDERS.worker.1.2.3", "$JS.ACK.ORDERS.worker.x.2.3.4.5"} {
		_, _, _, ok := parseAck(reply)
		assert.False(t, ok, reply)
	}
}

func TestCopiedHeadersComeBack(t *testing.T) {
	t.Parallel()
	header := natsgo.Header{
		"Nats-Msg-Id": {"1"}, "nats-ttl": {"1s"}, "Origin": {"https://example.com"}, "Origin-Stream": {"theirs"},
		"Origin-Header-Nats-Msg-Id": {"copied twice"}, "Dead-Letter-Reason": {"old"}, "X": {"a", "b"},
	}
	s := &Consumption{stream: "S", consumer: "C"}
	copied := s.copyHeader(&delivery{msg: Message{Subject: "s", Header: header}})
	assert.Equal(t, []string{"S"}, copied[HeaderOriginStream])
	for name := range copied {
		assert.False(t, len(name) > 4 && (name[:5] == "Nats-" || name[:5] == "nats-"), name)
	}
	assert.Equal(t, header, originalHeader(copied))
	assert.Nil(t, originalHeader(s.copyHeader(&delivery{})))
}
