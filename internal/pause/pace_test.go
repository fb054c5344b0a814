package pause_test

import (
	"testing"
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
