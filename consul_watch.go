package nats

import (
	"context"
	"log/slog"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
)

// How a service is followed.
const (
	consulWait     = time.Minute            // that Consul holds a query without a change
	consulInterval = 250 * time.Millisecond // between two queries at least, however often it changes
	consulRetryMin = 200 * time.Millisecond
	consulRetryMax = 10 * time.Second
)

// Watch calls update with the service's URLs, at once and then after every change, until ctx ends;
// it returns the error of ctx. It follows the service with blocking queries as Consul's
// documentation asks (Blocking Queries: an index that goes backwards or is 0 starts afresh). A query
// waits for a minute at most, since a Consul restored from an older snapshot answers one for a later
// index only when its wait ends. An outage of Consul and an answer without a usable instance are
// logged and waited out, with pauses that double up to 10 s and have jitter: update is never called
// with an empty list.
func (r *ConsulResolver) Watch(ctx context.Context, update func(urls []string)) error {
	var index uint64
	failures := 0
	for {
		began := time.Now()
		urls, answered, err := r.follow(ctx, index)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if answered < index {
			answered = 0
		}
		if err == nil {
			if answered != index || failures > 0 {
				update(urls)
			}
			failures = 0
		} else {
			// An empty answer has an index: the next query waits for the change. Without one Consul
			// is away.
			if failures == 0 {
				r.log.WarnContext(ctx, "consul does not name the servers; the last known ones are kept",
					slog.String("service", r.service), slog.Any("error", err))
			}
			failures++
		}
		index = answered
		wait := consulInterval - time.Since(began)
		if index == 0 {
			wait = max(wait, pause.Backoff(failures, consulRetryMin, consulRetryMax))
		}
		if !pause.Sleep(ctx, wait) {
			return ctx.Err()
		}
	}
}

// follow makes one query, which with an index Consul answers at the next change.
func (r *ConsulResolver) follow(ctx context.Context, index uint64) ([]string, uint64, error) {
	limit := r.timeout
	if index > 0 {
		limit += consulWait + consulWait/16 // Consul adds that much at random
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return r.query(ctx, index)
}
