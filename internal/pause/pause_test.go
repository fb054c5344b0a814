package pause_test

import (
	"fmt"
	"math"
	"testing"
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
