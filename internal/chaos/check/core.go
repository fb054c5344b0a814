package check

import (
	"slices"
	"time"
)

// core: a message comes once at most, those of a publisher in order, and while nothing is broken it comes; an answer is
// the request's own; what failed for certain was not handled, and nothing was handled twice.
func (r *Report) core(h, faults History) {
	r.missed(h, faults)
	r.inOrder(h)
	served := map[string]int{}
	for _, s := range h.of("core/serve") {
		if served[s.ID]++; served[s.ID] == 2 {
			r.Rows["core"].Duplicated++
			r.violate("core", "served twice: %v", &s)
		}
	}
	for _, q := range h.of("core/request") {
		switch {
		case q.Fate == Done && served[q.ID] == 0:
			r.violate("core", "answered and never served: %v", &q)
		case q.Fate == Not && served[q.ID] > 0:
			r.violate("core", "served in spite of %q: %v", q.Err, &q)
		}
	}
}

// inOrder looks at the messages of each publisher. What went into a connection that was given up may still be on its way when
// the next one stands.
func (r *Report) inOrder(h History) {
	type message struct {
		subject string
		n       uint64
	}
	downs, sent := map[string][]int64{}, map[message]Record{}
	for _, c := range h {
		switch {
		case c.Op == "life/line" && c.ID == Down:
			downs[c.Worker] = append(downs[c.Worker], c.Begin)
		case c.Op == "core/publish":
			sent[message{c.Key, c.N}] = c
		}
	}
	together := func(first, then Record) bool { // by one connection
		return !slices.ContainsFunc(downs[first.Worker], func(at int64) bool { return first.Begin <= at && at <= then.End })
	}
	got, last := map[string]map[message]bool{}, map[[2]string]message{}
	for _, c := range h.of("core/receive") {
		way, msg := [2]string{c.Worker, c.Key}, message{c.Key, c.N}
		if got[c.Worker] == nil {
			got[c.Worker] = map[message]bool{}
		}
		switch before := last[way]; {
		case got[c.Worker][msg]:
			r.Rows["core"].Duplicated++
			r.violate("core", "received twice: %v", &c)
		case c.N < before.n && together(sent[msg], sent[before]):
			r.violate("core", "received after %d: %v", before.n, &c)
		}
		got[c.Worker][msg] = true
		if c.N > last[way].n {
			last[way] = msg
		}
	}
}

// missed looks at what is published while no fault of anybody's line is near: all who have subscribed before and are there
// long after must have it.
func (r *Report) missed(h, faults History) {
	const near = int64(2 * time.Second)
	from, to := map[string]int64{}, map[string]int64{}
	type message struct {
		worker, key string
		n           uint64
	}
	got := map[message]bool{}
	for _, c := range h {
		switch c.Op {
		case "core/subscribe":
			if c.Fate == Done && from[c.Worker] == 0 {
				from[c.Worker] = c.End
			}
		case "core/receive":
			got[message{c.Worker, c.Key, c.N}] = true
		case "life/close": // in which it handled more
			to[c.Worker] = c.Begin
		}
		if c.Load() != "life" {
			to[c.Worker] = max(to[c.Worker], c.Begin)
		}
	}
	for _, p := range h.of("core/publish") {
		if p.Fate != Done || faults.suffers(p.Worker, p.Begin, p.End+near, Line, Peer, Gap) {
			continue
		}
		for worker, since := range from {
			if since+near < p.Begin && p.End+near < to[worker] && !got[message{worker, p.Key, p.N}] {
				r.Rows["core"].Lost++
				r.violate("core", "%s has missed it while nothing was broken: %v", worker, &p)
			}
		}
	}
}
