package nats

import (
	"sync"
	"sync/atomic"

	natsgo "github.com/nats-io/nats.go"
)

// inboxes are the reply subjects of a client's pulls, for a bridge to receive on as well.
type inboxes struct {
	mu        sync.Mutex
	receivers map[string]natsgo.MsgHandler
	bridge    *bridge // nil most of the time

	seen atomic.Pointer[sync.Map] // deliveries, by acknowledgement subject, in a bridge's time; else nil
}

// add makes a bridge receive for an inbox. Receive is then called from two goroutines.
func (i *inboxes) add(inbox string, receive natsgo.MsgHandler) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.receivers[inbox] = receive
	if i.bridge != nil {
		i.bridge.receive(inbox, receive)
	}
}

func (i *inboxes) remove(inbox string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.receivers, inbox)
}

// open lets b receive for all inboxes, those to come included.
func (i *inboxes) open(b *bridge) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.seen.Store(new(sync.Map))
	i.bridge = b
	for inbox, receive := range i.receivers {
		b.receive(inbox, receive)
	}
}

// close ends what open began; copies of what the bridge received may still come.
func (i *inboxes) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.bridge = nil
}

// isCopy tells whether the same delivery has come over the other connection.
func (i *inboxes) isCopy(m *natsgo.Msg) bool {
	seen := i.seen.Load()
	if seen == nil {
		return false
	}
	_, before := seen.LoadOrStore(m.Reply, nil)
	return before
}
