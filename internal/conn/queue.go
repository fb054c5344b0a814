package conn

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

const (
	// roomLimit is below how many queued bytes a message of any size is admitted.
	roomLimit = 1 << 20
	// piece is how much is written at once, so that room is made while a big queue drains.
	piece = 64 << 10
	// keepBuffer is the size of a buffer that an idle connection may keep, and keepFor for how long it
	// keeps a bigger one.
	keepBuffer = 64 << 10
	keepFor    = 10 * time.Second
)

// queue holds what is written until a goroutine has sent it. Nats.go writes under its lock: here that is
// a copy to memory, and who publishes waits for room before, under a context of its own.
type queue struct {
	limit int64 // at which Write waits: only those do who did not ask for room

	n        atomic.Int64 // bytes queued or being sent
	reserved atomic.Int64 // bytes admitted and not yet written
	blocked  atomic.Int64 // calls of write that wait
	wake     chan struct{}

	pool    sync.Pool // of waiters
	mu      sync.Mutex
	buf     []byte
	err     error         // why nothing is taken any more
	ending  bool          // nothing more is written; the rest is sent
	waiters []*roomWaiter // for room, in their order
	full    *sync.Cond    // signalled when the queue shrinks or ends
}

func newQueue(limit int64) *queue {
	q := &queue{limit: limit, wake: make(chan struct{}, 1)}
	q.full = sync.NewCond(&q.mu)
	return q
}

// uncounted is up to which size messages are admitted without a reservation: so many of them fit.
const uncounted = 1 << 10

// reserve admits a message of size bytes if there is room now. The reservation it returns is to be given
// back by done when the message has been written.
func (q *queue) reserve(size int) (reserved int64, ok bool) {
	if q.n.Load()+q.reserved.Load() >= roomLimit {
		return 0, false
	}
	if size <= uncounted {
		return 0, true
	}
	q.reserved.Add(int64(size))
	return int64(size), true
}

// spare tells whether the queue is far from full, so that what is short may be written without asking for room.
func (q *queue) spare() bool { return q.blocked.Load() == 0 && q.n.Load() < q.limit/2 }

// roomWaiter waits for its turn to try again. It is used again: a publisher that is faster than the line waits
// often.
type roomWaiter struct {
	turn  chan struct{} // holds a token when it is
	timer *time.Timer
}

var errNoRoomInTime = fmt.Errorf("no room: %w", context.DeadlineExceeded)

// admit is reserve when there is room. It waits for as long as ctx and most allow.
func (q *queue) admit(ctx context.Context, size int, most time.Duration) (reserved int64, err error) {
	if size > uncounted {
		reserved = int64(size)
	}
	w, _ := q.pool.Get().(*roomWaiter)
	if w == nil {
		w = &roomWaiter{turn: make(chan struct{}, 1), timer: time.NewTimer(most)}
	} else {
		w.timer.Reset(most)
	}
	defer q.pool.Put(w)
	defer w.timer.Stop()
	for !q.tryReserve(w, reserved) {
		select {
		case <-w.turn:
			continue
		case <-ctx.Done():
			err = fault.Ended(ctx)
		case <-w.timer.C:
			err = errNoRoomInTime
		}
		q.leave(w)
		return 0, err
	}
	return reserved, nil
}

// tryReserve reserves, or lets w wait for its turn.
func (q *queue) tryReserve(w *roomWaiter, size int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.over() || q.n.Load()+q.reserved.Load() < roomLimit {
		q.reserved.Add(size)
		q.signal() // there may be room for more than one
		return true
	}
	q.waiters = append(q.waiters, w)
	return false
}

// leave takes out a waiter that has given up; if it was its turn, the next one has it.
func (q *queue) leave(w *roomWaiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if i := slices.Index(q.waiters, w); i >= 0 {
		q.waiters = slices.Delete(q.waiters, i, i+1)
		return
	}
	<-w.turn
	q.signal()
}

// signal wakes the first waiter when there is room, all when the queue has ended. The caller holds q.mu.
func (q *queue) signal() {
	for len(q.waiters) > 0 && (q.over() || q.n.Load()+q.reserved.Load() < roomLimit) {
		q.waiters[0].turn <- struct{}{}
		q.waiters = slices.Delete(q.waiters, 0, 1)
		if !q.over() {
			return
		}
	}
}

// over tells whether nothing is taken any more. The caller holds q.mu.
func (q *queue) over() bool { return q.err != nil || q.ending }

// done gives a reservation back.
func (q *queue) done(reserved int64) {
	if reserved == 0 {
		return
	}
	q.reserved.Add(-reserved)
	q.shrunk()
}

func (q *queue) shrunk() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.signal()
	q.full.Broadcast()
}

// write appends p. It waits only above the limit.
func (q *queue) write(p []byte) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.over() && q.n.Load() > 0 && q.n.Load()+int64(len(p)) > q.limit {
		q.blocked.Add(1)
		q.full.Wait()
		q.blocked.Add(-1)
	}
	if q.err != nil {
		return q.err
	}
	if q.ending {
		return io.ErrClosedPipe
	}
	q.buf = append(q.buf, p...)
	q.n.Add(int64(len(p)))
	q.kick()
	return nil
}

func (q *queue) kick() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// end lets send return when what is queued has been sent.
func (q *queue) end() {
	q.mu.Lock()
	q.ending = true
	q.signal()
	q.full.Broadcast()
	q.mu.Unlock()
	q.kick()
}

// fail ends the queue at once; what it holds is not sent.
func (q *queue) fail(err error) {
	q.mu.Lock()
	if q.err == nil {
		q.err = err
	}
	q.signal()
	q.full.Broadcast()
	q.mu.Unlock()
	q.kick()
}

// send writes to w what is queued until the queue has ended, with everything sent, or w fails. It returns
// what it wrote last.
func (q *queue) send(w io.Writer) (last []byte, err error) {
	var spare []byte // what was written last, whose memory is used again
	idle := time.NewTimer(keepFor)
	defer idle.Stop()
	for {
		q.mu.Lock()
		var out []byte
		if len(q.buf) > 0 {
			out, q.buf = q.buf, spare[:0]
		}
		ending, err := q.ending, q.err
		big := cap(q.buf) > keepBuffer || cap(spare) > keepBuffer
		q.mu.Unlock()
		switch {
		case err != nil:
			return spare, err
		case len(out) > 0:
			if err := q.sendOut(w, out); err != nil {
				return out, err
			}
			spare = out
			continue
		case ending:
			return spare, nil
		}
		if !big {
			<-q.wake
			continue
		}
		idle.Reset(keepFor)
		select {
		case <-q.wake:
		case <-idle.C:
			spare = nil
			q.mu.Lock()
			if len(q.buf) == 0 {
				q.buf = nil
			}
			q.mu.Unlock()
		}
	}
}

func (q *queue) sendOut(w io.Writer, out []byte) error {
	for len(out) > 0 {
		n, err := w.Write(out[:min(piece, len(out))])
		out = out[n:]
		q.n.Add(-int64(n))
		q.shrunk()
		if err != nil {
			return err
		}
	}
	return nil
}
