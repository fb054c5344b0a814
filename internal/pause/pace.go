package pause

import "time"

// How calls that are not answered are sent again.
const (
	patienceMin = 500 * time.Millisecond // of the first sending
	patienceMax = 4 * time.Second        // it doubles up to that
	askersMax   = 16
	windowMin   = 16
	lookMin     = 100 * time.Millisecond
	lookMax     = 500 * time.Millisecond
	lookEach    = 100 * time.Microsecond
	windowSpell = 200 * time.Millisecond // the refusals of one burst are one reason to send less
)

// Pace is what the calls to one queue of a server have in common. A server that stores many messages answers
// none for seconds, and then all of them: to send them again meanwhile would only make it slower. So a few at
// a time ask again, and the others when something that was sent later is answered: then theirs is lost.
//
// It is guarded by its owner.
type Pace struct {
	answered     time.Time     // when the latest of the sendings that are answered was sent
	trip, spread time.Duration // how long answers take, and by how much that varies (RFC 6298)
	asking       int           // calls that ask again
	flying       int           // calls that are with the server
	window       int           // how many may be: 0 is any number
	narrowed     time.Time
}

// Doubled returns the patience of the n-th sending, from 1, where nothing is known of the line.
func Doubled(n int) time.Duration { return doubled(n, patienceMin, patienceMax) }

// Patience returns how long the answer to the n-th sending is waited for, over a line that is known to take
// so long, there and back.
func (p *Pace) Patience(n int, line time.Duration) time.Duration {
	trip := p.trip + 4*p.spread
	if p.trip == 0 {
		trip = line + line/2
	}
	return max(Doubled(n), min(trip, patienceMax))
}

// Answered notes that what was sent at that time is done: the server has dealt with what came before it.
func (p *Pace) Answered(sent time.Time) {
	if sent.After(p.answered) {
		p.answered = sent
	}
	took := time.Since(sent)
	if p.trip == 0 {
		p.trip, p.spread = took, took/2
		return
	}
	p.spread += ((p.trip - took).Abs() - p.spread) / 4
	p.trip += (took - p.trip) / 8
}

// Lost tells whether something was answered that was sent after that time.
func (p *Pace) Lost(sent time.Time) bool { return p.answered.After(sent) }

// Ask tells whether one more call may ask again. Then it is to call Asked when it ends.
func (p *Pace) Ask() bool {
	if p.asking >= askersMax {
		return false
	}
	p.asking++
	return true
}

// Look returns how often one of the calls that may not ask again looks whether it may: as many as there are, the
// looks of all cost little.
func (p *Pace) Look() time.Duration {
	return min(max(time.Duration(p.flying)*lookEach, lookMin), lookMax)
}

// Asked ends what Ask began.
func (p *Pace) Asked() { p.asking-- }

// Enter tells whether one more call may be with the server. Then it is to call Leave or Refused.
func (p *Pace) Enter() bool {
	if p.window > 0 && p.flying >= p.window {
		return false
	}
	p.flying++
	return true
}

// Leave ends what Enter began.
func (p *Pace) Leave() {
	p.flying--
	if p.window > 0 {
		p.window++
	}
	if p.flying == 0 {
		p.window = 0
	}
}

// Refused is Leave of a call that the server has no room for: half as many may be with it from now on.
func (p *Pace) Refused() {
	if now := time.Now(); now.Sub(p.narrowed) > windowSpell {
		p.narrowed = now
		if p.window == 0 || p.window > p.flying {
			p.window = p.flying
		}
		p.window = max(p.window/2, windowMin)
	}
	p.flying--
}
