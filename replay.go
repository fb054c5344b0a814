package nats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// ReplayOption changes what ReplayDeadLetters does.
type ReplayOption func(*replayOptions)

type replayOptions struct {
	stream string
	match  func(*DeadLetter) bool
	every  time.Duration
	dry    bool
}

// WithReplayFilter replays only the dead letters for which match returns true; the others stay.
func WithReplayFilter(match func(*DeadLetter) bool) ReplayOption {
	return func(o *replayOptions) { o.match = match }
}

// WithReplayRate replays at most n dead letters a second, evenly spread. The default, and the
// meaning of an n of zero or less, is as many as the server takes.
func WithReplayRate(n float64) ReplayOption {
	return func(o *replayOptions) {
		o.every = 0
		if n > 0 {
			o.every = time.Duration(float64(time.Second) / n)
		}
	}
}

// WithReplayDryRun counts the dead letters that would be replayed and changes nothing.
func WithReplayDryRun() ReplayOption {
	return func(o *replayOptions) { o.dry = true }
}

// WithReplayFrom reads the dead letters from another stream than "<stream>_DLQ": see WithDeadLetter.
func WithReplayFrom(deadLetters string) ReplayOption {
	return func(o *replayOptions) { o.stream = deadLetters }
}

const (
	// replayTimeout bounds the publishing and deleting of one dead letter, beside the way to the server.
	replayTimeout = 5 * time.Second
	replayTrips   = 8

	headerStreamSource = "Nats-Stream-Source" // where a message of a source came from
)

// ReplayDeadLetters publishes the dead letters of a stream to their original subjects and deletes
// them from the dead-letter stream, in the order in which they died, up to the last there is at the
// call. It returns how many it replayed.
//
// The message has its payload and headers again, but for the headers of the server (Nats-*), such as
// a message ID, under which it would be dropped as a duplicate, or a rollup. Every consumer of the
// stream gets it, not only the one that gave it up.
//
// When ctx ends, the dead letter at hand is finished and the error tells why it stopped; another
// call goes on with the rest. Every dead letter is replayed once, over calls, and over calls at the
// same time; after a crash too if it is replayed again within the duplicate window of the original
// stream (two minutes by default), since the message ID of a replay is the dead letter's own.
//
// A stream that stores its messages under other subjects than it listens to, by a SubjectTransform, or
// that has them from a source or an origin, gets the message by the subject that brings it there.
//
// A dead letter that is refused, such as one whose subject no stream takes any more, stays, and the others
// are replayed: the error tells how many stayed, and one refusal of each kind. Without any dead letters the
// result is 0 and no error; ErrStreamNotFound means that there is no such stream at all. The other errors
// are those of PublishMsgToStream.
func (c *Client) ReplayDeadLetters(ctx context.Context, stream string, opts ...ReplayOption) (int, error) {
	const op = "replay dead letters"
	var o replayOptions
	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}
	from := cmp.Or(o.stream, deadLetterStreamOf(stream))
	if err := c.jetStream(ctx, op, stream); err != nil {
		return 0, err
	}
	if err := cmp.Or(checkName(op, "stream", stream), checkName(op, "stream", from)); err != nil {
		return 0, err
	}
	letters, err := c.api.StreamInfo(ctx, from)
	if o.stream == "" && c.hasNoDeadLetters(ctx, from, err) {
		return 0, nil
	}
	if err != nil {
		return 0, jsapi.Wrap(op, from, err)
	}
	r := &replay{client: c, name: from, streams: make(map[string]*jetstream.StreamConfig)}
	if o.every > 0 {
		ticker := time.NewTicker(o.every)
		defer ticker.Stop()
		r.pace = ticker.C
	}
	state := letters.State
	for next := state.FirstSeq; next <= state.LastSeq; {
		raw, err := c.api.Stored(ctx, from, wire.Get{Sequence: next, NextFor: ">"}) // a replica may not have all
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break // the rest has been replayed or deleted meanwhile
		}
		if err != nil {
			return r.replayed, jsapi.Wrap(op, from, err)
		}
		if next = raw.Sequence + 1; next > state.LastSeq+1 {
			break
		}
		letter, err := readDeadLetter(raw.Subject, raw.Header, raw.Data)
		if err != nil || letter.Stream != stream || o.match != nil && !o.match(letter) {
			continue
		}
		if o.dry {
			r.replayed++
			continue
		}
		if err := r.wait(ctx); err != nil {
			return r.replayed, wrap(op, from, err)
		}
		if err := r.one(ctx, raw, letter); err != nil {
			return r.replayed, wrap(op, from, err)
		}
	}
	if r.refused > 0 {
		err := fmt.Errorf("%d could not be published and stay: %w", r.refused, r.refusals)
		return r.replayed, &fault.Error{Op: op, Target: from, Cause: err}
	}
	return r.replayed, nil
}

