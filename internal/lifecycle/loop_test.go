package lifecycle_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lifecycle"
)

// Close closes what a loop has open, beside the caller who is at work, and when he is not, after the loop was told to stop.
func TestLoop(t *testing.T) {
	t.Parallel()
	l := lifecycle.New()
	nothing := func(context.Context) {}
	var stopped, ended [2]bool
	loop := func(i int) *lifecycle.Loop {
		stop := make(chan struct{})
		o, err := l.Loop(func() { stopped[i] = true; close(stop) }, func() { ended[i] = true })
		require.NoError(t, err)
		if i == 1 {
			go func() {
				<-stop
				o.Over()
			}()
		}
		return o
	}
	working := loop(0)
	loop(1)
	assert.Panics(t, func() { working.Work(func() bool { panic("the caller") }) })
	assert.True(t, working.Work(func() bool {
		_, err := l.Close(context.Background(), nothing, nothing)
		return assert.NoError(t, err)
	}))
	assert.Equal(t, [2]bool{true, true}, stopped)
	assert.Equal(t, [2]bool{true, true}, ended)
	working.Over()
	_, err := l.Loop(func() {}, func() {})
	require.ErrorIs(t, err, fault.ErrClosed)
}
