package nats

import (
	"context"
	"strconv"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
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
	subject string           // of the request
	reply   string           // the subject of the answer, once it is open
	answer  chan *natsgo.Msg // nil when the server denied the request
	denied  error
	timer   *time.Timer
	since   time.Time
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
	w.since = time.Now()
	return w
}

// open gives w, which waits for the answer to a request on subject, a reply subject of its own.
func (r *replyMux) open(w *waiter, subject string) error {
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
	w.subject = subject
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
	w.subject, w.reply, w.denied = "", "", nil
	r.pool.Put(w)
}

// deliver sends under the lock: after close nothing comes any more, so w can be used again.
func (r *replyMux) deliver(m *natsgo.Msg) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w := r.waiting[m.Subject]; w != nil {
		delete(r.waiting, w.reply)
		w.answer <- m // it has room for one
	}
}

// deny fails the requests that a permission error of the server means and tells whether there are
// any: those on the subject that may not be published to, or all, when the answers' subject may not
// be subscribed to.
func (r *replyMux) deny(err error) bool {
	v := fault.DeniedBy(err)
	if v.Subject == "" || !v.Publish && v.Subject != r.prefix+"*" {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	settled := false
	for _, w := range r.waiting {
		if !v.Publish || w.subject == v.Subject {
			delete(r.waiting, w.reply)
			w.denied = err
			w.answer <- nil
			settled = true
		}
	}
	if !v.Publish && r.sub != nil {
		_ = r.sub.Unsubscribe() // the next request tries again
		r.sub = nil
	}
	return settled
}

// settlePoll is how often settle looks.
const settlePoll = 2 * time.Millisecond

// settle waits for the answers to the requests that are open, to each until it is that old.
func (r *replyMux) settle(ctx context.Context, age time.Duration) {
	for pause.Sleep(ctx, 0) {
		young := false
		r.mu.Lock()
		for _, w := range r.waiting {
			if young = time.Since(w.since) < age; young {
				break
			}
		}
		r.mu.Unlock()
		if !young || !pause.Sleep(ctx, settlePoll) {
			return
		}
	}
}
