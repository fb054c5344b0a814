package consume

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/lifecycle"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/publish"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// Host is whom the messages are handled for.
type Host interface {
	// Receive returns a new Delivery with its Token and what else the host makes of a message.
	Receive(m *natsgo.Msg) *Delivery
	// Key returns the key of a message, where they have one.
	Key(d *Delivery) (string, error)
	// Handle calls the handler. A panic is to be an error.
	Handle(d *Delivery) error
	// Settled is told what op, "ack", "nak" or "term", came of a delivery, how long the server's word was waited for, and
	// whether the server may not have got it. What is handed back unhandled is not told.
	Settled(d *Delivery, op string, took time.Duration, err error)
}

// Reports are told what no call can return, beside what is logged. They must not wait.
type Reports interface {
	// Available and Unavailable: a consumer is heard of again, or not any more.
	Available(stream, consumer string)
	Unavailable(stream, consumer string, err error)
	// Crowded: messages that wait for their next try may stop the others.
	Crowded(stream, consumer string, err error)
	// Left: so many messages wait in a retry stream that is not asked for.
	Left(stream, consumer string, messages uint64, err error)
	// Failed: the handler, or what is in its place.
	Failed(d *Delivery, err error)
	// Died: a message is among the dead letters.
	Died(d *Delivery, err error)
	// Undead: it could not be stored there.
	Undead(d *Delivery, err error)
	// Unconfirmed: the server may not have got an acknowledgement.
	Unconfirmed(d *Delivery, err error)
}

// Options say what is consumed, and how.
type Options struct {
	Stream, Consumer string
	Workers          int             // less than 1 is 1
	Keyed            bool            // messages of the same key are kept in order
	BackOff          []time.Duration // empty for the default
	MaxDeliver       int
	MaxHandling      time.Duration             // 0: a multiple of the consumer's AckWait
	DeadLetters      string                    // a subject; empty for the default
	Confirmed        bool                      // acknowledgements are
	Retries          bool                      // in a stream of their own
	Own              *jetstream.ConsumerConfig // nil for a consumer of somebody else's
}

var defaultBackOff = []time.Duration{time.Second, 5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute}

// complete fills in the defaults, and refuses what cannot work.
func (o *Options) complete(api *jsapi.API) error {
	o.Workers = max(o.Workers, 1)
	if len(o.BackOff) == 0 {
		o.BackOff = defaultBackOff
	}
	if o.DeadLetters != "" {
		text := cmp.Or(subject.Fault(o.DeadLetters, false), api.Conn().LineFault(len(o.DeadLetters)+api.Conn().LineRoom()))
		if text != "" {
			return fault.New("", "", fault.ErrInvalidSubject, "dead letter subject %q: %s", o.DeadLetters, text)
		}
	}
	if o.Own == nil {
		return nil
	}
	switch {
	case o.Own.Name != "" && o.Own.Name != o.Consumer, o.Own.Durable != "" && o.Own.Durable != o.Consumer:
		return fault.New("", "", fault.ErrInvalidArgument, "the ConsumerConfig names another consumer, %q", o.Own.Name+o.Own.Durable)
	case o.Own.AckPolicy != jetstream.AckExplicitPolicy:
		return fault.New("", "", fault.ErrInvalidArgument, "the ConsumerConfig's AckPolicy must be explicit")
	}
	o.Own.Name = o.Consumer
	own, err := api.ConsumerConfig("create consumer", o.Stream, *o.Own)
	o.Own = &own
	return err
}

// Engine is the consumptions of a client.
type Engine struct {
	api       *jsapi.API
	publisher *publish.Publisher
	life      *lifecycle.Life
	log       *slog.Logger
	reports   Reports
	drain     time.Duration           // for a graceful end
	said      lifecycle.Queue[func()] // what is logged where a lock is held: the logger's handler is the user's

	mu      sync.Mutex
	running map[*Consumption]struct{}
	past    Stats // of those that have ended
}

// New returns an Engine without consumptions. Drain is the time for the graceful end of one whose context ends.
func New(api *jsapi.API, p *publish.Publisher, life *lifecycle.Life, drain time.Duration, log *slog.Logger, r Reports) *Engine {
	return &Engine{
		api: api, publisher: p, life: life, log: log, reports: r, drain: drain,
		said:    lifecycle.Queue[func()]{Handle: func(say func(), _ int) { say() }},
		running: make(map[*Consumption]struct{}),
	}
}

// All returns the consumptions that have not ended.
func (e *Engine) All() []*Consumption {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Keys(e.running))
}

// add registers a consumption, unless the client is closing.
func (e *Engine) add(s *Consumption) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.life.IsDraining() {
		return fault.ErrClosed
	}
	e.running[s] = struct{}{}
	return nil
}

func (e *Engine) remove(s *Consumption) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.running, s)
	e.past.add(s.Stats())
}

// Stats returns the sums of all consumptions, those that have ended included.
func (e *Engine) Stats() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	sum := e.past
	for s := range e.running {
		sum.add(s.Stats())
	}
	return sum
}

// Deny tells whether the denied subject is that of an acknowledgement. The next ones of that consumer are
// confirmed, so that it is known when they are allowed.
func (e *Engine) Deny(subject string) bool {
	stream, consumer, ok := wire.AckOf(subject)
	if !ok {
		return false
	}
	for _, s := range e.All() {
		if s.Stream == stream && s.Consumer == consumer {
			s.denied.Store(true)
		}
	}
	return true
}

// patience is for how long an answer is waited for.
func (e *Engine) patience() time.Duration {
	_, trip := e.api.Conn().Peer()
	return apiAttempt + 2*trip
}

// cutGrace is what handlers get to return when the time is up and their contexts have ended.
const cutGrace = 250 * time.Millisecond

// Close hands back at once what no worker has begun, and tells on the channel how many handlers run on when ctx
// ends. Those that return when they hear of it still have their messages settled.
func (e *Engine) Close(ctx context.Context) <-chan int {
	all := e.All()
	for _, s := range all {
		s.BeginStop(fault.ErrClosed)
	}
	left := make(chan int, 1)
	go func() {
		handlers := 0
		for _, s := range all {
			handlers += s.AwaitStop(ctx)
		}
		if handlers > 0 {
			grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), cutGrace)
			defer cancel()
			for _, s := range all {
				s.AwaitStop(grace)
			}
		}
		left <- handlers
	}()
	return left
}
