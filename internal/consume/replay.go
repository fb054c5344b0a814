package consume

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// Replay says which dead letters are published again, and how.
type Replay struct {
	Stream string                  // that they were in
	From   string                  // the stream that they are in; empty for the default
	Match  func(*wire.Letter) bool // nil is all
	Every  time.Duration           // 0 is as fast as the server takes them
	Dry    bool
}

const headerStreamSource = "Nats-Stream-Source" // where a message of a source came from

// Replay publishes dead letters under their original subjects and deletes them, in the order in which they died, up
// to the last there is now. It returns how many. When ctx ends, the one at hand is finished.
func (e *Engine) Replay(ctx context.Context, op string, o Replay) (int, error) {
	from := cmp.Or(o.From, deadLetterStreamOf(o.Stream))
	letters, err := e.api.StreamInfo(ctx, from)
	if err != nil {
		if o.From == "" {
			err = e.NoDeadLetters(ctx, from, err)
		}
		return 0, jsapi.Wrap(op, from, err)
	}
	r := &replay{Engine: e, name: from, streams: make(map[string]*jetstream.StreamConfig)}
	if o.Every > 0 {
		ticker := time.NewTicker(o.Every)
		defer ticker.Stop()
		r.pace = ticker.C
	}
	state := letters.State
	for next := state.FirstSeq; next <= state.LastSeq; {
		raw, err := e.api.Stored(ctx, from, wire.Get{Sequence: next, NextFor: ">"}) // a replica may not have all
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break // the rest has been replayed or deleted meanwhile
		}
		if err != nil {
			return r.replayed, jsapi.Wrap(op, from, err)
		}
		if next = raw.Sequence + 1; next > state.LastSeq+1 {
			break
		}
		letter, err := wire.ReadLetter(raw.Header, raw.Data, wire.DeadLetterTime)
		if err != nil || letter.Stream != o.Stream || o.Match != nil && !o.Match(letter) {
			continue
		}
		if o.Dry {
			r.replayed++
			continue
		}
		if err := r.wait(ctx); err != nil {
			return r.replayed, fault.Wrap(op, from, err)
		}
		if err := r.one(ctx, raw, letter); err != nil {
			return r.replayed, fault.Wrap(op, from, err)
		}
	}
	if r.refused > 0 {
		err := fmt.Errorf("%d could not be published and stay: %w", r.refused, r.refusals)
		return r.replayed, &fault.Error{Op: op, Target: from, Cause: err}
	}
	return r.replayed, nil
}

// NoDeadLetters returns err, the answer to a question about the stream of dead letters, unless it only means that none
// of the messages of a stream, which exists, has died yet: theirs is made for the first.
func (e *Engine) NoDeadLetters(ctx context.Context, letters string, err error) error {
	stream, isTheirs := strings.CutSuffix(letters, deadLetterSuffix)
	if !isTheirs || !errors.Is(err, jetstream.ErrStreamNotFound) {
		return err
	}
	_, failed := e.api.StreamInfo(ctx, stream)
	if errors.Is(failed, jetstream.ErrStreamNotFound) || errors.Is(failed, natsgo.ErrPermissionViolation) {
		return err
	}
	return failed
}

// replay is one call of Replay.
type replay struct {
	*Engine
	name    string // of the stream of the dead letters
	pace    <-chan time.Time
	streams map[string]*jetstream.StreamConfig // looked up; nil for one that cannot be

	replayed, refused int
	refusals          fault.Joined // the first of each kind
}

// wait waits for the next replay's time.
func (r *replay) wait(ctx context.Context) error {
	if r.pace != nil {
		select {
		case <-r.pace:
		case <-ctx.Done():
		}
	}
	return fault.Ended(ctx)
}

