package pull

import (
	"context"
	"errors"
	"strings"
	"sync"
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

// waits remembers how long consumers wait for acknowledgements.
type waits struct {
	mu    sync.Mutex
	known map[string]ackWait
}

type ackWait struct {
	asked   time.Time
	wait    time.Duration
	backOff []time.Duration // by delivery, instead of wait
}

// AckWait looks up for how long the server waits for the acknowledgement of one delivery, by its reply subject; it is 0
// when that cannot be found out.
func (p *Puller) AckWait(ctx context.Context, reply string) <-chan time.Duration {
	answer := make(chan time.Duration, 1)
	stream, consumer, _ := wire.AckOf(reply)
	delivery, _, _, ok := wire.ParseReply(reply)
	if !ok {
		answer <- 0
		return answer
	}
	name := stream + "." + consumer
	p.waits.mu.Lock()
	found, known := p.waits.known[name]
	p.waits.mu.Unlock()
	if known && time.Since(found.asked) < waitsFresh {
		answer <- found.of(delivery)
		return answer
	}
	go func() { answer <- p.askWait(ctx, name).of(delivery) }()
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
		found.wait, found.backOff = info.Config.AckWait, info.Config.BackOff
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

// of is the ack wait of that delivery.
func (w ackWait) of(delivery int) time.Duration {
	if n := len(w.backOff); n > 0 {
		return w.backOff[min(max(delivery, 1), n)-1]
	}
	return w.wait
}
