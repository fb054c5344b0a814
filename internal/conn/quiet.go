package conn

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// quietLook is how often somebody looks whether a quiet call is to be told of something.
const quietLook = 100 * time.Millisecond

// Asker has a quiet call.
type Asker interface {
	// Answered takes the first answer, on the goroutine that delivers all, and tells whether it has ended the
	// call by that.
	Answered(*natsgo.Msg) bool
	// Again tells whether the message may be sent again over a new connection, and may ask for that.
	Again() bool
	// Over tells whether nobody waits for the answer any more.
	Over() bool
	// GoOn is called once, on a goroutine of its own, when something else has happened: the call is to be
	// asked for by Next from there on, as any other.
	GoOn()
}

// Quietly sends the message, and waits for the answer without a goroutine: mostly it comes soon. Room is waited for
// while both contexts last. The connection should stand.
func (a *Call) Quietly(ctx, life context.Context, asker Asker) error {
	pass, ok := a.conn.enterNow(len(a.msg.Data))
	if !ok {
		both, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(life, cancel)()
		var err error
		if pass, err = a.conn.enterLater(both, len(a.msg.Data)); err != nil {
			return ErrUnanswered
		}
	}
	_, err := a.sendNow(pass)
	switch {
	case err != nil:
		return err
	case len(a.sends) == 0: // the server has no room
		go asker.GoOn()
	default:
		a.hush(asker)
	}
	return nil
}

// hush leaves the call alone until something happens. Its owner has it no more.
func (a *Call) hush(asker Asker) {
	r := &a.conn.requests
	r.mu.Lock()
	if len(a.answer) == 0 {
		a.quiet = asker
		a.alarm.Reset(quietLook)
		r.mu.Unlock()
		return
	}
	m := <-a.answer
	r.mu.Unlock()
	a.tell(asker, m)
}

// tell gives an answer, nil for a denial, to the owner of what was a quiet call.
func (a *Call) tell(asker Asker, m *natsgo.Msg) {
	if m != nil {
		a.hear(m)
		if asker.Answered(m) {
			return
		}
	}
	r := &a.conn.requests
	r.mu.Lock()
	a.push(m)
	r.mu.Unlock()
	go asker.GoOn()
}

// wake looks after a quiet call.
func (r *requests) wake(a *Call) {
	r.mu.Lock()
	asker := a.take()
	r.mu.Unlock()
	if asker == nil {
		return // it is answered
	}
	up, breaks, _ := a.conn.State()
	r.mu.Lock()
	now := time.Now()
	overdue := up && a.breaks == breaks && (!now.Before(a.next) || !now.Before(a.lost) && a.lane.Lost(a.out))
	r.mu.Unlock()
	switch {
	case overdue, asker.Over():
		a.silent = overdue
		asker.GoOn()
	case up && a.breaks != breaks:
		r.mu.Lock()
		a.quiet = asker
		r.mu.Unlock()
		r.repeat(breaks)
	default:
		a.hush(asker)
	}
}

// take returns the asker of a call that is quiet, which is then no more: nothing that it has sent is answered, but for
// what is heard next. Another call is its owner's, who may be hearing its answer. The lock is held.
func (a *Call) take() (asker Asker) {
	if asker = a.quiet; asker != nil {
		a.quiet, a.heard = nil, len(a.sends)
	}
	return asker
}

// Rouse tells all who have quiet calls to look after them.
func (c *Conn) Rouse() {
	r := &c.requests
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.waiting {
		if w.call != nil && w.call.quiet != nil {
			go w.call.take().GoOn()
		}
	}
}

// repeat sends the quiet calls of an earlier connection again, in the order in which they were sent.
func (r *requests) repeat(breaks uint64) {
	type quiet struct {
		*Call
		Asker
	}
	var all []quiet
	r.mu.Lock()
	for _, w := range r.waiting {
		if a := w.call; a != nil && a.quiet != nil && a.breaks != breaks {
			all = append(all, quiet{a, a.take()})
		}
	}
	r.mu.Unlock()
	slices.SortFunc(all, func(a, b quiet) int { return cmp.Compare(a.number, b.number) })
	again := true // when one may not be, whoever is asked for that is not asked for all the others
	for i, a := range all {
		if again = again && a.Again(); again {
			brief, cancel := context.WithTimeout(a.conn.ctx, quietLook)
			_, err := a.send(brief)
			cancel()
			if err == nil {
				a.hush(a.Asker)
				continue
			}
			if errors.Is(err, ErrUnanswered) { // there is no room: each of the rest looks after itself, until there is
				for _, a := range all[i:] {
					a.hush(a.Asker)
				}
				return
			}
		}
		go a.GoOn() // it meets the same again, and knows what it means
	}
}
