package consume

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestHowMuchIsFetchedAhead(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for _, test := range []struct {
		pace   pace
		target int
	}{
		{pace{workers: 4}, 4}, // the process may die on the first
		{pace{workers: 4, trip: 99 * ms}, 4},
		{pace{workers: 4, trip: 100 * ms}, 4 + 4*20}, // one trip of handlers that take 5 ms
		{pace{workers: 4, trip: 100 * ms, bound: 10 * ms}, 4 + 4*2},
		{pace{workers: 1, handling: ms}, 1 + 10},                      // 10 ms at least
		{pace{workers: 1, handling: ms, trip: 5 * ms}, 1 + 20},        // four trips
		{pace{workers: 1, handling: ms, trip: 200 * ms}, 1 + 500},     // 500 ms at most
		{pace{workers: 1, handling: 10 * ms, trip: 400 * ms}, 1 + 80}, // two trips where that is more
		{pace{workers: 1, handling: ms, trip: 5 * ms, bound: 3 * ms}, 1 + 3},
		{pace{workers: 1, handling: 20 * ms}, 1}, // nothing waits behind slow ones
		{pace{workers: 1, handling: 1}, 1 + 512},
		{pace{workers: 4, handling: 1}, 4 + 512},
		{pace{workers: 1000, handling: 1}, 1000 + 1000}, // one for each worker
	} {
		assert.Equal(t, test.target, test.pace.target(), "%+v", test.pace)
	}
	for p, most := range map[pace]int{
		{}: 1000, {bound: 100 * ms}: 1000, {handling: ms}: 1000, {bound: 2 * time.Second, handling: ms}: 1000, {bound: 100 * ms, handling: 10 * ms}: 10,
	} {
		assert.Equal(t, most, p.mayWait(), "%+v", p)
	}
}

func TestWhichHandlersAreTimed(t *testing.T) {
	t.Parallel()
	for handling, timed := range map[time.Duration]int{0: 32, time.Microsecond: 2, time.Millisecond: 2, time.Millisecond + 1: 32} {
		p, n := pace{handling: handling}, 0
		for range 32 {
			if p.sample() {
				n++
			}
		}
		assert.Equal(t, timed, n, handling)
	}
	var p pace
	for _, took := range []time.Duration{-1, 0, 80, 160, 2} {
		p.observe(took)
	}
	assert.Equal(t, time.Duration(90-88/8), p.handling)
}
