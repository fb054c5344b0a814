package pause_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
)

func TestPacePatience(t *testing.T) {
	t.Parallel()
	var p pause.Pace
	assert.Equal(t, 500*time.Millisecond, p.Patience(1, 0))
	assert.Equal(t, time.Second, p.Patience(2, 0))
	assert.Equal(t, 4*time.Second, p.Patience(20, 0))
	assert.Equal(t, 3*time.Second, p.Patience(1, 2*time.Second), "a line that is known to be slow")
	for range 20 {
		p.Answered(time.Now().Add(-time.Second))
	}
	assert.Greater(t, p.Patience(1, 0), time.Second, "a slow line")
	assert.Less(t, p.Patience(1, 0), 4*time.Second)
	p.Answered(time.Now().Add(-time.Hour))
	assert.LessOrEqual(t, p.Patience(1, 0), 4*time.Second)
}

// The time is a bubble's own here: what is told is exact.
func TestPaceLearns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p pause.Pace
		sent := time.Now()
		time.Sleep(500 * time.Millisecond)
		p.Answered(sent)
		assert.Equal(t, 1500*time.Millisecond, p.Patience(1, 0), "the first answer's time, and four times its half")
		sent = time.Now()
		time.Sleep(900 * time.Millisecond)
		p.Answered(sent)
		assert.Equal(t, 1700*time.Millisecond, p.Patience(1, 0), "550 ms, give or take 287.5 ms")
	})
}

func TestPaceWindowIsExact(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p pause.Pace
		for range 3 {
			assert.True(t, p.Enter())
		}
		p.Leave()
		assert.True(t, p.Enter(), "who leaves makes no limit")
		for range 38 {
			assert.True(t, p.Enter())
		}
		p.Refused() // of 41: the window is 20, and 40 are in it
		for range 11 {
			assert.False(t, p.Enter())
			p.Leave()
		}
		assert.True(t, p.Enter(), "29 in a window of 31")
		assert.True(t, p.Enter())
		assert.False(t, p.Enter(), "31 in it")
		time.Sleep(201 * time.Millisecond)
		for range 5 {
			p.Leave() // 26, in a window of 36, of which more than are there do not count
		}
		p.Refused() // 16, the least, and 25 are in it
		for range 5 {
			assert.False(t, p.Enter())
			p.Leave()
		}
		assert.True(t, p.Enter(), "20 in a window of 21")

		p = pause.Pace{}
		for range 300 {
			p.Enter()
		}
		p.Refused() // the window is 150
		time.Sleep(201 * time.Millisecond)
		p.Refused() // 75, though 298 are in it
		for range 112 {
			assert.False(t, p.Enter())
			p.Leave()
		}
		assert.True(t, p.Enter(), "186 in a window of 187")
	})
}

func TestPaceAskers(t *testing.T) {
	t.Parallel()
	var p pause.Pace
	asking := 0
	for asking < 100 && p.Ask() {
		asking++
	}
	assert.Equal(t, 16, asking)
	p.Asked()
	assert.True(t, p.Ask())

	sent := time.Now().Add(-time.Second)
	assert.False(t, p.Lost(sent))
	p.Answered(sent)
	assert.False(t, p.Lost(sent))
	p.Answered(sent.Add(time.Millisecond))
	assert.True(t, p.Lost(sent), "something sent later was answered")
	p.Answered(sent.Add(-time.Second))
	assert.True(t, p.Lost(sent), "and is not forgotten")
}

func TestPaceWindow(t *testing.T) {
	t.Parallel()
	var p pause.Pace
	for range 1000 {
		assert.True(t, p.Enter(), "without a limit")
	}
	p.Refused()
	p.Refused() // of the same burst
	assert.False(t, p.Enter())
	in := 998
	for ; !p.Enter(); in-- {
		p.Leave()
	}
	assert.InDelta(t, 750, in, 2, "half of them, and one more for each that was answered")
	for range in + 1 {
		p.Leave()
	}
	for range 2000 {
		assert.True(t, p.Enter(), "without a limit again")
	}
}

func TestPaceLook(t *testing.T) {
	t.Parallel()
	var p pause.Pace
	assert.Equal(t, 100*time.Millisecond, p.Look(), "few look often")
	for range 2000 {
		p.Enter()
	}
	assert.Equal(t, 200*time.Millisecond, p.Look())
	for range 20_000 {
		p.Enter()
	}
	assert.Equal(t, 500*time.Millisecond, p.Look(), "many do not")
}
