package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// Headers of a message that a Consumption copied into the dead-letter or the retry stream.
const (
	// HeaderOriginStream and the next five say what the message was.
	HeaderOriginStream     = "Origin-Stream"
	HeaderOriginSequence   = "Origin-Sequence"
	HeaderOriginSubject    = "Origin-Subject"
	HeaderOriginTime       = "Origin-Time" // when it was stored, RFC 3339 in nanoseconds
	HeaderOriginConsumer   = "Origin-Consumer"
	HeaderOriginDeliveries = "Origin-Deliveries"
	// HeaderOriginPrefix precedes those of the message's own headers that would command the server
	// (Nats-*) or be taken for one of these.
	HeaderOriginPrefix = "Origin-Header-"
	// HeaderDeadLetterReason and HeaderDeadLetterTime say why and when a message became a dead letter.
	HeaderDeadLetterReason = "Dead-Letter-Reason"
	HeaderDeadLetterTime   = "Dead-Letter-Time"

	headerRetryTime = "Retry-Time" // when a message in the retry stream is due
)

// isCopyHeader tells whether a header has a meaning in a copy that it must not have there.
func isCopyHeader(name string) bool {
	for _, prefix := range []string{"Origin-", "Dead-Letter-", headerRetryTime} {
		if len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix) {
			return true
		}
	}
	return wire.IsServers(name)
}

// copyHeader returns the headers of a message's copy.
func (s *Consumption) copyHeader(d *delivery) natsgo.Header {
	h := make(natsgo.Header, len(d.msg.Header)+8)
	for name, values := range d.msg.Header {
		if isCopyHeader(name) {
			name = HeaderOriginPrefix + name
		}
		h[name] = values
	}
	h[HeaderOriginStream] = []string{s.stream}
	h[HeaderOriginSequence] = []string{strconv.FormatUint(d.seq, 10)}
	h[HeaderOriginSubject] = []string{d.msg.Subject}
	h[HeaderOriginTime] = []string{timeText(time.Unix(0, d.stored))}
	h[HeaderOriginConsumer] = []string{s.consumer}
	h[HeaderOriginDeliveries] = []string{strconv.Itoa(d.deliveries)}
	return h
}

// originalHeader undoes copyHeader.
func originalHeader(h natsgo.Header) natsgo.Header {
	var original natsgo.Header
	for name, values := range h {
		own := strings.TrimPrefix(name, HeaderOriginPrefix)
		if own == name && isCopyHeader(name) {
			continue
		}
		if original == nil {
			original = make(natsgo.Header, len(h))
		}
		original[own] = values
	}
	return original
}

// readCopy undoes copyHeader as far as a copy in either stream goes.
func readCopy(h natsgo.Header, data []byte) (*DeadLetter, error) {
	letter := &DeadLetter{
		Subject:  h.Get(HeaderOriginSubject),
		Header:   originalHeader(h),
		Data:     data,
		Stream:   h.Get(HeaderOriginStream),
		Consumer: h.Get(HeaderOriginConsumer),
	}
	var errs [3]error
	letter.Sequence, errs[0] = strconv.ParseUint(h.Get(HeaderOriginSequence), 10, 64)
	letter.Deliveries, errs[1] = strconv.Atoi(h.Get(HeaderOriginDeliveries))
	letter.Stored, errs[2] = time.Parse(time.RFC3339Nano, h.Get(HeaderOriginTime))
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return letter, nil
}

// copyID is the same for every copy that is made of a message for the same purpose. The time tells
// it from the message of the same number in a stream that was made again.
func (s *Consumption) copyID(purpose string, d *delivery) string {
	return fmt.Sprintf("%s.%s.%s.%d.%d", purpose, s.stream, s.consumer, d.seq, d.stored)
}

func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// sideStream is a stream that takes copies of messages.
type sideStream struct {
	s       *Consumption
	subject string
	config  jetstream.StreamConfig // to make it from
	prepare func(ctx context.Context) error

	mu   sync.Mutex
	name string // of the stream that stores the subject, once known
}

// copyTimeout bounds the storing of one copy, the making of the stream included.
const copyTimeout = 5 * time.Second

// store publishes a copy under an ID, and returns nil once it is stored.
func (x *sideStream) store(id string, header natsgo.Header, data []byte) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.s.origin.ctx), copyTimeout)
	defer cancel()
	name, err := x.find(ctx)
	if err != nil {
		return err
	}
	header[jetstream.MsgIDHeader], header[jetstream.ExpectedStreamHeader] = []string{id}, []string{name}
	_, err = x.s.client.store(ctx, opPublishToStream, &natsgo.Msg{Subject: x.subject, Header: header, Data: data})
	if err != nil {
		x.mu.Lock()
		x.name = "" // it may be gone, or another stream has the subject now
		x.mu.Unlock()
	}
	return err
}

// find returns the name of the stream that stores the subject, and makes it when there is none.
func (x *sideStream) find(ctx context.Context) (string, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.name != "" {
		return x.name, nil
	}
	name, err := x.s.client.js.StreamNameBySubject(ctx, x.subject)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		name, err = x.config.Name, x.create(ctx)
	}
	if err != nil {
		return "", wrapJetStream("find the stream of", x.subject, fault.Because(ctx, err))
	}
	if name == x.s.stream {
		return "", fail("find the stream of", x.subject, ErrInvalidConfig, "it is the stream %q that the messages come from", name)
	}
	if x.prepare != nil {
		if err := x.prepare(ctx); err != nil {
			return "", err
		}
	}
	x.name = name
	return name, nil
}

// create makes the stream as durable as the one that the messages come from, or adds the subject to
// it.
func (x *sideStream) create(ctx context.Context) error {
	origin, err := x.s.client.GetStreamInfo(ctx, x.s.stream)
	if err != nil {
		return err
	}
	js := x.s.client.js
	cfg := x.config
	cfg.Storage, cfg.Replicas = origin.Config.Storage, origin.Config.Replicas
	if !slices.Contains(cfg.Subjects, x.subject) && !strings.HasPrefix(x.subject, strings.TrimSuffix(cfg.Subjects[0], "*")) {
		cfg.Subjects = append(slices.Clone(cfg.Subjects), x.subject)
	}
	_, err = js.CreateStream(ctx, cfg)
	if !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return err
	}
	existing, err := js.Stream(ctx, cfg.Name)
	if err != nil {
		return err
	}
	cfg = existing.CachedInfo().Config
	if slices.Contains(cfg.Subjects, x.subject) {
		return nil // somebody else was faster
	}
	cfg.Subjects = append(cfg.Subjects, x.subject)
	_, err = js.UpdateStream(ctx, cfg)
	return err
}
