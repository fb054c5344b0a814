package consume

import (
	"slices"
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
	pulls   []*pullSession // the first is the sentinel
	since   time.Time
	alarmed time.Time
}

// sentinelSpell is the least time between two alarms of a node, and before a sentinel is relieved.
const sentinelSpell = time.Second

// change changes the pulls at the node of one of them.
func (x *sentinels) change(ps *pullSession, change func(*watchedNode)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	n := x.nodes[ps.node]
	if n == nil {
		n = &watchedNode{}
		x.nodes[ps.node] = n
	}
	if change(n); len(n.pulls) == 0 {
		delete(x.nodes, ps.node)
		return
	}
	if n.pulls[0].sentinel.Swap(true) {
		return
	}
	n.since = time.Now()
	n.pulls[0].wake()
	for _, other := range n.pulls[1:] {
		other.sentinel.Store(false)
	}
}

func (x *sentinels) join(ps *pullSession) {
	x.change(ps, func(n *watchedNode) { n.pulls = append(n.pulls, ps) })
}

// leave ends the part of a pull. Where it was the sentinel and has ended by a fault, the others are alarmed.
func (x *sentinels) leave(ps *pullSession, fault bool) {
	x.change(ps, func(n *watchedNode) {
		at := slices.Index(n.pulls, ps)
		n.pulls = slices.Delete(n.pulls, at, at+1)
		if at > 0 || !fault || time.Since(n.alarmed) < sentinelSpell {
			return
		}
		n.alarmed = time.Now()
		for _, other := range n.pulls {
			other.alarmed.Store(true)
			other.wake()
		}
	})
}

// relieve gives the part of a sentinel that asks for nothing, and so hears nothing, to another one.
func (x *sentinels) relieve(ps *pullSession) {
	x.change(ps, func(n *watchedNode) {
		if n.pulls[0] == ps && time.Since(n.since) > sentinelSpell {
			n.pulls = append(n.pulls[1:], ps)
		}
	})
}
