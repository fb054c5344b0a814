package pause

import (
	"context"
	"math/rand/v2"
	"time"
)

// Backoff returns the pause after that many failures in a row: doubling from least to most, half
// of it at random.
func Backoff(failures int, least, most time.Duration) time.Duration {
	bound := doubled(failures, least, most)
	return bound/2 + time.Duration(rand.Int64N(int64(bound/2)+1)) //nolint:gosec // not a secret
}

// Sleep waits for d and tells whether ctx still lives.
func Sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// Varied changes a delay by up to a fifth.
func Varied(d time.Duration) time.Duration {
	fifth := int64(d) / 5
	return d - time.Duration(fifth) + time.Duration(rand.Int64N(max(2*fifth, 0)+1)) //nolint:gosec // not a secret
}

// Jitter returns the pause after that many failures in a row: anything up to a bound that doubles from
// least to most, so that the clients of a server that died do not return together.
func Jitter(failures int, least, most time.Duration) time.Duration {
	return time.Duration(rand.Int64N(int64(doubled(failures, least, most)) + 1)) //nolint:gosec // not a secret
}

// doubled is least after the first failure, and twice as much after each further one, up to most.
func doubled(failures int, least, most time.Duration) time.Duration {
	for ; failures > 1 && least <= most/2; failures-- {
		least *= 2
	}
	if failures > 1 {
		return most
	}
	return min(least, most)
}
