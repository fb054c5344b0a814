package nats

import (
	"strconv"
	"sync"

	natsgo "github.com/nats-io/nats.go"
)

// replyMux receives the answers to all requests over one wildcard subscription, as nats.go does,
// but keeps the requests that are in flight when the connection is replaced: nats.go fails those.
type replyMux struct {
	nc     *natsgo.Conn
	prefix string // "_INBOX.<unique>."

	mu      sync.Mutex
	sub     *natsgo.Subscription // made by the first request
	last    uint64
	waiting map[string]chan *natsgo.Msg
}

func newReplyMux(nc *natsgo.Conn) *replyMux {
	return &replyMux{nc: nc, prefix: nc.NewInbox() + ".", waiting: make(map[string]chan *natsgo.Msg)}
}

// open returns a new reply subject and the channel on which its first answer comes.
func (r *replyMux) open() (reply string, answer <-chan *natsgo.Msg, err error) {
	ch := make(chan *natsgo.Msg, 1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sub == nil {
		sub, err := r.nc.Subscribe(r.prefix+"*", r.deliver)
		if err != nil {
			return "", nil, err
		}
		r.sub = sub
	}
	r.last++
	reply = r.prefix + strconv.FormatUint(r.last, 36)
	r.waiting[reply] = ch
	return reply, ch, nil
}

// close forgets a reply subject: what comes on it later is dropped.
func (r *replyMux) close(reply string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.waiting, reply)
}

func (r *replyMux) deliver(m *natsgo.Msg) {
	r.mu.Lock()
	ch := r.waiting[m.Subject]
	delete(r.waiting, m.Subject)
	r.mu.Unlock()
	if ch != nil {
		ch <- m // it has room for the one answer
	}
}
