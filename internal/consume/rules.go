package consume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// ackRules is what the consumer's configuration means for those who consume. A limit of 0 is none.
type ackRules struct {
	jetstream.ConsumerConfig
	shortest time.Duration // that the server waits for an acknowledgement
	expires  time.Duration // of a pull
	filters  []string
	paused   time.Time // until then
}

// rulesOf checks that a consumer can be consumed.
func rulesOf(info *jetstream.ConsumerInfo) (ackRules, error) {
	cfg := info.Config
	cfg.Metadata = nil // nobody asks for it, and it would be kept
	r := ackRules{
		ConsumerConfig: cfg, shortest: slices.Min(append([]time.Duration{cfg.AckWait}, cfg.BackOff...)), expires: pullExpires,
		filters: filtersOf(&cfg),
	}
	r.MaxDeliver, r.MaxAckPending = max(r.MaxDeliver, 0), max(r.MaxAckPending, 0)
	if info.Paused {
		r.paused = time.Now().Add(info.PauseRemaining)
	}
	if limit := cfg.MaxRequestExpires; limit > 0 {
		r.expires = min(r.expires, limit)
	}
	const op = "consume"
	target := target(info.Stream, info.Name)
	switch {
	case cfg.DeliverSubject != "":
		return r, fault.New(op, target, fault.ErrInvalidArgument, "it is a push consumer")
	case cfg.AckPolicy != jetstream.AckExplicitPolicy:
		return r, fault.New(op, target, fault.ErrInvalidArgument, "its acknowledgements are %q, not explicit", cfg.AckPolicy)
	case len(cfg.PriorityGroups) > 0:
		return r, fault.New(op, target, fault.ErrInvalidArgument, "it has priority groups")
	}
	return r, nil
}

func filtersOf(cfg *jetstream.ConsumerConfig) []string {
	if cfg.FilterSubject != "" {
		return []string{cfg.FilterSubject}
	}
	return cfg.FilterSubjects
}

const (
	rulesFresh  = time.Second // how old the rules may be when a handler takes its time
	rulesDenied = time.Hour   // and where they may not be asked for
)

// setRules takes the rules that the consumer has now. The caller holds s.mu.
func (s *Consumption) setRules(rules ackRules) {
	before := s.rules.shortest
	s.rules, s.ruled = rules, s.now()
	s.pace.bound = 0
	if s.isScarce() {
		_, trip := s.conn.Peer()
		s.pace.bound = min(max(scarceAhead, trip), s.e.drain/4)
	}
	if wait := rules.shortest; wait < before {
		soon := s.ruled + wait/3
		s.held.all(func(d *Delivery) {
			if d.due != 0 {
				d.due = min(d.due, soon)
			}
		})
		s.noteHeld()
	}
}

// freshenRules asks for the consumer if it may have changed, before a message is dealt with by its rules.
func (s *Consumption) freshenRules() {
	s.mu.Lock()
	now := s.now()
	fresh := now-s.ruled <= rulesFresh || !s.conn.IsUp()
	if !fresh {
		s.ruled = now
	}
	s.mu.Unlock()
	if !fresh {
		s.learnRules()
	}
}

// learnRules asks for the consumer as it is now.
func (s *Consumption) learnRules() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.ctx), s.e.patience())
	defer cancel()
	info, err := s.main.info(ctx)
	if err != nil {
		if errors.Is(err, fault.ErrPermission) {
			s.mu.Lock()
			s.ruled = s.now() + rulesDenied
			s.mu.Unlock()
		}
		return // the pulls tell of all else
	}
	rules, err := rulesOf(info)
	if err != nil {
		return // they will end
	}
	s.noteCrowd(info)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setRules(rules)
}

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
