package nats

import (
	"context"
	"errors"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/jsapi"
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
// A consumer that is gone is ErrNoResponders. The other errors are ErrNotJetStream, ErrPermission, ErrNotConnected,
// and ErrTimeout, after which AckMessage may be called again.
func (c *Client) AckMessage(ctx context.Context, msg *Message) error {
	const op = "ack"
	if msg == nil {
		return fail(op, "", ErrInvalidArgument, "the message is nil")
	}
	var wait <-chan time.Duration
	if _, trip := c.conn.Peer(); msg.held() > 0 && msg.held()+trip >= ackWaitMin {
		wait = c.ackWaits.of(ctx, c.api, msg) // beside the acknowledgement
	}
	if err := msg.AckSync(ctx); err != nil {
		return err
	}
	held := msg.held()
	if held < ackWaitMin {
		return nil
	}
	if wait == nil {
		wait = c.ackWaits.of(ctx, c.api, msg)
	}
	if wait := <-wait; wait > 0 && held > wait {
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

// of looks up the ack wait of one delivery, which is 0 when it cannot be found out.
func (a *ackWaits) of(ctx context.Context, api *jsapi.API, msg *Message) <-chan time.Duration {
	answer := make(chan time.Duration, 1)
	meta, err := msg.Metadata()
	if err != nil {
		answer <- 0
		return answer
	}
	name := path(meta.Stream, meta.Consumer)
	a.mu.Lock()
	found, ok := a.known[name]
	a.mu.Unlock()
	if ok && time.Since(found.asked) < ackWaitsFresh {
		answer <- found.of(meta.NumDelivered)
		return answer
	}
	go func() {
		found := a.ask(ctx, api, meta)
		answer <- found.of(meta.NumDelivered)
	}()
	return answer
}

// ask asks the server. That it may not is remembered, too.
func (a *ackWaits) ask(ctx context.Context, api *jsapi.API, meta *jetstream.MsgMetadata) ackWait {
	_, trip := api.Conn().Peer()
	ctx, cancel := context.WithTimeout(ctx, ackWaitsTimeout+2*trip)
	defer cancel()
	info, err := api.ConsumerInfo(ctx, meta.Stream, meta.Consumer)
	found := ackWait{asked: time.Now()}
	if err == nil {
		found.wait, found.backOff = info.Config.AckWait, info.Config.BackOff
	}
	if err == nil || errors.Is(err, natsgo.ErrPermissionViolation) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.known == nil || len(a.known) >= ackWaitsSize {
			a.known = make(map[string]ackWait)
		}
		a.known[path(meta.Stream, meta.Consumer)] = found
	}
	return found
}

// of is the ack wait of that delivery.
func (w ackWait) of(delivery uint64) time.Duration {
	if n := len(w.backOff); n > 0 {
		return w.backOff[min(max(int(delivery), 1), n)-1]
	}
	return w.wait
}
