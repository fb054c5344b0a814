package jsapi

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
)

// How a publish that gets no answer finds out whether there is a stream at all. The server says
// "no responders" only where nobody listens: beside a core subscriber, a publish without a stream is
// met with silence.
const (
	finderTimeout = 500 * time.Millisecond // of one look-up, and what the way takes
	finderConfirm = 200 * time.Millisecond // between the two look-ups that it takes to say "none"
	finderFresh   = 2 * time.Second        // how long "there is one" holds
	finderMissing = 20 * time.Millisecond  // how long "none" holds: it may be created at any moment
	finderSize    = 1024                   // subjects remembered
)

// finder remembers which subjects a stream stores. While a leader is elected every publish
// goes unanswered, and thousands may be in flight: they ask once.
type finder struct {
	api *API

	mu    sync.Mutex
	known map[string]*finding
	near  map[string]time.Time // when a subject with that head was asked for in vain: the stream is there, or no answer
}

// verdict is what is known about the stream of a subject.
type verdict int

const (
	streamUnknown  verdict = iota // it is there, or nobody knows
	streamDoubted                 // it was not there a moment ago: ask again
	streamMissing                 // and no other account imports the subject
	streamHidden                  // the user may not ask
	streamDisabled                // the account has no JetStream
	streamAbsent                  // nobody answers for the API
)

// unheard is what a question has met that is not answered.
type unheard struct {
	begun  time.Time
	silent bool // nothing was heard, at least once
	nobody bool // the last word was that nobody listens
	hidden bool // and that was all, and the user may not ask for the stream
}

// judge returns the error that ends a question, or nil when it is to be asked again.
func (f *finder) judge(ctx context.Context, subject string, sure bool, u *unheard) error {
	found := f.missing(ctx, subject, sure)
	u.hidden = found == streamHidden && u.nobody && !u.silent
	switch alone := f.api.conn.Info().Cluster == "" && f.api.o.Domain+f.api.o.Prefix == ""; {
	case found == streamMissing, u.hidden && alone && time.Since(u.begun) > absence:
		return jetstream.ErrNoStreamResponse
	case u.nobody && found == streamDisabled:
		return jetstream.ErrJetStreamNotEnabledForAccount
	case u.nobody && found == streamAbsent:
		return f.api.Absent(natsgo.ErrNoResponders, u.begun)
	}
	return nil
}

// errMute ends a publish that is never answered.
var errMute = fault.Joined{fault.ErrFeatureDisabled, fault.Doubt("it has NoAck, so that what is sent may be stored but is not acknowledged; Publish does not wait for that")}

// finding is what is known of one subject.
type finding struct {
	turn    turn      // of those who ask the server; guards what follows
	asked   time.Time // when the server last answered
	verdict verdict
}

// Hopeless returns why there is no use in sending again what a stream is to store, as far as it is known, or nil. Last
// is what became of it, since when nothing else has, and silent whether it once was nothing at all.
func (a *API) Hopeless(ctx context.Context, subject string, since time.Time, silent bool, last error) error {
	if silent && a.window(ctx, subject, true).mute {
		return errMute
	}
	u := unheard{begun: since, silent: silent, nobody: errors.Is(last, natsgo.ErrNoResponders)}
	return a.finder.judge(ctx, subject, true, &u)
}

// Of returns the API that is asked about the stream of a subject. A key of another domain, or of the bucket that a
// mirror has its values from, begins with the prefix of the API there.
func (a *API) Of(subject string) (of *API, stored string) {
	at := strings.Index(subject, keyPrefix)
	switch {
	case at <= 0:
		return a, subject
	case subject[:at] == a.prefix:
		return a, subject[at:]
	}
	return &API{conn: a.conn, o: a.o, js: a.js, prefix: subject[:at]}, subject[at:]
}

const keyPrefix = "$KV."

// StreamOf returns the name of the stream that stores subject, or jetstream.ErrStreamNotFound.
func (a *API) StreamOf(ctx context.Context, subject string) (string, error) {
	names, err := a.StreamsOf(ctx, subject)
	if err == nil && len(names) == 0 {
		err = jetstream.ErrStreamNotFound
	}
	if err != nil {
		return "", err
	}
	return names[0], nil
}

