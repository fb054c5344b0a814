package conn

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
)

// The ends of a wait for an answer.
var (
	ErrUnanswered error = fault.Doubt("no acknowledgement came")
	ErrBroken     error = fault.Doubt("the connection broke before the acknowledgement came")
)

const (
	callLook = 500 * time.Millisecond // how often a call looks whether it may ask again
	callRoom = 100 * time.Millisecond // and, about, whether the server has room for it
	callTurn = 20 * time.Millisecond  // after it had none
)

// Call is a message that is sent until an answer to it is taken. The answers to all its sendings come to the
// one call, each on a subject that tells which it answers, so a late one counts as well. Next and what
// belongs to it are called from one goroutine, End at the end.
type Call struct {
	// Renew, when set, returns the message of every sending after the first, where the same one would not do.
	Renew func() *natsgo.Msg
	// Hurry, when set, bounds how the pauses between sendings grow, but for what the way takes.
	Hurry time.Duration

	waiter
	conn     *Conn
	msg      *natsgo.Msg
	lane     *pause.Pace
	sends    []sending
	breaks   uint64        // of the connection, at the last sending
	out      time.Time     // when the last sending was with nats.go, whose lock it may have waited for
	lost     time.Time     // when it may be sent again because the last one is lost
	next     time.Time     // when it may ask again
	only     time.Duration // the patience of what is sent once
	patience time.Duration // of the next sending
	heard    int           // the sending that the last answer, or denial, was to, or how many there were when none came
	least    time.Duration // of the patience
	within   time.Duration // after the first sending it may be sent again; 0 is at any time, and less is not yet
	number   uint64        // of the call
	quiet    Asker         // when no goroutine waits for the answer; guarded by the requests
	alarm    *time.Timer   // of a quiet call
	silent   bool          // it was quiet for as long as it may be
	flying   bool          // it has entered the lane
	asking   bool          // it has one of the lane's places
}

// sending is one of a call.
type sending struct {
	at       time.Time
	answered bool
}

func (s sending) open() bool { return !s.answered }

// Ask begins a call, without sending anything.
func (c *Conn) Ask(m *natsgo.Msg) *Call {
	a := c.requests.calls.Get().(*Call) // the pool holds nothing else
	a.conn, a.msg, a.subject = c, m, m.Subject
	a.lane = c.requests.lane(m.Subject)
	return a
}

// Patient makes the call wait for at least d before it sends again.
func (a *Call) Patient(d time.Duration) { a.least = d }

// Within forbids to send again what may have arrived, later than d after it was sent first; less than 0 is at
// all, until it is known. The last tenth is for the way.
func (a *Call) Within(d time.Duration) { a.within = d }

// Window returns what Within was told.
func (a *Call) Window() time.Duration { return a.within }

// Late tells whether Within forbids to send the message again.
func (a *Call) Late() bool {
	for i := range a.sends {
		if s := &a.sends[i]; a.within != 0 && !s.answered {
			return a.within < 0 || time.Since(s.at) > a.within-a.within/10
		}
	}
	return false
}

// Answered tells whether there is an answer for Next to take, which does not wait then.
func (a *Call) Answered() bool { return len(a.answer) > 0 }

// Hangs tells whether there is no answer for Next to take, and none to some sending.
func (a *Call) Hangs() bool { return !a.Answered() && slices.ContainsFunc(a.sends, sending.open) }

// Sent returns how often the message was sent.
func (a *Call) Sent() int { return len(a.sends) }

// Exchange is a call with one sending and one answer.
func (c *Conn) Exchange(ctx context.Context, m *natsgo.Msg, patience time.Duration) (*natsgo.Msg, error) {
	a := c.Ask(m)
	defer a.End(false)
	a.Once(patience)
	return a.Next(ctx)
}

// Once makes it a call with one sending, whose answer is waited for that long; Next may be called again.
func (a *Call) Once(patience time.Duration) { a.only = patience }

// Begun returns when the message was sent last.
func (a *Call) Begun() time.Time { return a.begun }

// Next sends the message when it is time to, and returns the next answer. Without one it returns ErrBroken
// when the connection breaks, and ErrUnanswered when ctx ends and every so often: calling it again goes on
// waiting, and sends again when its time has come. The connection should stand.
func (a *Call) Next(ctx context.Context) (*natsgo.Msg, error) {
	c := a.conn
	if a.silent {
		a.silent, a.heard = false, len(a.sends)
		return nil, ErrUnanswered
	}
	for {
		_, breaks, change := c.State()
		// What is answered is not sent again: on a busy machine the timer has often ended as well.
		if !a.Answered() && ctx.Err() == nil && a.due(breaks) {
			var err error
			if change, err = a.send(ctx); err != nil {
				return nil, err
			}
			if len(a.sends) > 0 {
				a.timer.Reset(a.lost.Sub(a.begun))
			}
		}
	waiting:
		select {
		case m := <-a.answer:
			if m == nil { // the last sending
				a.heard = max(len(a.sends)-1, 0)
				return nil, a.denied
			}
			a.hear(m)
			return m, nil
		case <-a.timer.C:
			if a.heard = len(a.sends); a.heard > 0 && !a.Answered() {
				return nil, ErrUnanswered
			}
		case <-ctx.Done():
			if a.Answered() { // in time
				goto waiting
			}
			a.heard = len(a.sends)
			return nil, ErrUnanswered
		case <-change:
			var up bool
			if up, breaks, change = c.State(); up && breaks == a.breaks || a.Answered() {
				goto waiting
			}
			a.heard = len(a.sends)
			return nil, ErrBroken
		}
	}
}

