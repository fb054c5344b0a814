package jsapi

import (
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
	windowFresh   = time.Minute     // how long an answer holds
	windowStreams = 256             // remembered
)

// windows remembers for how long the streams know the IDs of messages.
type windows struct {
	turn chan struct{} // full while a server is asked
	mu   sync.Mutex
	all  []window
}

// window is that of the stream, or several, that store certain subjects.
type window struct {
	subjects []string
	length   time.Duration
	asked    time.Time
}

// find returns what is remembered, or 0.
func (w *windows) find(subject string) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = slices.DeleteFunc(w.all, func(one window) bool { return time.Since(one.asked) > windowFresh })
	for _, one := range w.all {
		if slices.ContainsFunc(one.subjects, func(s string) bool { return subjects.Covers(s, subject) }) {
			return one.length
		}
	}
	return 0
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
// nobody has said so yet: it asks for half a second, if at all. Where there is no right to ask, it is the server's
// default.
func (a *API) Window(ctx context.Context, subject string, ask bool) time.Duration {
	const unknown = -1
	subject = strings.TrimPrefix(subject, a.prefix) // keys of a domain have it
	length := a.windows.find(subject)
	switch {
	case length > 0:
		return length
	case !ask:
		return unknown
	}
	ctx, cancel := context.WithTimeout(ctx, finderTimeout)
	defer cancel()
	select {
	case a.windows.turn <- struct{}{}:
		defer func() { <-a.windows.turn }()
	case <-ctx.Done():
		return unknown
	}
	if length = a.windows.find(subject); length > 0 {
		return length
	}
	head := subjects.Head(subject)
	found := window{subjects: []string{head, head + ".>"}, length: windowDefault}
	var answer struct {
		Refusal
		Config jetstream.StreamConfig `json:"config"`
	}
	name, err := a.StreamOf(ctx, subject)
	if err == nil {
		err = a.Ask(ctx, "STREAM.INFO."+name, nil, &answer)
	}
	switch {
	case err == nil:
		found.subjects = append(answer.Config.Subjects, subject)
		if answer.Config.Duplicates > 0 {
			found.length = answer.Config.Duplicates
		}
	case ctx.Err() != nil:
		return unknown
	case errors.Is(err, jetstream.ErrStreamNotFound): // of another account, perhaps
		return windowDefault
	}
	found.asked = time.Now()
	a.windows.add(found)
	return found.length
}
