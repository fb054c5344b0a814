package lifecycle_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lifecycle"
)

// The last is stopped first, what comes late at once, and one that hangs is not waited for for ever.
func TestBeside(t *testing.T) {
	t.Parallel()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	var none, some, hangs lifecycle.Beside
	assert.True(t, none.Stop(over), "nothing is to be done")
	var stopped []int
	for i := range 3 {
		some.Add(func() { stopped = append(stopped, i) })
	}
	assert.True(t, some.Stop(t.Context()))
	some.Add(func() { stopped = append(stopped, 3) })
	assert.Equal(t, []int{2, 1, 0, 3}, stopped)
	release, released := make(chan struct{}), make(chan struct{})
	hangs.Add(func() { <-release; close(released) })
	assert.False(t, hangs.Stop(over))
	close(release)
	<-released
}
