package consume

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// crowd is how many messages wait for their next try, where they count against the consumer's MaxAckPending:
// when they are as many as that, no others come. The Consumption's lock guards it.
type crowd struct {
	asked   time.Time // when the server was asked for the consumer
	outside int       // that it had delivered then, and that no worker here had or was to have
	unseen  bool      // many may wait, and the server is to be asked
	problem error     // nil while they are not many
}

const (
	crowdFresh = 2 * time.Second // how long what the server said holds
	crowdShare = 2               // of MaxAckPending that is many
	// crowdWorkers times the workers is what a MaxAckPending should have room for.
	crowdWorkers = 10
	crowdOwn     = 8 // the server does not tell who has what: so much of it are to be this instance's
)

// waitingHere returns how many messages wait for their next try because they failed here. The caller holds
// s.mu.
func (s *Consumption) waitingHere() int {
	return s.asked() + s.held.count - s.held.ready - s.stats.InFlight
}

// noteWaiting sees to it that the server is asked how many wait in all, if they may be many. The caller holds s.mu.
func (s *Consumption) noteWaiting() {
	if most := s.rules.MaxAckPending; most > 1 && crowdShare*crowdOwn*s.waitingHere() >= most {
		s.crowd.unseen = true
		s.lookBy(s.ruled + rulesFresh + 1)
	}
}

// noteCrowd takes from the server's word on the consumer how many messages wait for their next try.
func (s *Consumption) noteCrowd(info *jetstream.ConsumerInfo) {
	s.mu.Lock()
	c, limit, own := &s.crowd, info.Config.MaxAckPending, s.waitingHere()
	c.asked, c.outside = time.Now(), max(info.NumAckPending-s.held.ready-s.stats.InFlight, 0)
	stuck := info.NumAckPending >= limit && info.NumWaiting > 0 && info.NumPending > 0
	was := c.problem
	c.problem = nil
	if limit > 1 && crowdShare*c.outside > limit && (crowdOwn*own >= c.outside || stuck) {
		c.problem = fmt.Errorf("%d messages wait for their next try; with %d, the consumer's MaxAckPending, no others "+
			"would be delivered: raise it, or use WithRetryStream", c.outside, limit)
	}
	now := c.problem
	s.mu.Unlock()
	if now != nil && was == nil {
		s.log.Warn("retries crowd a consumer", "error", now)
		s.e.reports.Crowded(s.Stream, s.Consumer, now)
	}
}

// Crowded returns an error when messages that wait for their next try may stop the others.
func (s *Consumption) Crowded() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.crowd.problem
}
