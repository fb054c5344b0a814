package consume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// letter returns what a copy of a message is to say.
func (s *Consumption) letter(d *Delivery) *wire.Letter {
	return &wire.Letter{
		Subject: d.Msg.Subject, Header: d.Msg.Header, Data: d.Msg.Data,
		Stream: s.Stream, Sequence: d.Sequence, Stored: time.Unix(0, d.stored), Consumer: s.Consumer, Deliveries: d.Deliveries,
	}
}

// What the errors and the hooks of the publisher are told.
const (
	opStore      = "publish to stream"
	OpDeadLetter = "store dead letter"
	OpReplay     = "replay to stream"
)

// copyID is the same for every copy that is made of a message for the same purpose. The time tells
// it from the message of the same number in a stream that was made again.
func (s *Consumption) copyID(purpose string, d *Delivery) string {
	return fmt.Sprintf("%s.%s.%s.%d.%d", purpose, s.Stream, s.Consumer, d.Sequence, d.stored)
}

// sideStream is a stream that takes copies of messages. While it does not, one of them at a time tries
// whether it does again, and the others hold up no worker.
type sideStream struct {
	s       *Consumption
	root    string                        // of the subject: see locate
	subject string                        // empty while it is not known
	own     string                        // the name that it has where it is made here
	config  func() jetstream.StreamConfig // to make it from
	prepare func(ctx context.Context) error
	level   slog.Level // of a failure, which is an event where it is an error
	failing string

	mu       sync.Mutex
	name     string // of the stream that stores the subject, once known
	subjects string // to make it with, once known
	failures int    // in a row
	until    time.Time
}

const (
	copyTimeout  = 5 * time.Second // to store one copy, the making of the stream included,
	copyTrips    = 8               // and as many round trips
	copyPauseMin = time.Second     // after a failure; it doubles
	copyPauseMax = 30 * time.Second
	copyDenied   = time.Minute           // after a denial
	unreached    = "9223372036854775807" // a sequence that no stream comes to
)

// copying returns the context of what is done about a copy, which goes on when ctx ends.
func (e *Engine) copying(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), e.copyTime())
}

func (e *Engine) copyTime() time.Duration {
	_, trip := e.api.Conn().Peer()
	return copyTimeout + copyTrips*trip
}

// store publishes a copy of d under an ID and returns it once it is stored. Copies are the forms that it
// may have, the next one for when the stream has no room for the one before. When there is none, pause
// is for how long not to try again; the failure is reported.
func (x *sideStream) store(d *Delivery, id string, copies func(context.Context) ([]*natsgo.Msg, error)) (stored *natsgo.Msg, pause time.Duration) {
	x.mu.Lock()
	if pause = time.Until(x.until); pause > 0 {
		x.mu.Unlock()
		return nil, pause
	}
	if x.failures > 0 {
		x.until = time.Now().Add(copyPauseMin)
	}
	x.mu.Unlock()
	ctx, cancel := x.s.e.copying(x.s.ctx)
	defer cancel()
	forms, err := copies(ctx)
	for i := 0; i < len(forms) && (i == 0 || errors.Is(err, fault.ErrPayloadTooLarge)); i++ {
		stored, err = forms[i], x.publish(ctx, id, forms[i])
	}
	x.mu.Lock()
	switch {
	case err == nil:
		x.failures, x.until = 0, time.Time{}
		x.mu.Unlock()
		return stored, 0
	case errors.Is(err, fault.ErrPermission):
		pause = copyDenied
	default:
		pause = min(copyPauseMin<<min(x.failures, 10), copyPauseMax)
	}
	if !errors.Is(err, fault.ErrPayloadTooLarge) { // else it is this message's own
		x.failures++
		x.name, x.until = "", time.Now().Add(pause) // it may be gone, or another stream has the subject now
	}
	x.mu.Unlock()
	x.s.note(x.level, x.failing, d, nextAfter(pause), "error", err)
	if x.level == slog.LevelError {
		x.s.e.reports.Undead(d, err)
	}
	return nil, pause
}

// publish stores one copy, and makes the stream when there is none.
func (x *sideStream) publish(ctx context.Context, id string, m *natsgo.Msg) error {
	name, err := x.locate(ctx)
	if err != nil {
		return err
	}
	if name == "" {
		if name, err = x.find(ctx); err != nil {
			return err
		}
	}
	m.Subject = x.subject
	m.Header[jetstream.MsgIDHeader] = []string{id}
	if name != "" {
		m.Header[jetstream.ExpectedStreamHeader] = []string{name}
	}
	p := x.s.e.publisher
	var ack *jetstream.PubAck
	if x.prepare == nil { // a dead letter, which the hooks see
		err = fault.Contained(func() (err error) {
			ack, err = p.Publish(ctx, OpDeadLetter, m)
			return err
		})
	} else {
		ack, _, err = p.Store(ctx, opStore, m)
	}
	if err != nil {
		return err
	}
	x.mu.Lock()
	x.name = ack.Stream
	x.mu.Unlock()
	return nil
}

