package lifecycle

import "sync"

// backlog bounds the memory of a handler that hangs.
const backlog = 1024

// Queue hands values to a handler in order, one at a time, without ever blocking who pushes them. It has a goroutine
// while there is something to hand out, and so needs no one to stop it. Its methods are safe for concurrent use.
type Queue[T any] struct {
	// Handle gets each value, and how many were lost before it because it was too slow. It does not panic.
	Handle func(value T, lost int)
	// Whole keeps all values, however many wait.
	Whole bool

	mu      sync.Mutex
	waiting []T
	lost    int
	running bool
}

// Push adds a value.
func (q *Queue[T]) Push(value T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == backlog && !q.Whole {
		q.waiting = append(q.waiting[:0], q.waiting[1:]...)
		q.lost++
	}
	q.waiting = append(q.waiting, value)
	if !q.running {
		q.running = true
		go q.run()
	}
}

func (q *Queue[T]) run() {
	for {
		q.mu.Lock()
		if len(q.waiting) == 0 {
			q.running = false
			q.waiting = nil
			q.mu.Unlock()
			return
		}
		value, lost := q.waiting[0], q.lost
		q.waiting, q.lost = q.waiting[1:], 0
		q.mu.Unlock()
		q.handle(value, lost)
	}
}

// handle hands a value out. A handler that ends its goroutine gets the next one in another.
func (q *Queue[T]) handle(value T, lost int) {
	returned := false
	defer func() {
		if !returned {
			go q.run()
		}
	}()
	q.Handle(value, lost)
	returned = true
}
