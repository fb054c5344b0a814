package check

// core: a message comes once at most, those of a publisher in order; an answer is the request's own; what failed for
// certain was not handled, and nothing was handled twice.
func (r *Report) core(h History) {
	last := map[[2]string]uint64{}
	for _, got := range h.of("core/receive") {
		way := [2]string{got.Worker, got.Key}
		switch before := last[way]; {
		case got.N == before:
			r.Rows["core"].Duplicated++
			r.violate("core", "received twice: %v", &got)
		case got.N < before:
			r.violate("core", "received after %d: %v", before, &got)
		}
		last[way] = max(last[way], got.N)
	}
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