// locate returns the name of the stream, if it is known, and sees to it that its subject is. Where servers
// have JetStream domains the subject has that of the stream, for there may be one of its name in each.
func (x *sideStream) locate(ctx context.Context) (name string, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.subjects != "" {
		return x.name, nil
	}
	domain, err := domain(ctx, x.s.api)
	if err != nil {
		return "", jsapi.Wrap("find the domain of", x.s.Stream, err)
	}
	subject := x.root + "."
	if domain != "" {
		subject += domain + "."
	}
	subject += x.s.Stream + "."
	x.subject = cmp.Or(x.subject, subject+x.s.Consumer)
	x.subjects = subject + "*"
	return x.name, nil
}

// domain returns the domain that the client works in, if there are any: the one it is told to, or the
// server's.
func domain(ctx context.Context, api *jsapi.API) (string, error) {
	if prefix := api.Subject(""); prefix != jetstream.DefaultAPIPrefix {
		domain, isDomain := strings.CutSuffix(strings.TrimPrefix(prefix, "$JS."), ".API.")
		if !isDomain || strings.Contains(domain, ".") {
			return "", nil // another account's
		}
		return domain, nil
	}
	var answer struct {
		jsapi.Refusal
		Domain string `json:"domain"`
	}
	err := api.Ask(ctx, "INFO", nil, &answer)
	if errors.Is(err, natsgo.ErrPermissionViolation) {
		err = nil // they who have domains let their users know
	}
	return answer.Domain, err
}

// find sees to it that there is a stream for the subject, and returns the name to expect, or none where that is
// not known. What else may be wrong, publishing tells.
func (x *sideStream) find(ctx context.Context) (expected string, err error) {
	if x.prepare != nil {
		err := x.prepare(ctx)
		if errors.Is(err, fault.ErrStreamNotFound) {
			if err = x.create(ctx); err == nil {
				err = x.prepare(ctx)
			}
		}
		return x.own, err
	}
	switch err := x.holds(ctx, x.own); {
	case errors.Is(err, natsgo.ErrNoResponders):
		return x.own, x.create(ctx)
	case fault.CodeOf(err) != fault.CodeWrongStream:
		return x.own, nil
	case x.holds(ctx, x.s.Stream) == nil:
		return "", fault.New("find the stream of", x.subject, fault.ErrInvalidConfig, "it is the stream %q that the messages come from", x.s.Stream)
	}
	return "", nil
}

// holds returns nil when it is the stream of that name that stores the subject: no other gets as far as to the
// condition on which that one refuses. It is a sequence, which the leader looks at: an expected ID is compared by each
// replica, and nats-server 2.15 then gives up the stream.
func (x *sideStream) holds(ctx context.Context, stream string) error {
	m := &natsgo.Msg{Subject: x.subject, Header: natsgo.Header{
		jetstream.ExpectedStreamHeader: {stream}, jetstream.ExpectedLastSeqHeader: {unreached},
	}}
	link := x.s.conn
	call := link.Ask(m)
	defer call.End(false)
	for {
		if err := link.Wait(ctx); err != nil {
			return err
		}
		answer, err := call.Next(ctx)
		if err == nil {
			_, err = wire.ParsePubAck(answer)
		}
		switch {
		case fault.CodeOf(err) == fault.CodeWrongLastSequence:
			return nil
		case ctx.Err() != nil:
			return fault.Ended(ctx)
		case !errors.Is(err, conn.ErrUnanswered) && !errors.Is(err, conn.ErrBroken):
			return err
		}
	}
}

// create makes the stream as durable as the one that the messages come from, or adds the subject to
// it.
func (x *sideStream) create(ctx context.Context) error {
	info, err := x.s.api.StreamInfo(ctx, x.s.Stream)
	if err != nil {
		return jsapi.Wrap("info stream", x.s.Stream, err)
	}
	cfg, origin := x.config(), info.Config
	cfg.Name, cfg.Subjects = x.own, []string{x.subjects}
	cfg.Storage, cfg.Replicas, cfg.Placement, cfg.Compression = origin.Storage, origin.Replicas, origin.Placement, origin.Compression
	if x.subject != x.subjects && !strings.HasPrefix(x.subject, strings.TrimSuffix(x.subjects, "*")) {
		cfg.Subjects = append(cfg.Subjects, x.subject)
	}
	err = x.declare(ctx, "create", cfg)
	if fault.CodeOf(err) == fault.CodeMaxBytesDemanded {
		cfg.MaxBytes, cfg.Discard = origin.MaxBytes, jetstream.DiscardNew
		err = x.declare(ctx, "create", cfg)
	}
	if !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return err
	}
	existing, err := x.s.api.StreamInfo(ctx, cfg.Name)
	if err != nil || slices.Contains(existing.Config.Subjects, x.subject) { // somebody else was faster
		return jsapi.Wrap("info stream", cfg.Name, err)
	}
	existing.Config.Subjects = append(existing.Config.Subjects, x.subject)
	return x.declare(ctx, "update", existing.Config)
}

func (x *sideStream) declare(ctx context.Context, verb string, cfg jetstream.StreamConfig) error {
	err := x.s.api.Ask(ctx, "STREAM."+strings.ToUpper(verb)+"."+cfg.Name, cfg, nil)
	return jsapi.Wrap(verb+" stream", cfg.Name, err)
}
