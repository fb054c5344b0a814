package pull

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/wire"
)

// parked are the pulls that calls had to leave before they were over: to unsubscribe from one that the server may
// still answer costs the messages on their way a delivery, and in a cluster those that are not sent yet, too. So
// the next call for the consumer goes on with it. Where none comes soon, the messages are handed back.
type parked struct {
	some  atomic.Bool // so that a call takes no lock where there are none
	mu    sync.Mutex
	pulls map[string][]*pull // by subject
}

// adopt returns a pull of the subject that was left, and may still be answered.
func (all *parked) adopt(subject string) *pull {
	if !all.some.Load() {
		return nil
	}
	all.mu.Lock()
	defer all.mu.Unlock()
	for _, p := range all.pulls[subject] {
		if p.patience() > 0 {
			all.remove(p)
			return p
		}
	}
	return nil
}

// remove tells whether p was there. The caller holds the lock.
func (all *parked) remove(p *pull) bool {
	of := all.pulls[p.subject]
	i := slices.Index(of, p)
	if i < 0 {
		return false
	}
	if all.pulls[p.subject] = slices.Delete(of, i, i+1); len(of) == 1 {
		delete(all.pulls, p.subject)
	}
	all.some.Store(len(all.pulls) > 0)
	return true
}

const (
	pullsLeft   = 300 * time.Millisecond // for the next call to come
	handBackMax = 2 * time.Second        // for what is on its way then
)

// leave keeps one for the next call, and ends it when none comes. Shutdown waits for that.
func (p *Puller) leave(one *pull, done func()) {
	all := &p.parked
	all.mu.Lock()
	if all.pulls == nil {
		all.pulls = make(map[string][]*pull)
	}
	all.pulls[one.subject] = append(all.pulls[one.subject], one)
	all.some.Store(true)
	all.mu.Unlock()
	_, trip := p.conn.Peer()
	go func() {
		defer done()
		select {
		case <-time.After(pullsLeft + trip):
		case <-p.life.Ending():
		}
		all.mu.Lock()
		mine := all.remove(one)
		all.mu.Unlock()
		if mine {
			one.handBack(handBackMax + 2*trip)
		}
	}()
}

// handBack ends the pull and hands back what has come of it: otherwise it would wait for the ack wait to pass.
func (p *pull) handBack(within time.Duration) {
	ctx, cancel := context.WithTimeout(p.of.life.Context(), within)
	defer cancel()
	p.of.conn.Finish(ctx, p.sub, true)
	p.deaf()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.came {
		_ = p.of.conn.TryPublish(m.Reply, "", wire.Nak)
	}
	p.came = nil
}
