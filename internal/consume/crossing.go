package consume

import (
	"cmp"
	"slices"
	"time"
)

// crossingPause is how often to look whether what may have been overtaken has come.
const crossingPause = time.Millisecond

// arrival is a message that may have overtaken others of its key, and waits for them.
type arrival struct {
	d   *Delivery
	key string
}

// crosses takes care of a message that came while others that the server may have sent before it wait at another inbox of
// the puller: each inbox has a goroutine of its own in nats.go. All are sorted when the inboxes are read. The caller
// holds s.mu.
func (ps *pullSession) crosses(d *Delivery, key string) bool {
	p := ps.p
	if !p.s.Keyed || len(p.crossing) == 0 && !p.unread(ps) {
		return false
	}
	if p.crossing = append(p.crossing, arrival{d, key}); len(p.crossing) == 1 {
		time.AfterFunc(crossingPause, p.cross)
	}
	return true
}

// unread tells whether an inbox other than that of ps has messages. The caller holds s.mu.
func (p *puller) unread(ps *pullSession) bool {
	waits := func(one *pullSession) bool {
		if one == nil || one == ps {
			return false
		}
		n, _, err := one.sub.Pending()
		return err == nil && n > 0
	}
	return waits(p.session) || slices.ContainsFunc(p.retired, waits)
}

// cross takes in what has waited, once nothing can be ahead of it.
func (p *puller) cross() {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	if len(p.crossing) > 0 && p.unread(nil) {
		time.AfterFunc(crossingPause, p.cross)
		return
	}
	p.takeCrossing()
}

// takeCrossing takes it in as it is. The caller holds s.mu.
func (p *puller) takeCrossing() {
	crossing := p.crossing
	p.crossing = nil
	slices.SortStableFunc(crossing, func(a, b arrival) int { return cmp.Compare(a.d.Sequence, b.d.Sequence) })
	for _, one := range crossing {
		p.s.take(one.d, one.key)
	}
}
