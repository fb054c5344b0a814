package consume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// RetryError is an error that says when its message is to be tried again.
type RetryError struct {
	Cause error
	After time.Duration // negative for never
}

func (v *RetryError) Error() string { return v.Cause.Error() }

func (v *RetryError) Unwrap() error { return v.Cause }

var errPermanent = errors.New("never again")

// Is finds a verdict of never wherever it is in an error.
func (v *RetryError) Is(sentinel error) bool { return sentinel == errPermanent && v.After < 0 }

// failed settles a message whose handler returned an error, and tells whether it is kept here for
// another try.
func (s *Consumption) failed(d *Delivery, err error) (kept bool) {
	s.mu.Lock()
	limit, servers := s.maxDeliver(), s.rules.MaxDeliver
	mine := !d.Token.Taken() && !d.expired // else the handler or the server has settled it
	s.mu.Unlock()
	gaveUp := tellsOfEnd(s.ctx, err) || tellsOfEnd(s.caller, err)
	cut := gaveUp || s.ctx.Err() != nil // by the end: it says nothing about the message
	delay := s.delay(d, err)
	next, reason := nextAfter(delay), err.Error()
	switch {
	case !mine:
		s.reportFailed(slog.LevelError, handlerFailed, d, nextSettled, err)
		return false
	case errors.Is(err, errPermanent) && !gaveUp, !cut && s.isSpent(d, limit, delay):
		next = nextNever
	case !cut:
	case servers > 0 && d.Deliveries >= servers && d.from != s.parked:
		next, reason = nextNever, "cut short on the last delivery that the consumer's MaxDeliver allows: "+reason
	default:
		delay = s.cutDelay()
		next = nextAfter(delay)
	}
	s.reportFailed(failureLevel(d, err), handlerFailed, d, next, err)
	switch {
	case next == nextNever:
		return s.bury(d, reason)
	case cut:
		s.cut(d, limit, delay)
		return false
	}
	return s.later(d, delay)
}

// loggedFailure is the one of a message that is an error in the log: less is what retries are for, and more
// would be one line for each message and retry of an outage.
const loggedFailure = 5

func failureLevel(d *Delivery, err error) slog.Level {
	if d.Deliveries == loggedFailure || errors.Is(err, fault.ErrHandlerPanic) {
		return slog.LevelError
	}
	return slog.LevelDebug
}

// tellsOfEnd tells whether an error is the end of ctx.
func tellsOfEnd(ctx context.Context, err error) bool {
	return ctx.Err() != nil && (errors.Is(err, ctx.Err()) || errors.Is(err, context.Cause(ctx)))
}

// cut gives a message to others whose handler had not the time to succeed. A delivery that was the last
// by WithMaxDeliver is taken back, which takes the retry stream.
func (s *Consumption) cut(d *Delivery, limit int, delay time.Duration) {
	s.count(&s.stats.Retried)
	s.mu.Lock()
	back := limit > 0 && d.Deliveries >= limit && s.parks()
	if back {
		d.Deliveries--
	}
	s.mu.Unlock()
	if !back || !s.park(d, delay) {
		s.nakAfter(d, delay)
	}
}

// cutDelay outlasts the pulls of a Consumption that ends: what comes back to it is cut again, and again.
func (s *Consumption) cutDelay() time.Duration {
	_, trip := s.conn.Peer()
	return 2*lastPulls + trip
}

// Without WithMaxDeliver a message has had its tries when it was delivered so often and is so old: neither a
// night's outage nor an old backlog makes dead letters.
const (
	patientDeliveries = 25
	patientAge        = 24 * time.Hour
	sparedDeliveries  = 5 // at least: see doomed
)

// maxDeliver returns after how many deliveries a message is dead; 0 is no limit. The caller holds
// s.mu.
func (s *Consumption) maxDeliver() int {
	limit, servers := max(s.MaxDeliver, 0), s.rules.MaxDeliver
	if limit == 0 || servers > 0 && servers < limit {
		return servers
	}
	return limit
}

// isSpent tells whether a message that has failed, and would come again after delay, has had its tries; so
// has one that its stream deletes before. Limit is that of maxDeliver.
func (s *Consumption) isSpent(d *Delivery, limit int, delay time.Duration) bool {
	age := time.Since(time.Unix(0, d.stored))
	switch {
	case limit > 0 && d.Deliveries >= limit:
		return true
	case s.MaxDeliver < 0:
		return false
	case limit == 0 && d.Deliveries >= patientDeliveries && age >= patientAge:
		return true
	}
	life := s.lifetime(d)
	return life > 0 && age+delay >= life
}

// lifetime returns for how long the stream keeps a message; 0 is for ever, or not known.
func (s *Consumption) lifetime(d *Delivery) time.Duration {
	life := s.maxAge()
	switch own := wire.TTL(d.Msg.Header); {
	case own == wire.Forever:
		return 0
	case own > 0 && (life == 0 || own < life):
		return own
	}
	return life
}