// one publishes one dead letter and deletes it, to the end even when ctx ends meanwhile. It returns what
// would befall the next one too.
func (r *replay) one(ctx context.Context, raw wire.Stored, letter *wire.Letter) error {
	ctx, cancel := r.copying(ctx)
	defer cancel()
	if letter.Reference {
		m, err := r.original(ctx, letter.Stream, letter.Sequence, letter.Stored)
		if err != nil {
			return r.note(jsapi.Wrap("read the message of a dead letter", letter.Subject, err))
		}
		letter.Header, letter.Data = m.Header, m.Data
	}
	subject := r.entry(ctx, letter.Stream, letter.Subject, letter.Header.Get(headerStreamSource), maxOrigins)
	for name := range letter.Header {
		if wire.IsServers(name) {
			delete(letter.Header, name)
		}
	}
	id := fmt.Sprintf("replay.%s.%d.%d", r.name, raw.Sequence, raw.Time.UnixNano())
	msg, err := r.publisher.Message(OpReplay, subject, letter.Header, letter.Data, []jetstream.PublishOpt{jetstream.WithMsgID(id)})
	if err == nil {
		_, err = r.publisher.Publish(ctx, OpReplay, msg)
	}
	if err != nil {
		return r.note(err)
	}
	err = r.api.DeleteMessage(ctx, r.name, raw.Sequence)
	if err == nil {
		r.release(ctx, letter)
		r.replayed++
		return nil
	}
	if _, gone := r.api.Stored(ctx, r.name, wire.Get{Sequence: raw.Sequence}); errors.Is(gone, jetstream.ErrMsgNotFound) {
		return nil // another call was faster; this one's copy was recognised
	}
	return err
}

// release deletes the message that a dead letter refers to, where it stayed for that and no more.
func (r *replay) release(ctx context.Context, letter *wire.Letter) {
	cfg := r.config(ctx, letter.Stream)
	if !letter.Reference || cfg == nil || cfg.Retention == jetstream.LimitsPolicy {
		return
	}
	if err := r.api.DeleteMessage(ctx, letter.Stream, letter.Sequence); err != nil {
		r.log.Warn("a replayed message could not be deleted; it is delivered again", "stream", letter.Stream,
			"sequence", letter.Sequence, "error", err)
	}
}

// note takes an error of a publish and returns it unless it is a refusal of this message.
func (r *replay) note(err error) error {
	kind := fault.Kind(err)
	if kind == nil || slices.Contains([]error{fault.ErrClosed, fault.ErrNotConnected, fault.ErrConnectionLost, fault.ErrTimeout, fault.ErrTooManyRequests, fault.ErrResourceLimit}, kind) {
		return err
	}
	r.refused++
	if !errors.Is(r.refusals, kind) {
		r.refusals = append(r.refusals, err)
	}
	return nil
}

// maxOrigins bounds the streams from which a message came to its own one after the other.
const maxOrigins = 8

// entry returns the subject by which a message comes into stream under subject: it undoes what the stream,
// or those that it has its messages from, did to it. Source is the header of a message from a source.
func (r *replay) entry(ctx context.Context, stream, subject, source string, depth int) string {
	cfg := r.config(ctx, stream)
	if cfg == nil || depth == 0 {
		return subject
	}
	own := subject
	if t := cfg.SubjectTransform; t != nil {
		if before, ok := subjects.Undo(t.Source, t.Destination, subject); ok {
			own = before
		}
	}
	if slices.ContainsFunc(cfg.Subjects, func(listens string) bool { return subjects.Covers(listens, own) }) {
		return own
	}
	// The stream's name, a sequence, a filter, a destination, and the subject that it had there.
	if from := strings.Fields(source); len(from) >= 5 {
		name, _, _ := strings.Cut(from[0], ":") // which has a hash when it is another account's or domain's
		return r.entry(ctx, name, from[4], "", depth-1)
	}
	if cfg.Mirror != nil {
		return r.entry(ctx, cfg.Mirror.Name, undoAny(cfg.Mirror.SubjectTransforms, subject), "", depth-1)
	}
	for _, from := range cfg.Sources {
		if before := undoAny(from.SubjectTransforms, own); before != own || len(cfg.Sources) == 1 {
			return r.entry(ctx, from.Name, before, "", depth-1)
		}
	}
	return own
}

// undoAny undoes the first transform that can have made subjects.
func undoAny(transforms []jetstream.SubjectTransformConfig, subject string) string {
	for _, t := range transforms {
		if before, ok := subjects.Undo(t.Source, t.Destination, subject); ok {
			return before
		}
	}
	return subject
}

func (r *replay) config(ctx context.Context, stream string) *jetstream.StreamConfig {
	cfg, known := r.streams[stream]
	if !known {
		if info, err := r.api.StreamInfo(ctx, stream); err == nil {
			cfg = &info.Config
		}
		r.streams[stream] = cfg
	}
	return cfg
}
