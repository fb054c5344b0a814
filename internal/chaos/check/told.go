package check

import (
	"encoding/json"
	"slices"
)

// Told is what a client counted by its end.
type Told struct {
	Sent, Received, Processed, Failed, DeadLettered, LostLocks uint64
	Subscriptions, Pending, InFlight, Buffered                 uint64 // what is left
}

// told: what a client says of itself in the end is what its worker did and saw.
func (r *Report) told(h History, t *Truth) {
	type bounds struct{ least, most uint64 }
	letters := uint64(len(t.Streams[Letters]))
	for _, report := range h.of("life/report") {
		var told Told
		if err := json.Unmarshal([]byte(report.ID), &told); err != nil {
			r.violate("life", "%s: %v", report.Worker, err)
			continue
		}
		var sent bounds
		var handled, failed, came, lost uint64
		tried := map[uint64]bool{}
		for _, c := range h {
			if c.Worker != report.Worker {
				continue
			}
			switch c.Op {
			case "core/publish", "stream/publish":
				if c.Fate == Done {
					sent.least++
				}
				if c.Fate == Done || c.Op == "stream/publish" { // an asynchronous one fails later
					sent.most++
				}
			case "core/request": // answered or not
				if c.Fate != Not || slices.Contains(c.Kinds, "ErrNoResponders") {
					sent.most++
				}
				if c.Fate == Done {
					sent.least++
					came++
				}
			case "core/receive", "core/serve", "consume/handle":
				handled++
				if c.Op == "core/serve" { // and answered
					sent.least++
					sent.most++
				}
				if c.Op != "consume/handle" || !tried[c.Seq] { // one that is tried again need not come again
					came++
					tried[c.Seq] = c.Op == "consume/handle"
				}
				if c.Err != "" {
					failed++
				}
			case "locks/unlock":
				if slices.Contains(c.Kinds, "ErrLockLost") {
					lost++
				}
			}
		}
		for what, of := range map[string]struct {
			got uint64
			bounds
		}{
			"sent": {told.Sent, sent}, "received": {told.Received, bounds{came, ^uint64(0)}}, "processed": {told.Processed, bounds{handled, handled}},
			"failed": {told.Failed, bounds{failed, failed}}, "lost locks": {told.LostLocks, bounds{lost, ^uint64(0)}},
			"dead-lettered": {told.DeadLettered, bounds{0, letters}},
			"subscriptions": {told.Subscriptions, bounds{}}, "pending": {told.Pending, bounds{}}, "in flight": {told.InFlight, bounds{}},
			"buffered": {told.Buffered, bounds{}},
		} {
			if of.got < of.least || of.got > of.most {
				r.violate("life", "%s tells of %d %s, and there were %d to %d", report.Worker, of.got, what, of.least, of.most)
			}
		}
	}
}
