package wire

import (
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// The acknowledgements that need no more words.
var (
	Ack      = []byte("+ACK")
	Nak      = []byte("-NAK")
	Progress = []byte("+WPI")
)

// NakAfter asks for a message again after delay.
func NakAfter(delay time.Duration) []byte {
	return append(strconv.AppendInt([]byte(`-NAK {"delay": `), delay.Nanoseconds(), 10), '}')
}

// Term says that a message is never to be delivered again, and why, when reason is not empty.
func Term(reason string) []byte {
	if reason == "" {
		return []byte("+TERM")
	}
	return []byte("+TERM " + reason)
}

// AckPrefix begins the reply subject of every message that a consumer delivers.
const AckPrefix = "$JS.ACK."

// Delivery is what the reply subject of a message says of it that a consumer delivered.
type Delivery struct {
	Count    int    // how often it was delivered
	Sequence uint64 // in the stream
	Consumer uint64 // sequence of the consumer
	Stored   int64  // when, in Unix nanoseconds
	Pending  uint64 // messages that the consumer has yet to deliver
}

// ParseReply reads the reply subject of a message that a consumer delivered. Upstream's own parser allocates.
func ParseReply(reply string) (d Delivery, ok bool) {
	var starts [11]int // of the tokens after the first
	n := 0
	for i := range len(reply) {
		if reply[i] == '.' && n < len(starts) {
			starts[n] = i + 1
			n++
		}
	}
	first := 3 // $JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<consumer sequence>.<time>.<pending>
	switch {
	case n >= 10:
		first = 5 // $JS.ACK.<domain>.<account hash>.<stream> and so on
	case n < 8:
		return d, false
	}
	number := func(token int) (v uint64) {
		end := len(reply)
		if token+1 < n {
			end = starts[token+1] - 1
		}
		for _, c := range []byte(reply[starts[token]:end]) {
			ok = ok && '0' <= c && c <= '9'
			v = 10*v + uint64(c-'0')
		}
		return v
	}
	ok = true
	return Delivery{int(number(first)), number(first + 1), number(first + 2), int64(number(first + 3)), number(first + 4)}, ok
}

// AckOf returns the consumer whose deliveries are acknowledged on a subject.
func AckOf(subject string) (stream, consumer string, ok bool) {
	tokens := strings.Split(subject, ".")
	switch n := len(tokens); {
	case !strings.HasPrefix(subject, AckPrefix) || n < 9:
		return "", "", false
	case n >= 11:
		return tokens[4], tokens[5], true
	default:
		return tokens[2], tokens[3], true
	}
}

// Metadata reads the reply subject of a message that a consumer delivered.
func Metadata(m *natsgo.Msg) (*jetstream.MsgMetadata, error) {
	meta, err := m.Metadata()
	if err != nil {
		return nil, err
	}
	return &jetstream.MsgMetadata{
		Sequence:     jetstream.SequencePair{Consumer: meta.Sequence.Consumer, Stream: meta.Sequence.Stream},
		NumDelivered: meta.NumDelivered,
		NumPending:   meta.NumPending,
		Timestamp:    meta.Timestamp,
		Stream:       meta.Stream,
		Consumer:     meta.Consumer,
		Domain:       meta.Domain,
	}, nil
}

// Token is the right to the one final acknowledgement of a delivery.
type Token uint32

// Take tells whether the acknowledgement is for the caller to send.
func (t *Token) Take() bool { return atomic.CompareAndSwapUint32((*uint32)(t), 0, 1) }

// GiveBack undoes Take, when the acknowledgement did not get through.
func (t *Token) GiveBack() { atomic.StoreUint32((*uint32)(t), 0) }

// Taken tells whether one was sent.
func (t *Token) Taken() bool { return atomic.LoadUint32((*uint32)(t)) != 0 }
