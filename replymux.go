package nats

import (
	"strconv"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// replyMux receives the answers to all requests over one wildcard subscription, as nats.go does,
// but keeps the requests that are in flight when the connection is replaced: nats.go fails those.
type replyMux struct {
	nc     *natsgo.Conn
	prefix string // "_INBOX.<unique>."
	pool   sync.Pool

	mu      sync.Mutex
	sub     *natsgo.Subscription // made by the first request
	last    uint64
	waiting map[string]*waiter
}

// waiter waits for one answer, for a time. It is used again, channel and timer included: together
// they are half of what a request allocates.
type waiter struct {
	reply  string // the subject of the answer, once it is open
	answer chan *natsgo.Msg
	timer  *time.Timer
}

func newReplyMux(nc *natsgo.Conn) *replyMux {
	r := &replyMux{nc: nc, prefix: nc.NewInbox() + ".", waiting: make(map[string]*waiter)}
	r.pool.New = func() any {
		return &waiter{answer: make(chan *natsgo.Msg, 1), timer: time.NewTimer(time.Hour)}
	}
	return r
}

// waiter returns a waiter whose timer runs.
func (r *replyMux) waiter(timeout time.Duration) *waiter {
	w := r.pool.Get().(*waiter) // the pool holds nothing else
	w.timer.Reset(timeout)
	return w
}

// open gives w a reply subject of its own.
func (r *replyMux) open(w *waiter) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sub == nil {
		sub, err := r.nc.Subscribe(r.prefix+"*", r.deliver)
		if err != nil {
			return err
		}
		r.sub = sub
	}
	r.last++
	token := make([]byte, 0, 64) // on the stack
	w.reply = string(strconv.AppendUint(append(token, r.prefix...), r.last, 36))
	r.waiting[w.reply] = w
	return nil
}

// close ends a waiter. What comes on its reply subject later is dropped.
func (r *replyMux) close(w *waiter) {
	r.mu.Lock()
	delete(r.waiting, w.reply)
	r.mu.Unlock()
	w.timer.Stop()
	select {
	case <-w.answer: // it came too late to be taken
	default:
	}
	w.reply = ""
	r.pool.Put(w)
}

// deliver sends under the lock: after close nothing comes any more, so w can be used again.
func (r *replyMux) deliver(m *natsgo.Msg) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w := r.waiting[m.Subject]; w != nil {
		delete(r.waiting, m.Subject)
		w.answer <- m // it has room for one
	}
}
