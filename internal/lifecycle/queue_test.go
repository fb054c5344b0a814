package lifecycle_test

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lifecycle"
)

// Values come in order; a handler that hangs loses the oldest, and is told how many; one that ends its goroutine gets
// the next one.
func TestQueue(t *testing.T) {
	t.Parallel()
	type told struct{ value, lost int }
	got, begun, goOn := make(chan told), make(chan struct{}), make(chan struct{})
	q := lifecycle.Queue[int]{Handle: func(value, lost int) {
		if value == 1 {
			close(begun)
			<-goOn
			runtime.Goexit()
		}
		got <- told{value, lost}
	}}
	q.Push(0)
	assert.Equal(t, told{0, 0}, <-got)
	q.Push(1)
	<-begun
	for i := range 1030 {
		q.Push(i + 2)
	}
	close(goOn)
	assert.Equal(t, told{8, 6}, <-got)
	for i := 9; i < 1032; i++ {
		assert.Equal(t, told{i, 0}, <-got)
	}
}

func TestQueueThatKeepsAll(t *testing.T) {
	t.Parallel()
	got, goOn := make(chan int, 2000), make(chan struct{})
	q := lifecycle.Queue[int]{Whole: true, Handle: func(value, lost int) {
		<-goOn
		got <- value + lost
	}}
	for i := range 2000 {
		q.Push(i)
	}
	close(goOn)
	for i := range 2000 {
		assert.Equal(t, i, <-got)
	}
}
