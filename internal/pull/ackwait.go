package pull

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// How many consumers are remembered, and for how long.
const (
	waitsMax     = 1024
	waitsFresh   = time.Minute
	waitsTimeout = 500 * time.Millisecond
)

// waits remembers how long consumers wait for acknowledgements, and for how many.
type waits struct {
	tight atomic.Bool // a pull was held for want of acknowledgements, so that a call takes no lock where none was
	mu    sync.Mutex
	known map[string]ackWait
}

type ackWait struct {
	asked   time.Time
	wait    time.Duration
	backOff []time.Duration // by delivery, instead of wait
	most    int             // that may be without an acknowledgement, when positive
}

// find returns what was known last, and whether that is fresh.
func (w *waits) find(name string) (found ackWait, fresh bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	found = w.known[name]
	return found, time.Since(found.asked) < waitsFresh
}

// ackWaitMin is an ack wait that no network keeps: what was held for less is in time.
const ackWaitMin = 100 * time.Millisecond

// Acknowledge calls ack for a delivery that has been held for a time, 0 when that is not known, and returns that time
// and, when it was longer, for how long the server has waited.
func (p *Puller) Acknowledge(ctx context.Context, reply string, held func() time.Duration, ack func() error) (took, wait time.Duration, err error) {
	var asked <-chan time.Duration
	if _, trip := p.conn.Peer(); held() > 0 && held()+trip >= ackWaitMin {
		asked = p.ackWait(ctx, reply) // beside the acknowledgement
	}
	if err := ack(); err != nil {
		return 0, 0, err
	}
	if took = held(); took < ackWaitMin {
		return took, 0, nil
	}
	if asked == nil {
		asked = p.ackWait(ctx, reply)
	}
	if wait = <-asked; took <= wait {
		wait = 0
	}
	return took, wait, nil
}

// ackWait looks up for how long the server waits for the acknowledgement of one delivery, by its reply subject; it is 0
// when that cannot be found out.
func (p *Puller) ackWait(ctx context.Context, reply string) <-chan time.Duration {
	answer := make(chan time.Duration, 1)
	stream, consumer, _ := wire.AckOf(reply)
	delivery, ok := wire.ParseReply(reply)
	if !ok {
		answer <- 0
		return answer
	}
	name := stream + "." + consumer
	found, fresh := p.waits.find(name)
	if fresh {
		answer <- found.of(delivery.Count)
		return answer
	}
	go func() { answer <- p.askWait(ctx, name).of(delivery.Count) }()
	return answer
}

// askWait asks the server. That it may not is remembered, too.
func (p *Puller) askWait(ctx context.Context, name string) ackWait {
	_, trip := p.conn.Peer()
	ctx, cancel := context.WithTimeout(ctx, waitsTimeout+2*trip)
	defer cancel()
	stream, consumer, _ := strings.Cut(name, ".")
	info, err := p.api.ConsumerInfo(ctx, stream, consumer)
	found := ackWait{asked: time.Now()}
	if err == nil {
		found.wait, found.backOff, found.most = info.Config.AckWait, info.Config.BackOff, info.Config.MaxAckPending
	}
	if err == nil || errors.Is(err, natsgo.ErrPermissionViolation) {
		p.waits.mu.Lock()
		defer p.waits.mu.Unlock()
		if p.waits.known == nil || len(p.waits.known) >= waitsMax {
			p.waits.known = make(map[string]ackWait)
		}
		p.waits.known[name] = found
	}
	return found
}

// within returns how many of limit messages the consumer may give at once, as far as that is known.
func (p *Puller) within(ctx context.Context, stream, consumer string, limit int) int {
	if !p.waits.tight.Load() {
		return limit
	}
	name := stream + "." + consumer
	found, fresh := p.waits.find(name)
	if found.most > 0 && found.most < limit && !fresh {
		found = p.askWait(ctx, name)
	}
	if found.most > 0 {
		return min(limit, found.most)
	}
	return limit
}

// held notes that a pull brought some messages and was held for more. The server holds it, too, while as many as the
// consumer's MaxAckPending are not acknowledged: the next pull is for no more than that.
func (p *Puller) held(ctx context.Context, stream, consumer string, limit int) {
	if most := p.askWait(ctx, stream+"."+consumer).most; most > 0 && most < limit {
		p.waits.tight.Store(true)
	}
}

// of is the ack wait of that delivery.
func (w ackWait) of(delivery int) time.Duration {
	if n := len(w.backOff); n > 0 {
		return w.backOff[min(max(delivery, 1), n)-1]
	}
	return w.wait
}
