package check

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The keys that workers write: each worker's own, the shared counters, and those that are created once.
const (
	OwnKeys   = "own."
	CountKeys = "count."
	OnceKeys  = "once."
)

const keyPrefix = "$KV.keys."

// keys: a key of one writer has its last value, or a later one that may have been written; no change of a counter is
// lost; of many who create a key one succeeds; each revision is one write.
func (r *Report) keys(h History, t *Truth) {
	now, revisions := map[string]Stored{}, map[uint64]Stored{}
	for _, msg := range t.Streams[Keys] {
		now[strings.TrimPrefix(msg.Subject, keyPrefix)] = msg
		revisions[msg.Seq] = msg
	}
	written, least, most := map[string]Record{}, map[string]int{}, map[string]int{}
	maybe, once := map[string][]string{}, map[string]int{}
	used := map[uint64]bool{}
	killed := h.killed()
	for _, w := range h {
		switch w.Op {
		case "kv/put", "kv/delete", "kv/modify", "kv/create":
		default:
			continue
		}
		if w.Fate == Done && w.Op != "kv/delete" {
			if used[w.Seq] {
				r.Rows["kv"].Duplicated++
				r.violate("kv", "another write has its revision: %v", &w)
			}
			used[w.Seq] = true
			if msg, ok := revisions[w.Seq]; ok && (msg.Subject != keyPrefix+w.Key || w.ID != "" && string(msg.Data) != w.ID) {
				r.violate("kv", "the revision is %s %s: %v", msg.Subject, msg.Data, &w)
			}
		}
		switch {
		case strings.HasPrefix(w.Key, OwnKeys) && w.Fate == Done:
			written[w.Key] = w
		case strings.HasPrefix(w.Key, OwnKeys) && w.Fate == Maybe:
			maybe[w.Key] = append(maybe[w.Key], w.ID)
		case strings.HasPrefix(w.Key, CountKeys) && w.Fate == Done:
			least[w.Key]++
			most[w.Key]++
		case strings.HasPrefix(w.Key, CountKeys) && w.Fate == Maybe:
			most[w.Key]++
		case strings.HasPrefix(w.Key, OnceKeys) && w.Fate == Done:
			if once[w.Key]++; once[w.Key] == 2 {
				r.violate("kv", "created twice: %v", &w)
			}
		case w.Fate == Not && w.ID != "" && w.ID == string(now[w.Key].Data):
			r.violate("kv", "written in spite of %q: %v", w.Err, &w)
		}
	}
	for key, w := range written {
		got := string(now[key].Data)                                      // a deletion has no value
		later := now[key].Seq > w.Seq && slices.Contains(maybe[key], got) // even one that began before, and came late
		if got != w.ID && !later && !killed[w.Worker] {
			r.Rows["kv"].Lost++
			r.violate("kv", "%s is %q at %d, after %v", key, got, now[key].Seq, &w)
		}
	}
	lives := 0 // each may have had a change in the making
	for _, dead := range killed {
		if dead {
			lives++
		}
	}
	for key := range most {
		if n, _ := strconv.Atoi(string(now[key].Data)); n < least[key] || n > most[key]+lives {
			r.Rows["kv"].Lost += max(0, least[key]-n)
			r.violate("kv", "%s is %d after %d changes and %d that may have been made", key, n, least[key], most[key]-least[key])
		}
	}
}

// seen: a watcher reports the revisions of a key in order, none twice; what watchers and caches know in the end, at the
// dump, is the truth, and a cache never shows less than what was waited for.
func (r *Report) seen(h History, t *Truth) {
	now := map[string]uint64{}
	for _, msg := range t.Streams[Keys] {
		if !slices.Contains(msg.Header["KV-Operation"], "PURGE") {
			now[strings.TrimPrefix(msg.Subject, keyPrefix)] = msg.Seq
		}
	}
	last := map[string]map[string]uint64{}
	for _, s := range h.of("kv/see") {
		if last[s.Worker] == nil {
			last[s.Worker] = map[string]uint64{}
		}
		if before := last[s.Worker][s.Key]; s.Seq == before {
			r.Rows["kv"].Duplicated++
			r.violate("kv", "a watcher reports it twice: %v", &s)
		} else if s.Seq < before {
			r.violate("kv", "a watcher reports it after %d: %v", before, &s)
		}
		last[s.Worker][s.Key] = s.Seq
	}
	for _, c := range h.of("kv/cached") {
		if c.Err == "" && c.Seq < c.N {
			r.violate("kv", "a cache has %d after %d was waited for: %v", c.Seq, c.N, &c)
		}
	}
	for _, dump := range h.of("kv/dump") {
		if dump.Err != "" {
			r.violate("kv", "%s: %s", dump.Worker, dump.Err)
		}
		var cached map[string]uint64
		_ = json.Unmarshal([]byte(dump.ID), &cached)
		for key, seq := range now {
			if got := last[dump.Worker][key]; got != seq {
				r.violate("kv", "the watcher of %s ends at %d of %s, which is at %d", dump.Worker, got, key, seq)
			}
		}
		for _, msg := range t.Streams[Keys] {
			key := strings.TrimPrefix(msg.Subject, keyPrefix)
			if msg.Seq != now[key] {
				continue
			}
			if deleted := len(msg.Header["KV-Operation"]) > 0; deleted && cached[key] != 0 || !deleted && cached[key] != msg.Seq {
				r.violate("kv", "the cache of %s ends at %d of %s, which is at %d", dump.Worker, cached[key], key, msg.Seq)
			}
		}
	}
}

