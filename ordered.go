package nats

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// How an ordered reader asks and how long it waits.
const (
	orderedHeartbeat = time.Second      // unless the reader has another
	orderedSilence   = 2 * time.Second  // without a sign of life before the link is probed
	orderedProbe     = 30 * time.Second // of the link at most
	orderedExpires   = 30 * time.Second // of one pull
	orderedAttempt   = 2 * time.Second  // to create a consumer, unless the reader has another; doubled
	orderedTries     = 16               // after as many failures, an election's worth
	orderedPatience  = 2                // times at most
	orderedInactive  = time.Minute      // before the server drops a consumer that nobody pulls
)

// orderedReader reads a stream in order, without acknowledgements, through an ephemeral pull
// consumer. When messages are missing, the connection was replaced, or the consumer is silent on a
// connection that works, it goes on after the last sequence with a new consumer. Every consumer has a
// new name: one that keeps its name cannot be made again while the node that the cluster chose for it
// is dead, which blocks upstream's ordered consumer for as long.
//
// It belongs to one goroutine.
type orderedReader struct {
	client *Client
	stream string
	config jetstream.ConsumerConfig // of the first consumer
	batch  int                      // messages asked for at once

	heartbeat time.Duration // of the server while it has no message
	silence   time.Duration // without a sign of life before the link is probed
	attempt   time.Duration // for the first attempts to create a consumer
	left      int64         // messages to ask for in all; negative for no end
	whole     bool          // the next consumer is like the first, and does not start after the last message
	replicas  bool          // answer while there is no consumer, for the one FilterSubject

	// idle, when set, is called whenever the server says that it has nothing to deliver; its error
	// ends the reading.
	idle func(ctx context.Context) error
	// opened, when set, is called by next for every consumer that it created; its error is next's.
	opened func(ctx context.Context) error
	// observe, when set, is told whether all that the stream has is known to be read.
	observe func(fresh bool)

	name     string // of the consumer; empty while there is none
	sub      *natsgo.Subscription
	received chan *natsgo.Msg
	breaks   uint64 // of the connection, when the consumer was made

	orphans   []string // consumers that may have been made by attempts without an answer
	pending   uint64   // on the server when the consumer was made
	started   bool
	delivered uint64 // consumer sequence of the last message
	last      uint64 // stream sequence of the last message
	asked     int    // messages asked for and not yet received
	failures  int    // in a row
	tried     time.Time
	alarm     *time.Timer // goes off when the server is silent; one for all messages
}

func (c *Client) newOrderedReader(stream string, config jetstream.ConsumerConfig, batch int) *orderedReader {
	return &orderedReader{
		client: c, stream: stream, config: config, batch: batch, left: -1,
		heartbeat: orderedHeartbeat, silence: orderedSilence, attempt: orderedAttempt,
	}
}

// start creates the first consumer, so that a wrong stream or filter is an error of the call that
// began the reading. Without a deadline in ctx, Config.RequestTimeout applies.
func (r *orderedReader) start(ctx context.Context) error {
	ctx, cancel := r.client.deadline(ctx)
	defer cancel()
	_, _, err := r.reopen(ctx)
	return err
}

// next returns the next message and its metadata. It returns when ctx ends, the client is closed,
// or the stream is gone; everything else it waits out.
func (r *orderedReader) next(ctx context.Context) (*natsgo.Msg, *natsgo.MsgMetadata, error) {
	if r.alarm == nil {
		r.alarm = time.NewTimer(r.silence)
	}
	silence := r.alarm
	silence.Reset(r.silence)
	defer silence.Stop()
	var probe <-chan error
	for {
		if r.name == "" {
			if m, meta, err := r.reopen(ctx); m != nil || err != nil {
				return m, meta, err
			}
			silence.Reset(r.silence)
			probe = nil
			if r.opened != nil {
				if err := r.opened(ctx); err != nil {
					return nil, nil, err
				}
				continue
			}
		}
		up, breaks, change := r.client.conn.State()
		if !up || breaks != r.breaks {
			r.mark(false)
			// The server that comes back may still have the consumer, and is then told to drop it.
			if err := r.client.conn.Wait(ctx); err != nil {
				return nil, nil, err
			}
			r.drop()
			continue
		}
		select {
		case m := <-r.received:
			silence.Reset(r.silence)
			probe = nil
			if status, _ := wire.Status(m); status != "" {
				if err := r.onStatus(ctx, status, m); err != nil {
					return nil, nil, err
				}
				continue
			}
			meta, err := m.Metadata()
			if err != nil || meta.Sequence.Consumer != r.delivered+1 {
				r.drop()
				continue
			}
			r.delivered, r.last = meta.Sequence.Consumer, meta.Sequence.Stream
			r.failures = 0
			r.asked--
			if r.left > 0 {
				r.left--
			}
			if r.asked <= r.batch/2 {
				r.ask(r.batch - r.asked)
			}
			if meta.NumPending == 0 {
				r.mark(true)
			}
			return m, meta, nil
		case <-change:
		case <-silence.C:
			r.mark(false)
			probe = r.probe()
		case err := <-probe:
			probe = nil
			if err == nil && len(r.received) == 0 {
				r.drop() // what the consumer had to say would have come before the answer
			}
			silence.Reset(r.silence)
		case <-ctx.Done():
			return nil, nil, fault.Ended(ctx)
		case <-r.client.life.Context().Done():
			return nil, nil, ErrClosed
		}
	}
}

// probe makes a round trip to the server. The answer comes after all that is on its way, so that a
// slow link, on which one message may take longer than the silence that is borne, does not pass for
// a dead consumer.
func (r *orderedReader) probe() <-chan error {
	answered := make(chan error, 1)
	ctx, cancel := context.WithTimeout(r.client.life.Context(), orderedProbe)
	go func() {
		defer cancel()
		answered <- r.client.conn.Flush(ctx)
	}()
	return answered
}

