package nats

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// AckMessage acknowledges msg and returns when the server has confirmed it, as Message.AckSync does.
//
// Acknowledging a message twice is ErrAlreadyAcked. The server does not tell a late acknowledgement
// from another: it confirms it, and it counts, also when the server has delivered the message again,
// and even when somebody else has acknowledged it. So AckMessage goes by the clock: when a message
// that PullMessages returned was held for longer than its consumer's ack wait, or than the BackOff of
// its delivery, it returns ErrLateAck. The acknowledgement holds all the same: the message will not
// come again, but another worker may have got it, and its effects may have happened twice. InProgress
// starts the time anew. The consumer's ack wait is asked for once a minute, and only when a message
// was held for 100 ms or longer.
//
// A consumer that is gone is ErrNoResponders: nobody has noted that the message is done. The other
// errors are ErrNotJetStream, ErrTimeout, after which AckMessage may be called again, and those of
// Request.
func (c *Client) AckMessage(ctx context.Context, msg *Message) error {
	const op = "ack"
	if msg == nil {
		return fail(op, "", ErrInvalidArgument, "the message is nil")
	}
	if err := msg.AckSync(ctx); err != nil {
		return err
	}
	held := msg.held()
	if held < ackWaitMin {
		return nil
	}
	meta, err := msg.Metadata()
	if err != nil {
		return nil //nolint:nilerr // the message is acknowledged, and without it nothing more can be said
	}
	if wait := c.ackWaits.of(ctx, c.js, meta); wait > 0 && held > wait {
		return fail(op, msg.Subject, ErrLateAck, "it was held for %v and the ack wait is %v", held.Round(time.Millisecond), wait)
	}
	return nil
}

// ackWaitMin is an ack wait that no network keeps: what was held for less is in time.
const ackWaitMin = 100 * time.Millisecond

// How many consumers are remembered, and for how long.
const (
	ackWaitsSize    = 1024
	ackWaitsFresh   = time.Minute
	ackWaitsTimeout = 500 * time.Millisecond
)

// ackWaits remembers how long consumers wait for acknowledgements.
type ackWaits struct {
	mu    sync.Mutex
	known map[string]ackWait
}

type ackWait struct {
	asked   time.Time
	wait    time.Duration
	backOff []time.Duration // by delivery, instead of wait
}

// of returns the ack wait of one delivery, or 0 when it cannot be found out.
func (a *ackWaits) of(ctx context.Context, js jetstream.JetStream, meta *jetstream.MsgMetadata) time.Duration {
	name := path(meta.Stream, meta.Consumer)
	a.mu.Lock()
	found, ok := a.known[name]
	a.mu.Unlock()
	if !ok || time.Since(found.asked) > ackWaitsFresh {
		ctx, cancel := context.WithTimeout(ctx, ackWaitsTimeout)
		defer cancel()
		consumer, err := js.Consumer(ctx, meta.Stream, meta.Consumer)
		if err != nil {
			return 0
		}
		cfg := consumer.CachedInfo().Config
		found = ackWait{asked: time.Now(), wait: cfg.AckWait, backOff: cfg.BackOff}
		a.mu.Lock()
		if a.known == nil || len(a.known) >= ackWaitsSize {
			a.known = make(map[string]ackWait)
		}
		a.known[name] = found
		a.mu.Unlock()
	}
	if n := len(found.backOff); n > 0 {
		return found.backOff[min(max(int(meta.NumDelivered), 1), n)-1]
	}
	return found.wait
}