// locks: a token is given once, and who looks at a lock and finds it held does so before the next one has got it.
func (r *Report) locks(h History) {
	held := map[string][]Record{}
	for _, l := range h.of("locks/lock") {
		if l.Fate == Done {
			held[l.Key] = append(held[l.Key], l)
		}
	}
	for key, turns := range held {
		slices.SortFunc(turns, func(a, b Record) int { return int(a.Seq) - int(b.Seq) })
		for i := 1; i < len(turns); i++ {
			if a, b := turns[i-1], turns[i]; a.Seq == b.Seq {
				r.violate("locks", "two have the token: %v and %v", &a, &b)
			} else if b.End < a.Begin {
				r.violate("locks", "tokens do not grow: %v and %v", &a, &b)
			}
		}
		held[key] = turns
	}
	for _, look := range h.of("locks/look") {
		for _, turn := range held[look.Key] {
			// A process that was held up looked with an old clock: no lock can help that.
			if turn.Seq > look.Seq && look.Begin > turn.End+int64(look.Stall+10*time.Millisecond) {
				r.violate("locks", "%v, after %v", &look, &turn)
				break
			}
		}
	}
}

// Content is what an object has whose seed and size are known.
func Content(seed uint64, size int) []byte {
	var key [32]byte
	key[0], key[1], key[2], key[3] = byte(seed), byte(seed>>8), byte(seed>>16), byte(seed>>24)
	data := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(data)
	return data
}

// Deleted is what a watcher's record has instead of an object's identifier.
const Deleted = "deleted"

// objects: every object is whole, and of a put that had no error or a doubtful one, and no chunk is left of what was
// replaced, deleted or given up. Watchers end with what is there.
func (r *Report) objects(h History, t *Truth) {
	puts := map[string]Record{}
	for _, p := range h.of("objects/put") {
		puts[p.ID] = p
	}
	seen := map[[2]string]string{}
	for _, s := range h.of("objects/see") {
		seen[[2]string{s.Worker, s.Key}] = s.ID
	}
	chunks := map[string][]byte{}
	for _, msg := range t.Streams[Objects] {
		if name, ok := strings.CutPrefix(msg.Subject, "$O.files.C."); ok {
			chunks[name] = append(chunks[name], msg.Data...)
		}
	}
	for _, msg := range t.Streams[Objects] {
		if !strings.HasPrefix(msg.Subject, "$O.files.M.") {
			continue
		}
		var meta struct {
			Name, Description, NUID, Digest string
			Deleted                         bool
		}
		if err := json.Unmarshal(msg.Data, &meta); err != nil {
			r.violate("objects", "the metadata at %d: %v", msg.Seq, err)
			continue
		}
		p, known := puts[meta.Description]
		for _, dump := range h.of("kv/dump") {
			// What is in doubt is settled after the call, perhaps when the watcher has ended.
			if got := seen[[2]string{dump.Worker, meta.Name}]; !meta.Deleted && got != meta.NUID && p.Fate == Done || meta.Deleted && got != Deleted && got != "" {
				r.violate("objects", "the watcher of %s ends at %q of %s: %s", dump.Worker, got, meta.Name, msg.Data)
			}
		}
		if meta.Deleted {
			continue
		}
		data := chunks[meta.NUID]
		delete(chunks, meta.NUID)
		sum := sha256.Sum256(data)
		if "SHA-256="+base64.URLEncoding.EncodeToString(sum[:]) != meta.Digest {
			r.Rows["objects"].Lost++
			r.violate("objects", "%s of %d bytes is not %s", meta.Name, len(data), meta.Digest)
		}
		if seed, err := strconv.ParseUint(meta.Description, 10, 64); err != nil || !bytes.Equal(data, Content(seed, len(data))) {
			r.violate("objects", "%s has another's content", meta.Name)
		}
		if known && p.Fate == Not {
			r.violate("objects", "put in spite of %q: %v", p.Err, &p)
		}
	}
	for name, data := range chunks {
		r.violate("objects", "%d bytes are left of %s", len(data), name)
	}
	for _, c := range h.of("objects/get") {
		if c.Fate == Done && c.N != 0 {
			r.violate("objects", "read as another's content: %v", &c)
		}
	}
}