// reopen creates the next consumer, with growing pauses, until ctx ends, the stream is known to be
// gone, or the server refuses the first consumer. Meanwhile it returns what a replica has.
func (r *orderedReader) reopen(ctx context.Context) (*natsgo.Msg, *natsgo.MsgMetadata, error) {
	for {
		if r.failures > 0 {
			if m, meta := r.nextOfReplica(ctx); m != nil {
				return m, meta, nil
			}
			select { // counted from the last attempt, which may have waited long already
			case <-time.After(min(retryPauseMin<<min(r.failures, 10), retryPauseMax) - time.Since(r.tried)):
			case <-ctx.Done():
				return nil, nil, fault.Ended(ctx)
			case <-r.client.life.Context().Done():
				return nil, nil, ErrClosed
			}
		}
		r.failures++
		r.tried = time.Now()
		if err := r.client.conn.Wait(ctx); err != nil {
			return nil, nil, err
		}
		err := r.open(ctx)
		switch {
		case err == nil:
			return nil, nil, nil
		case ctx.Err() != nil:
			return nil, nil, fault.Ended(ctx)
		case errors.Is(err, jetstream.ErrStreamNotFound), r.client.life.Context().Err() != nil, !r.started && isRefusal(err):
			return nil, nil, err
		}
	}
}

// isRefusal tells whether the server will give the same answer again.
func isRefusal(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api.Code < http.StatusInternalServerError
}

// open makes a consumer that starts after the last message and asks it for the first batch.
func (r *orderedReader) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.attempt<<min((r.failures-1)/orderedTries, orderedPatience))
	defer cancel()
	ctx, leave := r.client.conn.WhileUp(ctx)
	defer leave()
	cfg := r.config
	cfg.Name = rand.Text()
	cfg.AckPolicy = jetstream.AckNonePolicy
	cfg.MemoryStorage = true
	cfg.Replicas = 1
	cfg.InactiveThreshold = orderedInactive
	if r.last > 0 && !r.whole {
		cfg.DeliverPolicy, cfg.OptStartSeq, cfg.OptStartTime = jetstream.DeliverByStartSequencePolicy, r.last+1, nil
	}
	_, r.breaks, _ = r.client.conn.State()
	consumer, err := r.client.js.CreateConsumer(ctx, r.stream, cfg)
	if err != nil {
		if !isRefusal(err) {
			r.orphans = append(r.orphans, cfg.Name)
		}
		return err
	}
	info := consumer.CachedInfo()
	r.started, r.pending = true, info.NumPending
	if cfg.DeliverPolicy == jetstream.DeliverNewPolicy {
		r.last = info.Delivered.Stream // the next consumer goes on from here
	}
	// The messages that were asked for and the statuses of all pulls, should nobody read for long.
	r.received = make(chan *natsgo.Msg, r.batch+4*int(orderedExpires/r.heartbeat))
	sub, err := r.client.conn.Subscribe(ctx, r.client.nc.NewInbox(), nil, r.received)
	if err != nil {
		return err
	}
	r.name, r.sub, r.delivered, r.asked = cfg.Name, sub, 0, 0
	r.ask(r.batch)
	for _, name := range r.orphans {
		r.discard(name)
	}
	r.orphans = nil
	if r.pending == 0 {
		r.mark(true)
	}
	return nil
}

// mark tells the observer.
func (r *orderedReader) mark(fresh bool) {
	if r.observe != nil {
		r.observe(fresh)
	}
}

// ask asks for n more messages. What goes wrong shows as silence.
func (r *orderedReader) ask(n int) {
	if r.left >= 0 {
		n = int(min(int64(n), r.left-int64(r.asked)))
	}
	if n <= 0 {
		return
	}
	body := wire.Pull(n, orderedExpires, r.heartbeat, false)
	if r.client.conn.TryPublish(r.api("MSG.NEXT", r.name), r.sub.Subject, body) == nil {
		r.asked += n
	}
}

func (r *orderedReader) api(verb, consumer string) string {
	return r.client.api.Subject("CONSUMER." + verb + "." + r.stream + "." + consumer)
}

// onStatus takes the server's word on a pull: a heartbeat, its end, or that the consumer is gone.
func (r *orderedReader) onStatus(ctx context.Context, status string, m *natsgo.Msg) error {
	switch status {
	case wire.StatusHeartbeat:
		if wire.LastDelivered(m) != strconv.FormatUint(r.delivered, 10) {
			r.drop() // the last messages were lost on their way
			return nil
		}
		r.mark(true)
		if r.idle != nil {
			return r.idle(ctx)
		}
	case wire.StatusTimeout:
		left, _ := wire.PullEnded(m)
		r.asked -= min(r.asked, left)
		if r.asked <= r.batch/2 {
			r.ask(r.batch - r.asked)
		}
	default:
		r.drop()
	}
	return nil
}

// drop gives the consumer up. The server is told to delete it, but not waited for: it drops the
// consumer by itself soon after.
func (r *orderedReader) drop() {
	if r.name == "" {
		return
	}
	r.mark(false)
	r.client.conn.Unsubscribe(r.sub)
	r.discard(r.name)
	r.name, r.sub = "", nil
}

// discard tells the server to delete a consumer.
func (r *orderedReader) discard(name string) {
	if up, _, _ := r.client.conn.State(); up { // or Close would have something to send
		_ = r.client.conn.TryPublish(r.api("DELETE", name), "", nil)
	}
}

// close ends the reading.
func (r *orderedReader) close() { r.drop() }
