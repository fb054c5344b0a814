package health

import (
	"context"
	"sync"
	"time"
)

const (
	lookEvery = time.Second
	warnEvery = time.Minute
	// patience is how long a probe waits for a look.
	patience = 300 * time.Millisecond
	// longest is how long one look waits: a line may be slow.
	longest = 5 * time.Second
)

// lookout is what is known of the server.
type lookout struct {
	// Ask returns when the server has answered.
	Ask func(context.Context) error
	// Warn returns what is no failure yet. It is called now and then, after an answer.
	Warn func(context.Context) []string

	mu       sync.Mutex
	begun    time.Time     // of the last look
	over     chan struct{} // closed at its end
	answered bool
	warned   time.Time
	seen     sighting
}

// sighting is what the last look has shown.
type sighting struct {
	// Silent is when the first look began that was not answered; zero when the last one was.
	Silent   time.Time
	RTT      time.Duration
	Warnings []string
}

// Last returns what is known without a look.
func (l *lookout) Last() sighting {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := l.seen
	if !l.answered && seen.Silent.IsZero() {
		seen.Silent = l.begun // for the time being
	}
	return seen
}

// Look returns what is seen now. A look that it begins ends with life.
func (l *lookout) Look(ctx, life context.Context) sighting {
	l.mu.Lock()
	if (l.over == nil || isClosed(l.over)) && time.Since(l.begun) >= lookEvery && life.Err() == nil {
		l.begun, l.over, l.answered = time.Now(), make(chan struct{}), false
		go l.look(life, l.begun, l.over)
	}
	left, over := patience-time.Since(l.begun), l.over
	l.mu.Unlock()
	if left > 0 { // else there was time for an answer, or no look was ever begun
		select {
		case <-over:
		case <-time.After(left):
		case <-ctx.Done():
		}
	}
	return l.Last()
}

func (l *lookout) look(life context.Context, begun time.Time, over chan struct{}) {
	defer close(over)
	ctx, cancel := context.WithTimeout(life, longest)
	defer cancel()
	err := l.Ask(ctx)
	l.mu.Lock()
	l.answered = err == nil
	switch {
	case l.answered:
		l.seen.Silent, l.seen.RTT = time.Time{}, time.Since(begun)
	case l.seen.Silent.IsZero():
		l.seen.Silent = begun
	}
	warn := l.answered && time.Since(l.warned) >= warnEvery
	if warn {
		l.warned = begun
	}
	l.mu.Unlock()
	if warn {
		warnings := l.Warn(ctx)
		l.mu.Lock()
		l.seen.Warnings = warnings
		l.mu.Unlock()
	}
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
