package pause_test

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
)

// Ten thousand clients of a server that died must not return together.
func TestReconnectPausesAreSpread(t *testing.T) {
	t.Parallel()
	const clients = 10_000
	wait, limit := 2*time.Second, 30*time.Second
	for round, bound := range map[int]time.Duration{1: wait, 2: 4 * time.Second, 3: 8 * time.Second, 5: limit, 1000: limit} {
		var buckets [10]int
		for range clients {
			d := pause.Jitter(round, wait, limit)
			require.GreaterOrEqual(t, d, time.Duration(0))
			require.LessOrEqual(t, d, bound)
			buckets[min(int(10*d/bound), 9)]++
		}
		// A tenth of the clients in each tenth of the time, within five standard deviations.
		for i, n := range buckets {
			assert.InDelta(t, clients/10, n, 5*math.Sqrt(clients*0.1*0.9), fmt.Sprint("round ", round, ", tenth ", i))
		}
	}
}

// drawn returns what f returns, often called.
func drawn(f func() time.Duration) []time.Duration {
	all := map[time.Duration]bool{}
	for range 1000 {
		all[f()] = true
	}
	return slices.Sorted(maps.Keys(all))
}

func TestPausesAreExact(t *testing.T) {
	t.Parallel()
	assert.Equal(t, []time.Duration{2, 3, 4}, drawn(func() time.Duration { return pause.Backoff(1, 4, 10) }))
	assert.Equal(t, []time.Duration{2, 3, 4}, drawn(func() time.Duration { return pause.Backoff(2, 2, math.MaxInt64) }))
	assert.Equal(t, []time.Duration{3, 4, 5, 6}, drawn(func() time.Duration { return pause.Backoff(9, 4, 6) }))
	assert.Equal(t, []time.Duration{0, 1, 2}, drawn(func() time.Duration { return pause.Jitter(2, 1, 9) }))
	assert.Equal(t, []time.Duration{0, 1, 2}, drawn(func() time.Duration { return pause.Jitter(1, 9, 2) }))
	assert.Equal(t, []time.Duration{8, 9, 10, 11, 12}, drawn(func() time.Duration { return pause.Varied(10) }))
	assert.Equal(t, []time.Duration{0}, drawn(func() time.Duration { return pause.Varied(0) }))
}

func TestSleep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		assert.True(t, pause.Sleep(ctx, 0))
		assert.True(t, pause.Sleep(ctx, time.Second))
		assert.Equal(t, time.Second, time.Since(began))
		assert.False(t, pause.Sleep(ctx, time.Hour))
		assert.Equal(t, 3*time.Second, time.Since(began))
		for range 100 {
			assert.False(t, pause.Sleep(ctx, 0), "it is over")
		}
	})
}