// maxAge returns for how long the stream keeps messages, which is asked for once a minute at most, and not in an outage.
func (s *Consumption) maxAge() time.Duration {
	s.mu.Lock()
	age, stale := s.age.is, time.Since(s.age.asked) > time.Minute && s.conn.IsUp()
	if stale {
		s.age.asked = time.Now()
	}
	s.mu.Unlock()
	if !stale {
		return age
	}
	ctx, cancel := s.e.copying(s.ctx)
	defer cancel()
	info, err := s.api.StreamInfo(ctx, s.Stream)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.age.is = info.Config.MaxAge
	case errors.Is(err, natsgo.ErrPermissionViolation):
		s.age.asked = time.Now().Add(time.Hour)
	}
	return s.age.is
}

// doomed returns why a message is not to be handled: it waits for the dead-letter stream, or it comes again
// after as many deliveries as it may have and nobody lived to say anything. A message that is younger than so
// many ack waits cannot have killed so many workers; and the server counts what a graceful end hands back, or
// cuts short, as it counts deaths, so that some are spared. The caller holds s.mu.
func (s *Consumption) doomed(d *Delivery) string {
	if d.trial != nil && d.trial.reason != "" {
		return d.trial.reason
	}
	limit := s.maxDeliver()
	least := time.Duration(limit) * s.rules.shortest
	switch {
	case limit == 0 && s.MaxDeliver < 0:
		return ""
	case limit == 0:
		limit, least = patientDeliveries, patientAge
	}
	spared := max(limit, sparedDeliveries)
	if s.parks() { // cut takes them back
		spared = 0
	}
	if d.Deliveries > limit+spared && time.Since(time.Unix(0, d.stored)) >= least {
		return fmt.Sprintf("delivered %d times, and no worker lived to answer for it", d.Deliveries-1)
	}
	return ""
}

// delay returns how long a message waits for its next try.
func (s *Consumption) delay(d *Delivery, err error) time.Duration {
	if said, ok := errors.AsType[*RetryError](err); ok {
		return max(said.After, minRetryDelay)
	}
	schedule := s.BackOff
	delay := schedule[min(max(d.Deliveries, 1), len(schedule))-1]
	return max(pause.Varied(delay), minRetryDelay)
}

// What leaves the stream while it waits: see WithRetryStream.
const (
	parkDelay = 10 * time.Second
	parkShare = 4 // of MaxAckPending
)

// later sees to it that the message is tried again after delay: here, where that keeps its key in
// order, or by the server.
func (s *Consumption) later(d *Delivery, delay time.Duration) (kept bool) {
	s.mu.Lock()
	s.stats.Retried++
	s.noteWaiting()
	if s.Keyed {
		d.deliver() // the next try is no delivery of the server's
	}
	s.mu.Unlock()
	if s.Keyed {
		return s.wait(d, delay)
	}
	if !s.mustPark(d, delay) || !s.park(d, delay) {
		s.nakAfter(d, delay)
	}
	return false
}

// nakAfter hands a message that was handled to the server to deliver it again after delay.
func (s *Consumption) nakAfter(d *Delivery, delay time.Duration) {
	if taken, err := s.putOff(d, delay); taken {
		s.host.Settled(d, opNak, 0, err)
	}
}

// putOff is nakAfter for a message that no handler has had. It tells whether nobody has settled it yet.
func (s *Consumption) putOff(d *Delivery, delay time.Duration) (taken bool, err error) {
	s.mu.Lock() // for an extension after it would change the delay
	defer s.mu.Unlock()
	reply := d.lastReply()
	if taken = d.Token.Take(); taken && !s.nakLater(reply, delay) {
		err = s.conn.TryPublish(reply, "", s.verbNakAfter(reply, delay))
		s.noteSent(d, err)
	}
	return taken, err
}

// parks tells whether messages may leave their place. The caller holds s.mu.
func (s *Consumption) parks() bool {
	return s.Retries && !s.Keyed && !s.rules.HeadersOnly && s.rules.MaxAckPending != 1
}

// mustPark tells whether a message should wait outside its stream.
func (s *Consumption) mustPark(d *Delivery, delay time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.parks() || d.from == s.parked || s.rules.MaxAckPending == 0 {
		return false
	}
	waiting := s.asked()
	if time.Since(s.crowd.asked) < crowdFresh { // else of the past
		waiting = max(waiting, s.crowd.outside)
	}
	return delay > parkDelay || waiting >= max(s.rules.MaxAckPending/parkShare, 1)
}

// wait keeps a message until delay has passed and then gives it to a worker. It tells whether it
// does: not when the Consumption stops.
func (s *Consumption) wait(d *Delivery, delay time.Duration) (kept bool) {
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		s.nakAfter(d, delay)
		return false
	}
	defer s.mu.Unlock()
	d.again().until = s.now() + delay
	s.held.suspend(d)
	s.lookBy(d.trial.until)
	d.from.ask()
	return true
}
