package ordered

import (
	"cmp"
	"context"
	"fmt"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/sentinel"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// How a reader pulls and how long it waits.
const (
	heartbeat    = time.Second      // unless the reader has another
	silence      = 2 * time.Second  // without a sign of life before the link is probed; likewise
	probeTimeout = 30 * time.Second // at most
	expires      = 30 * time.Second // of one pull
	inactive     = time.Minute      // before the server drops a consumer that nobody pulls, where the stream allows that

	// Of a reader that lasts.
	grace       = 250 * time.Millisecond
	youth       = 10 * time.Second // of pulls with quick heartbeats
	calmExpires = 50 * time.Second // of those after some have waited in vain
	calmBeat    = 5 * time.Second  // of these, and
	homeBeat    = 15 * time.Second // where the connected server leads the consumer, which cannot die without a word
)

// Options say what is read, and how. What is not set has a default or is left out.
type Options struct {
	Stream string
	Config jetstream.ConsumerConfig // of the first consumer: filters and the start
	Batch  int                      // messages asked for at once
	Total  int64                    // messages to ask for in all; 0 is without end

	Heartbeat time.Duration // of the server while it has no message
	Silence   time.Duration // without a sign of life before the link is probed
	Whole     bool          // a new consumer begins where the first did, until SkipTo is called
	Replicas  bool          // read them while there is no consumer, for the one FilterSubject
	Lasting   bool          // it waits for what is to come: one of those on a server has quick heartbeats, the others slow ones

	// Idle is called whenever the server says that it has nothing to deliver; its error is Next's. Who sets it makes a
	// pass over what there is, until SkipTo is called: then Pending is 0 only when all of that was met, or far more.
	Idle func(ctx context.Context) error
	// Opened is called by Next for every consumer but the first; its error is Next's.
	Opened func(Opening) error
	// Woken is called by Next after Wake; its error is Next's.
	Woken func() error
	// Observe is told whether all that the stream has is known to be read.
	Observe func(fresh bool)
}

// Opening is a consumer that was made.
type Opening struct {
	Pending uint64 // messages that it has for the reader
	Breaks  uint64 // of the connection before it was made
	// Anew tells that its stream is not the one that was read before, but was made anew or has lost its last
	// messages. Restart reads it from its beginning.
	Anew bool
}

// Same is Options.Opened for who reads no stream but the first.
func (o Opening) Same() error {
	if o.Anew {
		return fmt.Errorf("%w: it was made anew, or lost its last messages, while it was read", jetstream.ErrStreamNotFound)
	}
	return nil
}

// Reader reads a stream. It belongs to one goroutine.
type Reader struct {
	api  *jsapi.API
	conn *conn.Conn
	o    Options

	name     string // of the consumer; empty while there is none
	sub      *natsgo.Subscription
	received chan *natsgo.Msg
	breaks   uint64     // of the connection, when the consumer was made
	unwatch  func()     // ends the watch for denials
	denials  chan error // holds one

	creation *conn.Call    // of the next consumer
	created  time.Time     // when the first one was asked for first
	inactive time.Duration // before the server drops a consumer that nobody pulls; 0 for what it allows
	names    []string      // that were asked for, and may have been made
	began    bool          // there was a consumer
	born     time.Time     // the first one was
	stream   time.Time     // and when the stream was made; zero while that is unknown
	whole    bool
	failures int       // to make a consumer, in a row
	tried    time.Time // when the last one was

	delivered uint64 // consumer sequence of the last message
	last      uint64 // stream sequence of the last message
	pending   uint64 // that the consumer had when it was made
	unsteady  bool   // since then some have gone or come, as the server's count shows
	follows   bool   // what was there at the start is read
	left      int64  // messages to ask for in all; negative for no end
	asked     wire.Pulls
	expires   time.Duration // of a pull with quick heartbeats
	part      *sentinel.Part
	beat      time.Duration // of the last pull
	calm      bool          // pulls have waited in vain, with this consumer
	calmBeat  time.Duration // of the pulls then
	doubted   bool          // it was asked for a sign
	made      time.Time     // New has
	busy      atomic.Int64  // since when, after made, Next does not wait, or has something to take; 0 while it waits
	resumes   bool          // and goes on where Woken has ended it
	answers   int           // of this consumer: messages and statuses
	starved   int           // consumers in a row of which one answer came and then nothing
	alarm     *time.Timer
}

// New returns a reader that is not started.
func New(api *jsapi.API, o Options) *Reader {
	r := &Reader{api: api, conn: api.Conn(), whole: o.Whole, left: -1, denials: make(chan error, 1), expires: expires, inactive: inactive, part: sentinel.NewPart(), made: time.Now()}
	r.setBusy(true)
	if o.Total > 0 {
		r.left = o.Total
	}
	if o.Lasting {
		o.Heartbeat, o.Silence, r.expires = sentinel.Beat, sentinel.Silence, youth
	}
	o.Heartbeat, o.Silence = cmp.Or(o.Heartbeat, heartbeat), cmp.Or(o.Silence, silence)
	r.o = o
	return r
}

// Start makes the first consumer, so that a wrong stream or filter is an error of the call that began the
// reading. Without a deadline in ctx, the request timeout applies.
func (r *Reader) Start(ctx context.Context) (Opening, error) {
	ctx, cancel := r.conn.Deadline(ctx)
	defer cancel()
	for {
		if opening, err := r.open(ctx); err != nil || r.name != "" {
			return opening, err
		}
	}
}

// Next returns the next message and what its reply subject says. It returns an error when ctx ends, the client is closed, the
// stream is gone, the server denies what reading takes, or consumer after consumer falls silent after one
// answer; everything else it waits out. It may be called again, which tries again.
func (r *Reader) Next(ctx context.Context) (*natsgo.Msg, wire.Delivery, error) {
	if m, d, err := r.Ready(ctx); m != nil || err != nil {
		return m, d, err
	}
	if r.alarm == nil { // one for all messages
		r.alarm = time.NewTimer(r.patience())
	}
	if !r.resumes {
		r.alarm.Reset(r.patience())
	}
	r.resumes = false
	defer func() {
		r.setBusy(true)
		if !r.resumes {
			r.alarm.Stop()
		}
	}()
	var probe <-chan error
	for {
		if r.name == "" {
			if m, d := r.nextOfReplica(ctx); m != nil {
				return m, d, nil
			}
			opening, err := r.open(ctx)
			if err == nil && r.name != "" && r.o.Opened != nil {
				err = r.o.Opened(opening)
			}
			if err != nil {
				return nil, wire.Delivery{}, err
			}
			r.alarm.Reset(r.patience())
			probe = nil
			continue
		}
		up, breaks, change := r.conn.State()
		if !up || breaks != r.breaks {
			r.mark(false)
			// The server that comes back may still have the consumer, and is then told to drop it.
			if err := r.conn.Wait(ctx); err != nil {
				return nil, wire.Delivery{}, r.api.Unanswered(ctx, err, nil)
			}
			r.Renew()
			continue
		}
		r.setBusy(len(r.received) > 0)
		woken := r.part.Woken()
		if probe != nil {
			woken = nil // it tells as much
		}
		select {
		case m := <-r.received:
			if d, is, err := r.take(ctx, m); is || err != nil {
				return m, d, err
			}
			r.alarm.Reset(r.patience()) // which may be another now
			probe = nil
		case err := <-r.denials:
			return nil, wire.Delivery{}, r.deny(err)
		case <-change:
		case <-woken:
			if err := r.onWake(); err != nil {
				r.resumes = true
				return nil, wire.Delivery{}, err
			}
		case <-r.alarm.C:
			r.mark(false)
			probe = r.probe(ctx)
		case err := <-probe:
			probe = nil
			if err == nil && len(r.received) == 0 { // what the consumer had to say would have come before the answer
				if err := r.starve(); err != nil {
					return nil, wire.Delivery{}, err
				}
				r.Renew()
			}
			r.alarm.Reset(r.patience())
		case <-ctx.Done():
			return nil, wire.Delivery{}, fault.Ended(ctx)
		}
	}
}

// Ready is Next where that need not wait; it returns nothing where it must, or has to look at something else first.
func (r *Reader) Ready(ctx context.Context) (*natsgo.Msg, wire.Delivery, error) {
	// Who has read all closes the reader, which takes a connection: so it is waited for.
	for r.name != "" && !r.resumes && len(r.received) > 0 && len(r.part.Woken()) == 0 && len(r.denials) == 0 && ctx.Err() == nil && r.conn.IsUp() {
		m := <-r.received
		if d, is, err := r.take(ctx, m); is || err != nil {
			return m, d, err
		}
	}
	return nil, wire.Delivery{}, nil
}

// onDenial is called when the server denies a pull, or the subscription to what it brings.
func (r *Reader) onDenial(err error) {
	select {
	case r.denials <- err:
	default:
	}
}

// take tells whether what came is the next message, or returns the error of a callback.
func (r *Reader) take(ctx context.Context, m *natsgo.Msg) (d wire.Delivery, is bool, err error) {
	r.answers++
	r.doubted = false
	if status, _ := wire.Status(m); status != "" {
		return d, false, r.onStatus(ctx, status, m)
	}
	d, ok := wire.ParseReply(m.Reply)
	if !ok || d.Consumer != r.delivered+1 {
		r.Renew()
		return d, false, nil
	}
	r.delivered = d.Consumer
	r.failures = 0
	if r.asked.Came(m); r.asked.Left() <= r.o.Batch/4 { // many come
		r.calm = false
	}
	if r.left > 0 {
		r.left--
	}
	r.refill()
	if d.Pending == 0 {
		r.mark(true)
	}
	if !r.whole && d.Sequence <= r.last { // the consumer was asked for before that was read of a replica
		return d, false, nil
	}
	r.last = d.Sequence
	if r.o.Idle != nil && !r.follows {
		r.count(&d)
	}
	return d, true, nil
}

// count makes sure that a pass which is to end, as nothing is pending, has met all that was there at its start: what is
// replaced is missing in the server's count for a moment. But for who writes faster than is read it does not go on for ever.
func (r *Reader) count(d *wire.Delivery) {
	r.unsteady = r.unsteady || r.delivered+d.Pending != r.pending
	switch {
	case r.delivered > 2*r.pending+uint64(r.o.Batch):
		d.Pending = 0
	case r.unsteady && d.Pending == 0:
		d.Pending = 1 // until the server answers that there is none
		r.ask()
	}
}

// mark tells the observer.
func (r *Reader) mark(fresh bool) {
	if r.o.Observe != nil {
		r.o.Observe(fresh)
	}
}

// Renew gives the consumer up. The server is told to delete it, but not waited for: it drops the consumer by
// itself soon after.
func (r *Reader) Renew() {
	if r.name == "" {
		return
	}
	r.mark(false)
	r.part.Leave()
	r.unwatch()
	r.conn.Unsubscribe(r.sub)
	r.discard(r.name)
	r.name, r.sub, r.calm, r.doubted = "", nil, false, false
}

// Restart reads the stream from where the policy has it begin, as with Options.Whole.
func (r *Reader) Restart(policy jetstream.DeliverPolicy) {
	r.Close()
	r.last, r.whole, r.follows = 0, true, false
	r.o.Config.DeliverPolicy, r.o.Config.OptStartSeq, r.o.Config.OptStartTime = policy, 0, nil
}

// SkipTo lets the next consumer begin after that message, or after the last one that was read: what was there at the
// start is read.
func (r *Reader) SkipTo(sequence uint64) {
	r.whole, r.follows = false, true
	r.last = max(r.last, sequence)
}

// discard tells the server to delete consumers.
func (r *Reader) discard(names ...string) {
	for _, name := range names {
		if r.conn.IsUp() { // or Close would have something to send
			_ = r.conn.TryPublish(r.subject("DELETE", name), "", nil)
		}
	}
}

// Close ends the reading.
func (r *Reader) Close() {
	r.Renew()
	r.giveUp()
}
