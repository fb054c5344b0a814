package kv

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

// A value is over when its time is, however long that is, and late when that was long ago.
func TestOver(t *testing.T) {
	t.Parallel()
	minuteOld := lifetime{created: time.Now().Add(-time.Minute).UnixNano()}
	for _, late := range []time.Duration{0, sweepLate} {
		for ttl, over := range map[time.Duration]bool{0: false, time.Second: true, time.Hour: false, math.MaxInt64: false} {
			assert.Equal(t, over, (&facts{ttl: ttl}).over(minuteOld, late), "%v late by %v", ttl, late)
		}
	}
	assert.False(t, (&facts{ttl: time.Second}).over(minuteOld, time.Hour))
	assert.False(t, (&facts{ttl: time.Second, ahead: -time.Hour}).over(minuteOld, 0))
}
