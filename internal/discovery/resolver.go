package discovery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
)

// Resolver finds servers.
type Resolver interface {
	Resolve(ctx context.Context) ([]string, error)
}

// Watcher is a Resolver that also tells of changes, until ctx ends.
type Watcher interface {
	Resolver
	Watch(ctx context.Context, update func(urls []string)) error
}

const (
	// grace is how long after the end of its context a resolver's own error is waited for.
	grace = 20 * time.Millisecond
	// The pauses between two attempts to follow.
	retryMin = 200 * time.Millisecond
	retryMax = 10 * time.Second
)

// Ask returns what r resolves within the time, at least one server, or why there is none.
func Ask(ctx context.Context, r Resolver, within time.Duration) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	urls, err := contain(ctx, func() ([]string, error) { return r.Resolve(ctx) })
	if err == nil && len(urls) == 0 {
		err = errors.New("the resolver found no server")
	}
	if err != nil {
		return nil, fault.Wrap("discover", "", err)
	}
	return urls, nil
}

// Follow tells update of every list that r names, one at a time and never an empty one, until ctx ends.
// Each time that r fails or ends early it is told to failed, and r is asked again after a pause that
// grows. A resolver that is no Watcher is asked, within the time, until it has answered once.
func Follow(ctx context.Context, r Resolver, within time.Duration, update func(urls []string), failed func(error)) {
	var mu sync.Mutex
	tell := func(urls []string) {
		mu.Lock()
		defer mu.Unlock()
		if len(urls) > 0 && ctx.Err() == nil {
			update(urls)
		}
	}
	w, watches := r.(Watcher)
	for failures := 1; ; failures++ {
		began := time.Now()
		var err error
		if watches {
			_, err = contain(ctx, func() ([]string, error) { return nil, w.Watch(ctx, tell) })
			if err == nil {
				err = errors.New("the resolver's Watch ended early")
			}
		} else {
			var urls []string
			if urls, err = Ask(ctx, r, within); err == nil {
				tell(urls)
				return
			}
		}
		if ctx.Err() != nil {
			return
		}
		failed(err)
		if time.Since(began) > retryMax {
			failures = 1 // it held until now
		}
		if !pause.Sleep(ctx, pause.Backoff(failures, retryMin, retryMax)) {
			return
		}
	}
}

// contain returns what f returns, or that it panicked or ended its goroutine. It does not wait for an f
// that disregards the end of ctx.
func contain(ctx context.Context, f func() ([]string, error)) ([]string, error) {
	type answer struct {
		urls []string
		err  error
	}
	answers := make(chan answer, 1) // buffered: a late answer must not block f's goroutine
	go func() {
		// Sent by the deferred call, so that runtime.Goexit inside f is answered too.
		a := answer{err: errors.New("the resolver ended without an answer")}
		defer func() {
			if v := recover(); v != nil {
				a = answer{err: fmt.Errorf("the resolver panicked: %v", v)}
			}
			answers <- a
		}()
		a.urls, a.err = f()
	}()

	select {
	case a := <-answers:
		return a.urls, a.err
	case <-ctx.Done():
	}
	// A resolver that obeys its context answers now, and knows better what it was waiting for.
	select {
	case a := <-answers:
		return a.urls, a.err
	case <-time.After(grace):
		return nil, fmt.Errorf("no answer from the resolver: %w", ctx.Err())
	}
}
