package jsapi

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
)

const (
	windowDefault = 2 * time.Minute // the server's own
	windowFresh   = time.Hour       // how long an answer holds: while a cluster elects nobody may give a new one
	windowStreams = 256             // remembered
)

// windows remembers what publishers must know of the streams.
type windows struct {
	turn turn // of those who ask a server
	mu   sync.Mutex
	all  []window
}

// window is that of the stream, or several, that store certain subjects.
type window struct {
	subjects []string
	length   time.Duration // for how long it knows the IDs of messages
	maxAge   time.Duration
	maxSize  int32 // of a message; without a limit it is not positive
	mute     bool  // it acknowledges nothing
	asked    time.Time
}

// find returns what is remembered. Its length is 0 when that is nothing.
func (w *windows) find(subject string) (found window) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = slices.DeleteFunc(w.all, func(one window) bool { return time.Since(one.asked) > windowFresh })
	for _, one := range w.all {
		if slices.ContainsFunc(one.subjects, func(s string) bool { return subjects.Covers(s, subject) }) {
			return one
		}
	}
	return window{}
}

func (w *windows) add(one window) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.all) >= windowStreams {
		w.all = w.all[1:]
	}
	w.all = append(w.all, one)
}

// Window returns for how long the stream that stores subject knows the ID of a message, or a negative time when
// nobody has said so yet: it asks for half a second and some round trips, if at all. Where there is no right to ask,
// it is the server's default.
func (a *API) Window(ctx context.Context, subject string, ask bool) time.Duration {
	return a.window(ctx, subject, ask).length
}

// MaxAge returns that of the stream that stores subject, and 0 where there is none, or nobody says so soon.
func (a *API) MaxAge(ctx context.Context, subject string) time.Duration {
	return a.window(ctx, subject, true).maxAge
}

// MaxSize returns the limit that the stream that stores subject has for a message, as MaxAge does.
func (a *API) MaxSize(ctx context.Context, subject string) int {
	return int(a.window(ctx, subject, true).maxSize)
}

func (a *API) window(ctx context.Context, subject string, ask bool) window {
	unknown := window{length: -1}
	subject = strings.TrimPrefix(subject, a.prefix) // keys of a domain have it
	found := a.windows.find(subject)
	switch {
	case found.length > 0:
		return found
	case !ask:
		return unknown
	}
	ctx, cancel := a.briefly(ctx)
	defer cancel()
	if !a.windows.turn.take(ctx) {
		return unknown
	}
	defer a.windows.turn.end()
	if found = a.windows.find(subject); found.length > 0 {
		return found
	}
	head := subjects.Head(subject)
	found = window{subjects: []string{head, head + ".>"}, length: windowDefault, asked: time.Now()}
	var info *jetstream.StreamInfo
	of, stored := a.Of(subject)
	name, err := of.StreamOf(ctx, stored)
	if err == nil {
		info, err = of.StreamInfo(ctx, name)
	}
	switch {
	case err == nil:
		found.subjects = []string{subject}
		for _, own := range info.Config.Subjects {
			found.subjects = append(found.subjects, strings.TrimSuffix(subject, stored)+own) // of another domain have its prefix
		}
		found.length, found.maxAge = cmp.Or(info.Config.Duplicates, windowDefault), info.Config.MaxAge
		found.maxSize, found.mute = info.Config.MaxMsgSize, info.Config.NoAck
	case ctx.Err() != nil:
		return unknown
	case errors.Is(err, jetstream.ErrStreamNotFound): // of another account, perhaps
		return found
	}
	a.windows.add(found)
	return found
}
