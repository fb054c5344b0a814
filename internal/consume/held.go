package consume

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// Delivery is a message that a Consumption holds, from its arrival to its acknowledgement.
type Delivery struct {
	Message    any         // of the host
	Token      *wire.Token // the right to acknowledge it
	Msg        *natsgo.Msg // as it was published
	Sequence   uint64      // in the stream it was published to
	Deliveries int         // of it, this one included

	from    *puller
	stored  int64         // when, in nanoseconds
	lane    *lane         // of its key, where they have some
	since   time.Duration // when it was seen in its state, on the Consumption's clock; 0: not yet
	due     time.Duration // when the server is to hear of it; 0: it was not seen yet
	state   deliveryState
	expired bool   // its handler took too long; the server may deliver it to others
	reply   string // of the last delivery, where that was not the one of Msg
	trial   *trial // nil for the many that need no second one

	prev, next *Delivery // of all that are held, oldest first
	after      *Delivery // of those that are ready
}

// Meta returns the metadata where the message's reply subject does not say it, or nil.
func (d *Delivery) Meta() *jetstream.MsgMetadata {
	if d.trial == nil {
		return nil
	}
	return d.trial.meta
}

// lastReply is where the server takes word of when the message is to come again. The caller holds the lock.
func (d *Delivery) lastReply() string { return cmp.Or(d.reply, d.Msg.Reply) }

// Consumption returns whose delivery it is.
func (d *Delivery) Consumption() *Consumption { return d.from.s }

// trial is what is known of a message that waits here for its next try.
type trial struct {
	until  time.Duration          // on the Consumption's clock
	reason string                 // why it is dead and waits for the dead-letter stream, if it is
	meta   *jetstream.MsgMetadata // where its reply subject does not say it
}

// again returns the message's trial.
func (d *Delivery) again() *trial {
	if d.trial == nil {
		d.trial = &trial{}
	}
	return d.trial
}

type deliveryState uint8

const (
	stateBlocked deliveryState = iota // behind another one of its key
	stateReady                        // for a worker
	stateRunning                      // in one
	stateWaiting                      // for its next try
	stateGone
)

// How a delivery is settled.
const (
	opAck  = "ack"
	opNak  = "nak"
	opTerm = "term"
)

// finishAck acknowledges, unless the handler has settled the message.
func (d *Delivery) finishAck() {
	if d.Token.Take() {
		err := d.from.s.conn.Publish(context.Background(), d.Msg.Reply, "", nil, wire.Ack)
		d.from.s.noteSent(d, err)
		d.from.s.host.Settled(d, opAck, 0, err)
	}
}

// deliver counts a try that is made here, without the server.
func (d *Delivery) deliver() {
	d.Deliveries++
	meta := d.Meta()
	if meta == nil {
		meta, _ = wire.Metadata(d.Msg)
	}
	if meta != nil {
		again := *meta
		again.NumDelivered = uint64(d.Deliveries)
		d.again().meta = &again
	}
}

// heldList is all that a Consumption holds. The Consumption's lock guards it.
type heldList struct {
	root    Delivery // of the list of all
	count   int
	highest uint64 // sequence that was ever added

	first, last *Delivery // of those that are ready
	ready       int

	lanes map[string]*lane // nil without WithKey
}

// lane is the messages of one key. The first of them is ready, running or waiting; the others are
// blocked, in the order of their sequences.
type lane struct {
	key   string
	queue []*Delivery
}

func (l *heldList) init() { l.root.prev, l.root.next = &l.root, &l.root }

// all calls f for every message, oldest first; f may remove the one it is called with.
func (l *heldList) all(f func(*Delivery)) {
	for d := l.root.next; d != &l.root; {
		next := d.next
		f(d)
		d = next
	}
}

// add takes a message in and tells whether it is ready.
func (l *heldList) add(d *Delivery, key string) bool {
	d.prev, d.next = l.root.prev, &l.root
	d.prev.next, l.root.prev = d, d
	l.count++
	l.highest = max(l.highest, d.Sequence)
	if l.lanes != nil {
		ln := l.lanes[key]
		if d.lane = ln; ln != nil {
			// One that comes again may be older than those that wait.
			at, _ := slices.BinarySearchFunc(ln.queue[1:], d.Sequence, func(d *Delivery, seq uint64) int {
				return cmp.Compare(d.Sequence, seq)
			})
			ln.queue = slices.Insert(ln.queue, at+1, d)
			return false
		}
		d.lane = &lane{key, []*Delivery{d}}
		l.lanes[key] = d.lane
	}
	l.makeReady(d)
	return true
}

func (l *heldList) makeReady(d *Delivery) {
	d.state, d.since = stateReady, 0
	d.from.active++
	if l.first == nil {
		l.first = d
	} else {
		l.last.after = d
	}
	l.last = d
	l.ready++
}

// next hands a ready message to a worker, or returns nil.
func (l *heldList) next() *Delivery {
	for l.first != nil {
		d := l.first
		l.first, d.after = d.after, nil
		if d.state == stateReady {
			d.state, d.since = stateRunning, 0
			l.ready--
			return d
		}
	}
	return nil
}

// suspend makes a running message wait.
func (l *heldList) suspend(d *Delivery) {
	d.state = stateWaiting
	d.from.active--
}

// remove lets a message go and tells whether another one of its key became ready.
func (l *heldList) remove(d *Delivery) bool {
	d.prev.next, d.next.prev = d.next, d.prev
	d.prev, d.next = nil, nil
	l.count--
	if d.state == stateReady || d.state == stateRunning {
		d.from.active--
	}
	if d.state == stateReady {
		l.ready--
	}
	d.state = stateGone
	ln := d.lane
	if ln == nil {
		return false
	}
	at := slices.Index(ln.queue, d)
	ln.queue = slices.Delete(ln.queue, at, at+1)
	switch {
	case len(ln.queue) == 0:
		delete(l.lanes, ln.key)
	case at == 0:
		l.makeReady(ln.queue[0])
		return true
	}
	return false
}

// key asks the user's function. When that panics the message has the empty key. When it ends the
// goroutine, which is nats.go's, another session takes the place of this one, and the message comes again.
func (ps *pullSession) key(d *Delivery) string {
	s := ps.p.s
	const failed = "the function of WithKey failed; the key is empty"
	returned := false
	defer func() {
		if !returned {
			s.reportFailed(slog.LevelError, failed, d, nextAfter(s.ackWait()), fault.Exited())
			s.conn.Unsubscribe(ps.sub)
			ps.fail(fault.Exited())
		}
	}()
	key, err := s.host.Key(d)
	if err != nil {
		s.reportFailed(slog.LevelError, failed, d, "now", err)
	}
	returned = true
	return key
}

// twin returns a held message that the server has delivered once more, because its deadline passed
// while the connection was down, or because its consumer was made anew, which counts from one again. An original
// whose copy in the retry stream is back before its worker has heard that it is stored is none.
func (l *heldList) twin(again *Delivery) *Delivery {
	for d := l.root.next; d != &l.root; d = d.next {
		copied := again.from.side && !d.from.side
		if d.Sequence == again.Sequence && d.stored == again.stored && !copied && !d.expired && !d.Token.Taken() {
			return d
		}
	}
	return nil
}
