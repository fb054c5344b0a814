package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// Resolver finds the NATS servers at run time. [ConsulResolver] is the one that Config.UseConsul
// selects; any other registry can stand in its place.
type Resolver interface {
	// Resolve returns the URLs of the servers, best first: nats://, tls://, ws:// or wss://, host
	// and port. It returns when ctx ends at the latest. Finding no server is an error.
	Resolve(ctx context.Context) ([]string, error)
}

// discover asks r for the servers. When r fails, finds nothing, or has no answer within timeout,
// it logs one warning and returns fallback together with the reason, so that the caller can start
// anyway and still tell that discovery failed.
func discover(
	ctx context.Context, r Resolver, timeout time.Duration, fallback []string, log *slog.Logger,
) ([]string, error) {
	urls, err := resolveWithin(ctx, r, timeout)
	if err == nil && len(urls) == 0 {
		err = fail("discover", "", nil, "the resolver found no server")
	}
	if err == nil {
		return urls, nil
	}
	// The servers are counted, not listed: their URLs may hold passwords.
	log.WarnContext(ctx, "discovery failed, using the configured servers",
		slog.Int("servers", len(fallback)), slog.Any("error", err))
	return slices.Clone(fallback), err
}

// resolveWithin calls r in a goroutine of its own, since a resolver that is not ours may disregard
// its context, or panic, and neither may keep the client from starting.
func resolveWithin(ctx context.Context, r Resolver, timeout time.Duration) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	type answer struct {
		urls []string
		err  error
	}
	answers := make(chan answer, 1) // buffered: a late answer must not block the resolver's goroutine
	go func() {
		// Sent by the deferred call, so that runtime.Goexit inside r is answered too.
		a := answer{err: errors.New("the resolver ended without an answer")}
		defer func() {
			if v := recover(); v != nil {
				a = answer{err: fmt.Errorf("the resolver panicked: %v", v)}
			}
			answers <- a
		}()
		a.urls, a.err = r.Resolve(ctx)
	}()

	select {
	case a := <-answers:
		return a.urls, wrap("discover", "", a.err)
	case <-ctx.Done():
	}
	// A resolver that obeys its context answers now, and knows better what it was waiting for.
	grace := time.NewTimer(resolverGrace)
	defer grace.Stop()
	select {
	case a := <-answers:
		return a.urls, wrap("discover", "", a.err)
	case <-grace.C:
		return nil, wrap("discover", "", fmt.Errorf("no answer from the resolver: %w", ctx.Err()))
	}
}

// resolverGrace is how long after the end of its context a resolver's own error is waited for.
const resolverGrace = 20 * time.Millisecond
