package nats

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// How an ordered reader asks and how long it waits.
const (
	orderedHeartbeat = time.Second      // of the server while it has no message
	orderedSilence   = 2 * time.Second  // without a sign of life before the consumer is replaced
	orderedExpires   = 30 * time.Second // of one pull
	orderedAttempt   = 2 * time.Second  // to create a consumer
	orderedInactive  = time.Minute      // before the server drops a consumer that nobody pulls
)

// orderedReader reads a stream in order, without acknowledgements, through an ephemeral pull
// consumer. When messages are missing, the connection was replaced, or the server is silent, it
// goes on after the last sequence with a new consumer. Every consumer has a new name: one that
// keeps its name cannot be made again while the node that the cluster chose for it is dead, which
// blocks upstream's ordered consumer for as long.
//
// It belongs to one goroutine.
type orderedReader struct {
	client *Client
	stream string
	config jetstream.ConsumerConfig // of the first consumer
	batch  int                      // messages asked for at once

	name     string // of the consumer; empty while there is none
	sub      *natsgo.Subscription
	received chan *natsgo.Msg
	breaks   uint64 // of the connection, when the consumer was made

	pending   uint64 // on the server when the first consumer was made
	started   bool
	delivered uint64 // consumer sequence of the last message
	last      uint64 // stream sequence of the last message
	asked     int    // messages asked for and not yet received
	failures  int    // in a row
}

func (c *Client) newOrderedReader(stream string, config jetstream.ConsumerConfig, batch int) *orderedReader {
	return &orderedReader{client: c, stream: stream, config: config, batch: batch}
}

// start creates the first consumer, so that a wrong stream or filter is an error of the call that
// began the reading.
func (r *orderedReader) start(ctx context.Context) error { return r.open(ctx) }

// next returns the next message and its metadata. It returns when ctx ends, the client is closed,
// or the stream is gone; everything else it waits out.
func (r *orderedReader) next(ctx context.Context) (*natsgo.Msg, *natsgo.MsgMetadata, error) {
	silence := time.NewTimer(orderedSilence)
	defer silence.Stop()
	for {
		if r.name == "" {
			if err := r.reopen(ctx); err != nil {
				return nil, nil, err
			}
			silence.Reset(orderedSilence)
		}
		up, breaks, change := r.client.link.state()
		if !up || breaks != r.breaks {
			r.drop()
			continue
		}
		select {
		case m := <-r.received:
			silence.Reset(orderedSilence)
			if status := pullStatus(m); status != "" {
				r.onStatus(status, m)
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
			if r.asked <= r.batch/2 {
				r.ask(r.batch - r.asked)
			}
			return m, meta, nil
		case <-change:
		case <-silence.C:
			r.drop()
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-r.client.ctx.Done():
			return nil, nil, ErrClosed
		}
	}
}

// reopen creates the next consumer, with growing pauses, until ctx ends or the stream is known to
// be gone.
func (r *orderedReader) reopen(ctx context.Context) error {
	for {
		if r.failures > 0 {
			select {
			case <-time.After(min(retryPauseMin<<min(r.failures, 10), retryPauseMax)):
			case <-ctx.Done():
				return ctx.Err()
			case <-r.client.ctx.Done():
				return ErrClosed
			}
		}
		r.failures++
		if err := r.client.link.wait(ctx); err != nil {
			return err
		}
		err := r.open(ctx)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, jetstream.ErrStreamNotFound), r.client.ctx.Err() != nil:
			return err
		}
	}
}

// open makes a consumer that starts after the last message and asks it for the first batch.
func (r *orderedReader) open(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, orderedAttempt)
	defer cancel()
	cfg := r.config
	cfg.Name = rand.Text()
	cfg.AckPolicy = jetstream.AckNonePolicy
	cfg.MemoryStorage = true
	cfg.Replicas = 1
	cfg.InactiveThreshold = orderedInactive
	if r.last > 0 {
		cfg.DeliverPolicy, cfg.OptStartSeq, cfg.OptStartTime = jetstream.DeliverByStartSequencePolicy, r.last+1, nil
	}
	_, r.breaks, _ = r.client.link.state()
	consumer, err := r.client.js.CreateConsumer(ctx, r.stream, cfg)
	if err != nil {
		return err
	}
	if !r.started {
		r.started, r.pending = true, consumer.CachedInfo().NumPending
	}
	r.received = make(chan *natsgo.Msg, 2*r.batch)
	sub, err := r.client.nc.ChanSubscribe(r.client.nc.NewInbox(), r.received)
	if err != nil {
		return err
	}
	r.name, r.sub, r.delivered, r.asked = cfg.Name, sub, 0, 0
	r.ask(r.batch)
	return nil
}

// ask asks for n more messages. What goes wrong shows as silence.
func (r *orderedReader) ask(n int) {
	body, err := json.Marshal(pullRequest{Batch: n, Expires: orderedExpires, Heartbeat: orderedHeartbeat})
	if err != nil {
		return
	}
	if r.client.nc.PublishRequest(r.api("MSG.NEXT"), r.sub.Subject, body) == nil {
		r.asked += n
	}
}

func (r *orderedReader) api(verb string) string {
	return r.client.jsPrefix + "CONSUMER." + verb + "." + r.stream + "." + r.name
}

// pendingMessagesHeader tells how many messages of a pull that ended were not delivered (ADR-37).
const pendingMessagesHeader = "Nats-Pending-Messages"

// onStatus takes the server's word on a pull: a heartbeat, its end, or that the consumer is gone.
func (r *orderedReader) onStatus(status string, m *natsgo.Msg) {
	switch status {
	case statusHeartbeat:
	case statusTimeout:
		undelivered, _ := strconv.Atoi(m.Header.Get(pendingMessagesHeader))
		r.asked -= min(r.asked, undelivered)
		if r.asked <= r.batch/2 {
			r.ask(r.batch - r.asked)
		}
	default:
		r.drop()
	}
}

// drop gives the consumer up. The server is told to delete it, but not waited for: it drops the
// consumer by itself soon after.
func (r *orderedReader) drop() {
	if r.name == "" {
		return
	}
	_ = r.sub.Unsubscribe()
	_ = r.client.nc.Publish(r.api("DELETE"), nil)
	r.name, r.sub = "", nil
}

// close ends the reading.
func (r *orderedReader) close() { r.drop() }
