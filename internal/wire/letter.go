package wire

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// Headers of a copy of a message in a stream of dead letters, or of retries.
const (
	OriginStream     = "Origin-Stream"
	OriginSequence   = "Origin-Sequence"
	OriginSubject    = "Origin-Subject"
	OriginTime       = "Origin-Time"
	OriginConsumer   = "Origin-Consumer"
	OriginDeliveries = "Origin-Deliveries"
	// OriginPrefix precedes those of the message's own headers that have a meaning of their own in a copy.
	OriginPrefix = "Origin-Header-"
	// OriginEncoded precedes the name, in base64, of a header that another client has sent and nats.go does not.
	OriginEncoded = "Origin-Encoded-"

	DeadLetterReason    = "Dead-Letter-Reason"
	DeadLetterTime      = "Dead-Letter-Time"
	DeadLetterReference = "Dead-Letter-Reference"

	RetryTime = "Retry-Time"
)

// Letter is what such a copy says.
type Letter struct {
	// Subject, Header and Data are the message's own.
	Subject string
	Header  natsgo.Header
	Data    []byte
	// Reference tells that the message is where it was, and not here.
	Reference bool
	// Stream and Sequence are where it was stored, and Stored when.
	Stream   string
	Sequence uint64
	Stored   time.Time
	// Consumer had it delivered so often.
	Consumer   string
	Deliveries int
	// Reason is why it is dead, and Time when it died, or when it is to be tried again.
	Reason string
	Time   time.Time
}

// isCopys tells whether a header has a meaning in a copy that it must not have there.
func isCopys(name string) bool {
	for _, prefix := range []string{"Origin-", "Dead-Letter-", RetryTime} {
		if len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix) {
			return true
		}
	}
	return IsServers(name)
}

// Copy returns the headers of the copy, whose Time is that of a header: DeadLetterTime or RetryTime.
func (l *Letter) Copy(timeHeader string) natsgo.Header {
	h := make(natsgo.Header, len(l.Header)+9)
	for name, values := range l.Header {
		switch {
		case (&natsgo.Msg{Header: natsgo.Header{name: nil}}).Size() == 0:
			name = OriginEncoded + base64.RawURLEncoding.EncodeToString([]byte(name))
		case isCopys(name):
			name = OriginPrefix + name
		}
		h[name] = values
	}
	h[OriginStream] = []string{l.Stream}
	h[OriginSequence] = []string{strconv.FormatUint(l.Sequence, 10)}
	h[OriginSubject] = []string{l.Subject}
	h[OriginTime] = []string{timeText(l.Stored)}
	h[OriginConsumer] = []string{l.Consumer}
	h[OriginDeliveries] = []string{strconv.Itoa(l.Deliveries)}
	h[timeHeader] = []string{timeText(l.Time)}
	return h
}

// ReadLetter undoes Copy.
func ReadLetter(h natsgo.Header, data []byte, timeHeader string) (*Letter, error) {
	l := &Letter{
		Subject: h.Get(OriginSubject), Data: data, Stream: h.Get(OriginStream), Consumer: h.Get(OriginConsumer),
		Reference: h.Get(DeadLetterReference) != "", Reason: h.Get(DeadLetterReason),
	}
	for name, values := range h {
		own, isOwn := strings.CutPrefix(name, OriginPrefix)
		if text, encoded := strings.CutPrefix(name, OriginEncoded); encoded {
			decoded, err := base64.RawURLEncoding.DecodeString(text)
			own, isOwn = string(decoded), err == nil
		}
		if !isOwn && isCopys(name) {
			continue
		}
		if l.Header == nil {
			l.Header = make(natsgo.Header, len(h))
		}
		l.Header[own] = values
	}
	var errs [4]error
	l.Sequence, errs[0] = strconv.ParseUint(h.Get(OriginSequence), 10, 64)
	l.Deliveries, errs[1] = strconv.Atoi(h.Get(OriginDeliveries))
	l.Stored, errs[2] = time.Parse(time.RFC3339Nano, h.Get(OriginTime))
	l.Time, errs[3] = time.Parse(time.RFC3339Nano, h.Get(timeHeader))
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return l, nil
}

func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