// hasNoDeadLetters tells whether err only means that none of the messages of a stream, which exists, has
// died yet: their stream is made for the first.
func (c *Client) hasNoDeadLetters(ctx context.Context, letters string, err error) bool {
	stream, isTheirs := strings.CutSuffix(letters, deadLetterSuffix)
	if !isTheirs || !errors.Is(err, jetstream.ErrStreamNotFound) {
		return false
	}
	_, err = c.GetStreamInfo(ctx, stream)
	return err == nil
}

// replay is one call of ReplayDeadLetters.
type replay struct {
	client  *Client
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
func (r *replay) one(ctx context.Context, raw wire.Stored, letter *DeadLetter) error {
	_, trip := r.client.conn.Peer()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), replayTimeout+replayTrips*trip)
	defer cancel()
	if letter.Reference {
		if err := r.dereference(ctx, letter); err != nil {
			return r.note(err)
		}
	}
	subject := r.entry(ctx, letter.Stream, letter.Subject, letter.Header.Get(headerStreamSource), maxOrigins)
	for name := range letter.Header {
		if wire.IsServers(name) {
			delete(letter.Header, name)
		}
	}
	id := fmt.Sprintf("replay.%s.%d.%d", r.name, raw.Sequence, raw.Time.UnixNano())
	msg := &Message{Subject: subject, Header: letter.Header, Data: letter.Data}
	if _, err := r.client.PublishMsgToStream(ctx, msg, jetstream.WithMsgID(id)); err != nil {
		return r.note(err)
	}
	err := r.delete(ctx, r.name, raw.Sequence)
	if err == nil {
		r.release(ctx, letter)
		r.replayed++
		return nil
	}
	if _, gone := r.client.api.Stored(ctx, r.name, wire.Get{Sequence: raw.Sequence}); errors.Is(gone, jetstream.ErrMsgNotFound) {
		return nil // another call was faster; this one's copy was recognised
	}
	return err
}

// delete removes a message from a stream.
func (r *replay) delete(ctx context.Context, stream string, sequence uint64) error {
	question := struct {
		Sequence uint64 `json:"seq"`
		NoErase  bool   `json:"no_erase"` // as upstream's DeleteMsg
	}{sequence, true}
	return r.client.api.Ask(ctx, "STREAM.MSG.DELETE."+stream, question, &jsapi.Refusal{})
}

// dereference reads the message itself.
func (r *replay) dereference(ctx context.Context, letter *DeadLetter) error {
	const op = "read the message of a dead letter"
	m, err := r.client.api.Stored(ctx, letter.Stream, wire.Get{Sequence: letter.Sequence})
	if err == nil && !m.Time.Equal(letter.Stored) { // the stream was made anew
		err = jetstream.ErrMsgNotFound
	}
	if err != nil {
		return jsapi.Wrap(op, letter.Subject, err)
	}
	letter.Header, letter.Data = m.Header, m.Data
	return nil
}

// release deletes the message that a dead letter refers to, where it stayed for that and no more.
func (r *replay) release(ctx context.Context, letter *DeadLetter) {
	cfg := r.config(ctx, letter.Stream)
	if !letter.Reference || cfg == nil || cfg.Retention == jetstream.LimitsPolicy {
		return
	}
	if err := r.delete(ctx, letter.Stream, letter.Sequence); err != nil {
		r.client.log.Warn("a replayed message could not be deleted; it is delivered again", "stream", letter.Stream,
			"sequence", letter.Sequence, "error", err)
	}
}

// note takes an error of a publish and returns it unless it is a refusal of this message.
func (r *replay) note(err error) error {
	kind := fault.Kind(err)
	if kind == nil || slices.Contains([]error{ErrClosed, ErrNotConnected, ErrConnectionLost, ErrTimeout, ErrTooManyRequests, ErrResourceLimit}, kind) {
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

// undoAny undoes the first transform that can have made subject.
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
		if info, err := r.client.GetStreamInfo(ctx, stream); err == nil {
			cfg = &info.Config
		}
		r.streams[stream] = cfg
	}
	return cfg
}
