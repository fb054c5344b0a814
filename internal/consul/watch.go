package consul

import (
	"context"
	"log/slog"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
)

// How a service is followed.
const (
	maxWait       = time.Minute            // that Consul holds a query without a change
	leastInterval = 250 * time.Millisecond // between two queries at least, however often it changes
	retryMin      = 200 * time.Millisecond
	retryMax      = 10 * time.Second
)

// Watch calls update with the service's URLs, at once and then after every change, until ctx ends;
// it returns the error of ctx. It follows the service with blocking queries as Consul's
// documentation asks (Blocking Queries: an index that goes backwards or is 0 starts afresh). A query
// waits for a minute at most, since a Consul restored from an older snapshot answers one for a later
// index only when its wait ends. An outage of Consul and an answer without a usable instance are
// logged and waited out, with pauses that double up to 10 s and have jitter: update is never called
// with an empty list.
func (r *Resolver) Watch(ctx context.Context, update func(urls []string)) error {
	var index uint64
	failures := 0 // queries in a row without servers
	hasty := 0    // blocking queries in a row that ended early with nothing new
	for {
		began := time.Now()
		urls, answered, err := r.follow(ctx, index)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case err == nil:
			if index == 0 || answered != index || failures > 0 {
				update(urls)
			}
			failures = 0
		case answered > 0 || index == 0: // without an instance, or without Consul
			if failures == 0 {
				r.log.WarnContext(ctx, "consul does not name the servers; the last known ones are kept",
					slog.String("service", r.service), slog.Any("error", err))
			}
			failures++
		default:
			// A proxy between may end what is idle for it. Whether Consul is away tells the next
			// query, which is answered at once.
		}

		wait := leastInterval
		switch {
		case index > 0 && time.Since(began) < retryMax && (answered == 0 || answered == index):
			hasty++
			wait = max(wait, pause.Backoff(hasty, retryMin, retryMax))
		case index > 0:
			hasty = 0
		case answered == 0 && err != nil:
			wait = pause.Backoff(failures, retryMin, retryMax)
		case answered == 0: // without an index there is no waiting for a change
			wait = retryMax
		}
		if answered < index {
			answered = 0
		}
		index = answered
		if !pause.Sleep(ctx, wait-time.Since(began)) {
			return ctx.Err()
		}
	}
}

// follow makes one query, which with an index Consul answers at the next change.
func (r *Resolver) follow(ctx context.Context, index uint64) ([]string, uint64, error) {
	limit := r.cfg.Timeout
	if index > 0 {
		limit += maxWait + maxWait/16 // Consul adds that much at random
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return r.query(ctx, index)
}
