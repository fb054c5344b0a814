package consume

import (
	"sync"
	"time"
)

// sentinels see to it that a node's silent death is found out soon although its consumers' pulls are beaten
// for rarely: of the pulls at each node that can die without a word to this client, one has quick heartbeats,
// and when it hears nothing all others ask for a sign of life.
type sentinels struct {
	mu    sync.Mutex
	nodes map[string]*watchedNode
}

// watchedNode is the pulls at one node.
type watchedNode struct {
	pulls    map[*pullSession]struct{}
	sentinel *pullSession
	since    time.Time // it is the sentinel
	alarmed  time.Time
}

// The least times between two alarms of a node, and between two changes of its sentinel.
const (
	alarmSpell    = time.Second
	sentinelSpell = time.Second
)

func (x *sentinels) join(node string, ps *pullSession) {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := x.nodes[node]
	if n == nil {
		if x.nodes == nil {
			x.nodes = make(map[string]*watchedNode)
		}
		n = &watchedNode{pulls: make(map[*pullSession]struct{})}
		x.nodes[node] = n
	}
	n.pulls[ps] = struct{}{}
	if n.sentinel == nil {
		n.appoint(ps)
	}
}

// leave ends the part of a pull. Where it was the sentinel and has ended by a fault, the others are alarmed.
func (x *sentinels) leave(node string, ps *pullSession, fault bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := x.nodes[node]
	delete(n.pulls, ps)
	switch {
	case len(n.pulls) == 0:
		delete(x.nodes, node)
	case n.sentinel == ps:
		for next := range n.pulls {
			n.appoint(next)
			break
		}
		if fault && time.Since(n.alarmed) > alarmSpell {
			n.alarmed = time.Now()
			for other := range n.pulls {
				other.alarmed.Store(true)
				other.wake()
			}
		}
	}
}

// relieve gives the part of a sentinel that asks for nothing, and so hears nothing, to another one.
func (x *sentinels) relieve(node string, ps *pullSession) {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := x.nodes[node]
	if n.sentinel != ps || time.Since(n.since) < sentinelSpell {
		return
	}
	for next := range n.pulls {
		if next != ps {
			n.appoint(next)
			return
		}
	}
}

func (n *watchedNode) appoint(ps *pullSession) {
	if n.sentinel != nil {
		n.sentinel.sentinel.Store(false)
	}
	n.sentinel, n.since = ps, time.Now()
	ps.sentinel.Store(true)
	ps.wake()
}
