package consume

import "time"

// pace is how fast the handlers are, and what follows for fetching ahead. The Consumption's lock
// guards it.
type pace struct {
	workers  int
	trip     time.Duration // to the server and back
	bound    time.Duration // that the workers may need for what was fetched ahead; 0: any
	handling time.Duration // average; 0 while unknown
	handled  uint
}

// How much is fetched ahead: as much as the workers do while a message is on its way, with a margin.
// More would wait here while other instances may be idle; behind slower handlers nothing waits.
const (
	aheadTrips   = 4 // round trips to a server that is near
	aheadFar     = 2 // and to one that is not
	aheadTimeMin = 10 * time.Millisecond
	aheadTimeMax = 500 * time.Millisecond
	aheadMax     = 512                  // messages
	aheadUnknown = 5 * time.Millisecond // a handler that has not returned yet
	aheadFrom    = 100 * time.Millisecond
	blockedMax   = 1000 // messages that wait here, and for no worker, before no more are asked for
)

// sample tells whether to time the next handler: not all of the fast ones, for the clock costs.
func (p *pace) sample() bool {
	p.handled++
	return p.handling == 0 || p.handling > time.Millisecond || p.handled%16 == 0
}

func (p *pace) observe(took time.Duration) {
	switch {
	case took <= 0:
	case p.handling == 0:
		p.handling = took
	default:
		p.handling += (took - p.handling) / 8
	}
}

// target is how many messages to hold and to have asked for. Before the first message is handled nothing is
// fetched ahead, should the process die on it, unless the server is far: then no more than a round trip.
func (p *pace) target() int {
	ahead := max(min(max(aheadTrips*p.trip, aheadTimeMin), aheadTimeMax), aheadFar*p.trip)
	handling := p.handling
	if handling == 0 {
		if ahead, handling = 0, aheadUnknown; p.trip >= aheadFrom {
			ahead = p.trip
		}
	}
	if p.bound > 0 {
		ahead = min(ahead, p.bound)
	}
	each := min(int(ahead/handling), aheadMax)
	return p.workers + min(p.workers*each, max(p.workers, aheadMax))
}

// mayWait is how many messages may wait here behind others of their key, or for their next try.
func (p *pace) mayWait() int {
	if p.bound > 0 && p.handling > 0 {
		return min(int(p.bound/p.handling), blockedMax)
	}
	return blockedMax
}