// due tells whether the message is to be sent now, and otherwise sets the timer for the next look.
func (a *Call) due(breaks uint64) bool {
	n := len(a.sends)
	switch {
	case a.reply == "":
		return true
	case n > 0 && a.only > 0:
		return false
	}
	r, now := &a.conn.requests, time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case a.Late():
		a.timer.Reset(callLook)
		return false
	case n == 0, breaks != a.breaks, !now.Before(a.lost) && a.lane.Lost(a.out):
	case now.Before(a.next):
		a.timer.Reset(min(a.lane.Look(), a.next.Sub(now)))
		return false
	case a.asking:
	case a.lane.Ask():
		a.asking = true
	default:
		a.timer.Reset(a.lane.Look())
		return false
	}
	return a.enter(n + 1)
}

// enter tells whether the server has room for the n-th sending. The lock of the requests is held.
func (a *Call) enter(n int) bool {
	if !a.flying && !a.lane.Enter() {
		a.timer.Reset(pause.Varied(callRoom))
		return false
	}
	_, trip := a.conn.Peer()
	a.flying, a.patience = true, max(a.lane.Patience(n, trip), a.least)
	if a.Hurry > 0 {
		a.patience = min(a.patience, max(a.Hurry, a.lane.Patience(1, trip)))
	}
	return true
}

// MayAsk tells whether the call is one of the few that may send again while no answers come.
func (a *Call) MayAsk() bool {
	r := &a.conn.requests
	r.mu.Lock()
	defer r.mu.Unlock()
	a.asking = a.asking || a.lane.Ask()
	return a.asking
}

// send waits for room while ctx lasts, and returns the channel that is closed at the next change of the connection that
// it was sent on.
func (a *Call) send(ctx context.Context) (<-chan struct{}, error) {
	pass, err := a.conn.Enter(ctx, len(a.msg.Data))
	if err != nil {
		return nil, ErrUnanswered
	}
	return a.sendNow(pass)
}

func (a *Call) sendNow(pass Pass) (<-chan struct{}, error) {
	defer pass.Leave()
	c := a.conn
	var change <-chan struct{}
	_, a.breaks, change = c.State()
	a.begun = time.Now()
	n := len(a.sends) + 1
	if n > 1 && a.Renew != nil {
		a.msg = a.Renew()
		c.requests.mu.Lock()
		a.subject = a.msg.Subject
		c.requests.mu.Unlock()
	}
	if a.reply == "" {
		if there, err := c.requests.call(c.nc, a); !there {
			return change, err
		}
	}
	a.msg.Reply = a.reply
	if n > 1 {
		a.msg.Reply += sendingMark + strconv.Itoa(n)
	}
	a.sends = append(a.sends, sending{at: a.begun})
	a.lost, a.next = a.begun.Add(max(pause.Doubled(n), a.least)), a.begun.Add(a.patience)
	if a.only > 0 {
		a.lost = a.begun.Add(a.only)
	}
	err := c.nc.PublishMsg(a.msg)
	switch a.out = time.Now(); {
	case errors.Is(err, fault.ErrConnectionLost):
		err = nil // it is on its way, and lost: the change tells
	case err != nil:
		a.sends = a.sends[:n-1] // it is not
	}
	return change, err
}

// hear notes which sending m answers.
func (a *Call) hear(m *natsgo.Msg) {
	a.heard = a.sendingOf(m.Subject)
	a.sends[a.heard].answered = true
}

// sendingMark stands in a reply subject between the call and the number of its sending, after the first.
const sendingMark = "-"

// sendingOf returns the index of the sending that is answered on subject.
func (a *Call) sendingOf(subject string) int {
	n := 1
	if _, number, again := strings.Cut(subject[len(a.conn.requests.prefix):], sendingMark); again {
		n, _ = strconv.Atoi(number)
	}
	return min(max(n, 1), len(a.sends)) - 1
}

// Later puts the next sending off, after an answer that says "not now".
func (a *Call) Later(d time.Duration) {
	a.next = time.Now().Add(d)
	a.lost = a.next
}

// Disown takes the last answer for none: one to the same sending is still to come.
func (a *Call) Disown() { a.sends[a.heard].answered = false }

// Refused puts the next sending off until the server has room for the call again.
func (a *Call) Refused() {
	r := &a.conn.requests
	r.mu.Lock()
	if a.flying {
		a.flying = false
		a.lane.Refused()
	}
	r.mu.Unlock()
	a.Later(callTurn)
}

// Doubtful tells whether a sending before the one that was answered last has no answer.
func (a *Call) Doubtful() bool {
	return slices.ContainsFunc(a.sends[:min(a.heard, len(a.sends))], sending.open)
}

// End ends the call. What comes later is dropped. Done tells that the last answer was the server's last act
// for the sending, so that it shows how far the server has come.
func (a *Call) End(done bool) {
	r := &a.conn.requests
	r.mu.Lock()
	r.forget(&a.waiter)
	if a.asking {
		a.lane.Asked()
	}
	if a.flying {
		a.lane.Leave()
	}
	if done {
		a.lane.Answered(a.sends[a.heard].at)
	}
	a.clear()
	a.alarm.Stop()
	*a = Call{waiter: a.waiter, sends: a.sends[:0], alarm: a.alarm}
	r.mu.Unlock()
	r.calls.Put(a)
}
