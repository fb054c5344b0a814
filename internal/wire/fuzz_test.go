package wire_test

import (
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// headers reads lines of names and values.
func headers(text string) natsgo.Header {
	var h natsgo.Header
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimRight(line, "\n"), ":"); ok && name != "" {
			if h == nil {
				h = natsgo.Header{}
			}
			h[name] = append(h[name], value)
		}
	}
	return h
}

// What a copy is made of comes back, whatever the message's own headers say, and a forged copy is refused or read.
func FuzzLetter(f *testing.F) {
	f.Add("A:b\nnats-ttl:1s\nOrigin-Header-Origin-Header-x:y", "s", "S", uint64(3), int64(4), 5, "C")
	f.Add("a/b:c\n\":x\n\xff:y\nOrigin-Encoded-YQ:z\nOrigin-Encoded-!:z\n é:1", "s", "S", uint64(3), int64(4), 5, "C")
	f.Add("Origin-Sequence:-1\nOrigin-Deliveries:99999999999999999999\nOrigin-Time:x\nRetry-Time:2026-01-02T03:04:05Z", "", "", uint64(0), int64(-1), -1, "")
	f.Add("Origin-Sequence:1\nOrigin-Deliveries:1\nOrigin-Time:2026-01-02T03:04:05Z\nRetry-Time:2026-01-02T03:04:05Z\norigin-header-nats-x:1\nORIGIN-HEADER-", "a", "b", uint64(1)<<63, int64(1)<<62, 1, "x")
	f.Fuzz(func(t *testing.T, own, subject, stream string, sequence uint64, stored int64, deliveries int, consumer string) {
		h := headers(own)
		if read, err := wire.ReadLetter(h, nil, wire.RetryTime); err == nil {
			assert.NotNil(t, read)
		}
		letter := &wire.Letter{
			Subject: subject, Header: h, Data: []byte(own), Stream: stream, Sequence: sequence, Stored: time.Unix(0, stored).UTC(),
			Consumer: consumer, Deliveries: deliveries, Time: time.Unix(1, 0).UTC(),
		}
		copied := letter.Copy(wire.RetryTime)
		assert.Positive(t, (&natsgo.Msg{Header: copied}).Size(), "nats.go sends it")
		read, err := wire.ReadLetter(copied, letter.Data, wire.RetryTime)
		require.NoError(t, err)
		assert.Equal(t, letter, read)
	})
}

// Whatever answers, it is an answer or an error, and what is of use in it is there.
func FuzzAnswers(f *testing.F) {
	for _, data := range []string{
		"", "null", "[]", "{}", `{"stream":"S","seq":7}`, `{"stream":"","seq":0}`, `{"stream":"S","seq":99999999999999999999}`, `{"error":null,"stream":null}`, `{"error":{},"seq":-1}`,
		`{"message":null}`, `{"message":{"subject":"a","seq":1,"hdrs":"TkFUUy8xLjANCkE6IGINCg0K","data":"eA==","time":"2026-01-02T03:04:05Z"}}`, `{"message":{"hdrs":"!"}}`,
	} {
		f.Add("", []byte(data))
	}
	f.Add("Status:503", []byte(nil))
	f.Add("Status:408\nDescription:Requests Pending\nNats-Pending-Messages:x\nNats-Last-Consumer:-1", []byte(nil))
	f.Add("Nats-Sequence:1\nNats-Time-Stamp:2026-01-02T03:04:05Z\nNats-Subject:a\nNats-Num-Pending:0\nNats-TTL:1h", []byte("x"))
	f.Add("Nats-Sequence:-1\nNats-Time-Stamp:9999\nNats-TTL:-99999999h", []byte("x"))
	f.Add("Nats-Service-Error:x\nNats-Service-Error-Code:99999999999999999999", []byte(nil))
	f.Fuzz(func(t *testing.T, head string, data []byte) {
		m := &natsgo.Msg{Header: headers(head), Data: data}
		if ack, err := wire.ParsePubAck(m); err == nil {
			assert.NotEmpty(t, ack.Stream)
		}
		if _, err := wire.ParseStored(m); err == nil {
			assert.NotEmpty(t, data)
		}
		if stored, err := wire.ParseDirect(m); err == nil {
			assert.NotEmpty(t, m.Header.Get("Nats-Sequence"))
			assert.Equal(t, data, stored.Data)
		}
		if ttl := wire.TTL(m.Header); ttl != wire.Forever {
			assert.GreaterOrEqual(t, ttl, time.Duration(0))
		}
		_ = wire.PullError(wire.Status(m))
		_ = wire.PullEnded(m)
		_, _ = wire.EndOfBatch(m)
		_, _, _ = wire.ReadServiceError(m.Header)
		_, _, _ = wire.Vanished(m), wire.NoResponders(m), wire.LastDelivered(m)
	})
}

// HeaderSize is the size of what nats.go sends.
func FuzzHeaderSize(f *testing.F) {
	f.Add("A:b\nA:\nC: d \t")
	f.Add("\x00:\xff\nx y:z\r")
	f.Fuzz(func(t *testing.T, text string) {
		h := headers(text)
		if size := (&natsgo.Msg{Header: h}).Size(); size > 0 { // else a name is none
			assert.Equal(t, size, wire.HeaderSize(h))
		}
	})
}
