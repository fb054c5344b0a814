package sentinel

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// How a sentinel hears of its server.
const (
	Beat    = 500 * time.Millisecond  // of its pulls
	Silence = 1100 * time.Millisecond // that is borne: two heartbeats and a little
)

// Nodes are the servers that lead the consumers of a client.
type Nodes struct {
	trip func() time.Duration // there and back
	born time.Time

	mu    sync.Mutex
	nodes map[string]*node
}

// node is the watch over one server.
type node struct {
	all      *Nodes
	name     string
	parts    map[*Part]struct{}
	sentinel *Part
	timer    *time.Timer
	heard    atomic.Int64 // when, since all.born
	alarmed  atomic.Bool  // since then
}

// Part is that of one who pulls. NewPart makes it.
type Part struct {
	node     atomic.Pointer[node]
	sentinel atomic.Bool
	alarmed  atomic.Bool
	woken    chan struct{}
}

// New returns a watch over no server. Trip tells how long the way there and back takes.
func New(trip func() time.Duration) *Nodes {
	return &Nodes{trip: trip, born: time.Now(), nodes: make(map[string]*node)}
}

// NewPart returns a part in no watch.
func NewPart() *Part { return &Part{woken: make(chan struct{}, 1)} }

// Join lets p take part in the watch over the server of that name until it leaves.
func (x *Nodes) Join(p *Part, name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := x.nodes[name]
	if n == nil {
		n = &node{all: x, name: name, parts: make(map[*Part]struct{})}
		n.hear()
		n.timer = time.AfterFunc(x.patience(), n.look)
		x.nodes[name] = n
	}
	n.parts[p] = struct{}{}
	p.alarmed.Store(false)
	p.node.Store(n)
	if n.sentinel == nil {
		n.appoint(p)
	}
}

func (x *Nodes) patience() time.Duration { return Silence + x.trip() }

// look alarms the parts when nothing was heard, again and again.
func (n *node) look() {
	n.all.mu.Lock()
	defer n.all.mu.Unlock()
	if len(n.parts) == 0 {
		return
	}
	wait := n.all.patience()
	if left := wait - n.silence(); left > 0 {
		wait = left
	} else {
		n.alarmed.Store(true)
		for p := range n.parts {
			p.alarmed.Store(true)
			p.Wake()
		}
	}
	n.timer.Reset(wait)
}

func (n *node) hear() { n.heard.Store(int64(time.Since(n.all.born))) }

func (n *node) silence() time.Duration { return time.Since(n.all.born) - time.Duration(n.heard.Load()) }

// appoint makes p the sentinel. The caller holds the lock.
func (n *node) appoint(p *Part) {
	if n.sentinel != nil {
		n.sentinel.sentinel.Store(false)
	}
	n.sentinel = p
	p.sentinel.Store(true)
	p.Wake()
}

// Leave ends the part.
func (p *Part) Leave() {
	n := p.node.Swap(nil)
	if n == nil {
		return
	}
	n.all.mu.Lock()
	defer n.all.mu.Unlock()
	delete(n.parts, p)
	p.sentinel.Store(false)
	if n.sentinel == p {
		for next := range n.parts {
			n.appoint(next)
			break
		}
	}
	if len(n.parts) == 0 {
		n.timer.Stop()
		delete(n.all.nodes, n.name)
	}
}

// Sign notes that the server was heard. The first after an alarm makes its part the sentinel.
func (p *Part) Sign() {
	n := p.node.Load()
	if n == nil {
		return
	}
	n.hear()
	if !n.alarmed.Load() || !n.alarmed.Swap(false) {
		return
	}
	n.all.mu.Lock()
	defer n.all.mu.Unlock()
	if _, ok := n.parts[p]; ok {
		n.appoint(p)
	}
}

// IsSentinel tells whether the part's pulls are to have quick heartbeats.
func (p *Part) IsSentinel() bool { return p.sentinel.Load() }

// Alarmed tells, once, that the server is silent.
func (p *Part) Alarmed() bool { return p.alarmed.Swap(false) }

// Silence returns for how long nobody has heard of the server.
func (p *Part) Silence() time.Duration {
	if n := p.node.Load(); n != nil {
		return n.silence()
	}
	return math.MaxInt64
}

// Wake wakes the part's owner.
func (p *Part) Wake() {
	select {
	case p.woken <- struct{}{}:
	default:
	}
}

// Woken tells the owner that the part is another one, or alarmed, or that Wake was called.
func (p *Part) Woken() <-chan struct{} { return p.woken }
