package check

import (
	"slices"
	"strings"
)

// The plans that a message can carry.
const (
	PlanOK     = "ok"
	PlanTwice  = "twice"  // its first two deliveries fail
	PlanAlways = "always" // all do
	PlanNever  = "never"  // it is a permanent failure
)

// Body is a message's payload: its own ID, and its plan.
func Body(id, plan string) []byte { return []byte(id + " " + plan) }

// ReadBody is the reverse.
func ReadBody(data []byte) (id, plan string) {
	id, plan, _ = strings.Cut(string(data), " ")
	return id, plan
}

// stored: what is acknowledged is stored once, where the acknowledgement says; what failed for certain is not stored; a
// caller's messages are in the order of their acknowledgements.
func (r *Report) stored(h History, t *Truth) {
	at := map[string][]uint64{}
	for _, msg := range t.Streams[Orders] {
		id, _ := ReadBody(msg.Data)
		at[id] = append(at[id], msg.Seq)
	}
	last := map[string]uint64{}
	known := map[string]bool{}
	for _, p := range h.of("stream/publish") {
		known[p.ID] = true
		where := at[p.ID]
		if len(where) > 1 {
			r.Rows["stream"].Duplicated++
			r.violate("stream", "stored at %v: %v", where, &p)
		}
		switch {
		case p.Fate == Done && len(where) == 0:
			r.Rows["stream"].Lost++
			r.violate("stream", "acknowledged and not stored: %v", &p)
		case p.Fate == Done && p.Seq > 0 && !slices.Contains(where, p.Seq):
			r.violate("stream", "stored at %v: %v", where, &p)
		case p.Fate == Not && len(where) > 0:
			r.violate("stream", "stored at %v in spite of %q: %v", where, p.Err, &p)
		case p.Fate == Done && p.Seq > 0:
			if p.Seq < last[p.Key] {
				r.violate("stream", "stored before its predecessor at %d: %v", last[p.Key], &p)
			}
			last[p.Key] = p.Seq
		}
	}
	killed := h.killed()
	for id := range at {
		if life, _, _ := strings.Cut(id, "-"); !known[id] && !killed[life] {
			r.violate("stream", "stored, and nobody has published it: %s", id)
		}
	}
	r.atomic(h, at)
}

// atomic: of the messages of an atomic batch, which have one N, all are stored or none.
func (r *Report) atomic(h History, at map[string][]uint64) {
	batches := map[string][2]int{}
	for _, p := range h.of("stream/publish") {
		if p.N == 0 {
			continue
		}
		batch, _, _ := strings.Cut(p.ID, "/")
		n := batches[batch]
		n[min(len(at[p.ID]), 1)]++
		batches[batch] = n
	}
	for batch, n := range batches {
		if n[0] > 0 && n[1] > 0 {
			r.violate("stream", "of the atomic batch %s are %d stored and %d not", batch, n[1], n[0])
		}
	}
}

// handled: every stored message is handled as planned or a dead letter, once, and finished; the handlers of one key run
// one after another, in order.
func (r *Report) handled(h History, t *Truth, faults History) {
	good, tried, late := map[uint64]int{}, map[uint64]int{}, map[uint64]bool{}
	for _, c := range h.of("consume/handle") { // in the order of their ends
		tried[c.Seq]++
		if c.Err == "" {
			good[c.Seq]++
		} else if good[c.Seq] > 0 {
			late[c.Seq] = true // by who was cut off, or when the acknowledgement was lost: it may have been the last try
		}
	}
	letters := map[string]int{}
	for _, msg := range t.Streams[Letters] {
		id, _ := ReadBody(msg.Data)
		if letters[id]++; letters[id] == 2 {
			r.Rows["consume"].Duplicated++
			r.violate("consume", "two dead letters of %s", id)
		}
	}
	for _, msg := range t.Streams[Orders] {
		id, plan := ReadBody(msg.Data)
		if good[msg.Seq] > 1 {
			r.Rows["consume"].Duplicated++ // allowed, and told
		}
		fails := plan == PlanAlways || plan == PlanNever
		switch {
		case good[msg.Seq] == 0 && letters[id] == 0:
			r.Rows["consume"].Lost++
			r.violate("consume", "neither handled nor a dead letter, tried %d times: %d %s %s", tried[msg.Seq], msg.Seq, id, plan)
		case !fails && letters[id] > 0 && !late[msg.Seq]:
			r.violate("consume", "a dead letter, tried %d times: %d %s %s: %s", tried[msg.Seq], msg.Seq, id, plan, reason(t, id))
		case fails && letters[id] == 0:
			r.violate("consume", "no dead letter: %d %s %s", msg.Seq, id, plan)
		}
	}
	if t.Waiting > 0 || t.Held > 0 {
		r.violate("consume", "the consumer has %d messages that it never delivered, and %d that are not finished", t.Waiting, t.Held)
	}
	r.order(h, faults)
}

func reason(t *Truth, id string) string {
	for _, msg := range t.Streams[Letters] {
		if one, _ := ReadBody(msg.Data); one == id && len(msg.Header["Dead-Letter-Reason"]) > 0 {
			return msg.Header["Dead-Letter-Reason"][0]
		}
	}
	return ""
}

// order looks at the handlers of each key in each life. First deliveries come in the order of the stream; a server that was
// killed forgets some, and counts from one again, and so does one that was frozen and does not know yet that another one
// leads: what was handled before, by anybody, is no first delivery.
func (r *Report) order(h, faults History) {
	last, handled := map[[2]string]Record{}, map[uint64]bool{}
	for _, c := range h.of("consume/handle") { // in the order of their ends
		lane := [2]string{c.Worker, c.Key}
		before, ok := last[lane]
		switch {
		case !ok:
		case c.Begin < before.End:
			r.violate("consume", "two handlers of a key at once: %v and %v", &before, &c)
		case c.Seq < before.Seq && c.N == 1 && before.N == 1 && !handled[c.Seq] && !faults.suffers(c.Worker, before.Begin, c.End, Forgets):
			r.violate("consume", "out of order: %v and then %v", &before, &c)
		}
		last[lane], handled[c.Seq] = c, true
	}
}