// StreamsOf returns the names of the streams that store something of subject, which may have wildcards.
func (a *API) StreamsOf(ctx context.Context, subject string) ([]string, error) {
	of, stored := a.Of(subject)
	question := struct {
		Subject string `json:"subject"`
	}{stored}
	var answer struct {
		Refusal
		Names []string `json:"streams"`
	}
	err := of.Ask(ctx, "STREAM.NAMES", question, &answer)
	return answer.Names, err
}

// missing returns when something is known. One of many that wait for a slow server, which is not sure, asks only
// if nothing is known of similar subjects.
func (f *finder) missing(ctx context.Context, subject string, sure bool) verdict {
	for {
		if found, wait := f.ask(ctx, subject, sure); found != streamDoubted || !pause.Sleep(ctx, wait) {
			return found
		}
	}
}

// ask tells whether a stream stores subject. It takes two answers, a moment apart, to say that none
// does: a stream that was created just now may not have got around. No answer is no evidence.
func (f *finder) ask(ctx context.Context, subject string, sure bool) (found verdict, wait time.Duration) {
	_, stored := f.api.Of(subject)
	head := subjects.Head(stored)
	if !sure {
		turn := f.finding(head + ".").turn // no subject
		if !turn.take(ctx) {
			return streamUnknown, 0
		}
		defer turn.end()
		f.mu.Lock()
		near := time.Since(f.near[head]) < finderFresh
		f.mu.Unlock()
		if near {
			return streamUnknown, 0
		}
	}
	known := f.finding(subject)
	if !known.turn.take(ctx) {
		return streamUnknown, 0
	}
	defer known.turn.end()
	age := time.Since(known.asked)
	switch {
	case age >= finderFresh:
		known.verdict = streamUnknown
	case known.verdict != streamDoubted && known.verdict != streamMissing,
		known.verdict == streamDoubted && age < finderConfirm,
		known.verdict == streamMissing && age < finderMissing:
		return known.verdict, finderConfirm - age
	}
	ctx, cancel := f.api.briefly(ctx)
	defer cancel()
	if f.api.conn.Wait(ctx) != nil {
		return streamUnknown, 0
	}
	names, err := f.api.StreamsOf(ctx, subject)
	asked := time.Now()
	none := err == nil && len(names) == 0
	absent, disabled := errors.Is(err, natsgo.ErrNoResponders), fault.Kind(err) == fault.ErrJetStreamDisabled //nolint:errorlint // a sentinel of our own table
	switch {
	case none && known.verdict != streamUnknown: // the second time
		known.verdict = streamMissing
	case errors.Is(err, natsgo.ErrPermissionViolation):
		known.verdict = streamHidden
	case (none || absent || disabled) && f.api.isImported(ctx, subject):
		known.verdict = streamUnknown
	case none:
		known.verdict = streamDoubted
	case absent:
		known.verdict = streamAbsent
	case disabled:
		known.verdict = streamDisabled
	default: // it is there, or the server is slow to say anything
		known.verdict = streamUnknown
		f.mu.Lock()
		if f.near == nil || len(f.near) >= finderSize {
			f.near = make(map[string]time.Time)
		}
		f.near[head] = time.Now()
		f.mu.Unlock()
	}
	known.asked = asked
	return known.verdict, finderConfirm - time.Since(asked)
}

// briefly bounds the questions about a stream, two or three in a row, that a publish waits for.
func (a *API) briefly(ctx context.Context) (context.Context, context.CancelFunc) {
	_, trip := a.conn.Peer()
	return context.WithTimeout(ctx, finderTimeout+4*trip)
}

func (f *finder) finding(subject string) *finding {
	f.mu.Lock()
	defer f.mu.Unlock()
	found := f.known[subject]
	if found == nil {
		if f.known == nil || len(f.known) >= finderSize {
			f.known = make(map[string]*finding)
		}
		found = &finding{turn: newTurn()}
		f.known[subject] = found
	}
	return found
}

// turn is taken by one at a time of those who would ask the same.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// take tells whether it is the caller's turn, who then is to end it: not when ctx ends before.
func (t turn) take(ctx context.Context) bool {
	select {
	case t <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (t turn) end() { <-t }
