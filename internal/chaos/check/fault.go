package check

import (
	"slices"
	"strings"
	"time"
)

// Faults are records, too: "fault/NAME". Their ID has what they bring, their Key whom: a worker, or all.
const (
	Line        = "line"        // connections break, or are slow
	Store       = "store"       // streams have no leader, or a slow one
	Forgets     = "forgets"     // a server forgets what it has delivered
	Credentials = "credentials" // servers and workers change them, one after the other
	Rights      = "rights"      // some are withdrawn
	Gap         = "gap"         // plain subscriptions move, and miss what is published meanwhile
	Files       = "files"       // a worker's have nonsense in them
	Strangers   = "strangers"   // are what the servers show themselves as: nobody connects anew
	Peer        = "peer"        // a worker is not there to answer, or to unlock
	Dead        = "dead"        // a worker's line carries nothing, and does not break
	Frozen      = "frozen"      // a worker notices nothing
)

// The pings of workers, and how long a dead line may count as one at most: the first interval had an answer, and a busy
// worker may be late by one.
const (
	PingInterval = 2 * time.Second
	MaxPingsOut  = 2
	Patience     = PingInterval*(MaxPingsOut+3) + slack
)

// Lease is how long a lock is held that is not renewed.
const Lease = 2 * time.Second

// Up and Down are what happens to a worker's connection: the ID of "life/line".
const (
	Up   = "up"
	Down = "down"
)

// The effects of a fault are over some time after it: rights are one message late; servers start, elect and catch up.
var aftermath = map[string]time.Duration{Forgets: time.Second, Rights: time.Second, Gap: 3 * time.Second}

const recovery = 5 * time.Second

// suffers tells whether one of the faults may have had one of the effects on the worker between two moments.
func (h History) suffers(worker string, begin, end int64, effects ...string) bool {
	return slices.ContainsFunc(h, func(f Record) bool {
		if f.Begin > end {
			return false
		}
		own := f.Key == "" || strings.HasPrefix(worker, f.Key+".")
		return slices.ContainsFunc(strings.Fields(f.ID), func(effect string) bool {
			after, ok := aftermath[effect]
			if !ok {
				after = recovery
			}
			return slices.Contains(effects, effect) && (own || effect == Peer) && f.End+int64(after) > begin
		})
	})
}

// allowance is what may bring a call to fail with a sentinel.
type allowance struct {
	op      string   // or what it begins with
	effects []string // nil is nothing: it may always
}

// allowed are the sentinels that calls may fail with. Any other, and any that no fault explains, is a broken promise.
var allowed = map[string][]allowance{
	"ErrTimeout": {{"", []string{Line, Store}}, {"core/request", []string{Peer}}, {"locks/lock", nil}},
	"ErrConflict": { // replaced while read; too late to try again; perhaps with itself, without an answer; lost
		{"objects/get", nil}, {"kv/create", nil}, {"kv/modify", nil}, {"objects/put", []string{Line, Store}}, {"locks/unlock", []string{Line, Store}},
	},
	"ErrNotConnected":      {{"", []string{Line}}, {"life/connect", []string{Strangers}}},
	"ErrConnectionLost":    {{"", []string{Line}}},
	"ErrNoResponders":      {{"core/request", []string{Line, Peer, Store}}},
	"ErrAuthorization":     {{"", []string{Credentials}}},
	"ErrPermission":        {{"", []string{Rights}}},
	"ErrLockLost":          {{"locks/unlock", []string{Line, Store}}},
	"ErrAlreadyExists":     {{"kv/create", nil}},
	"ErrObjectNotFound":    {{"objects/get", nil}, {"objects/delete", nil}},
	"ErrJetStreamDisabled": {{"", []string{Line, Store}}}, // of another domain nobody answers
	"ErrInvalidConfig":     {{"life/connect", []string{Files}}},
	"ErrUnflushed":         {{"life/close", []string{Line}}},
	"ErrDrainTimeout":      {{"life/close", []string{Line, Store}}},
}

// errors: a call fails with the sentinels that it may fail with, and under the faults that may bring them.
func (r *Report) errors(h, faults History) {
	for _, c := range h {
		if c.Limit == 0 || c.Err == "" {
			continue
		}
		if len(c.Kinds) == 0 {
			r.violate(c.Load(), "an error that is no sentinel: %v: %s", &c, c.Err)
		}
		for _, kind := range c.Kinds {
			if !slices.ContainsFunc(allowed[kind], func(a allowance) bool {
				within := map[string]time.Duration{"ErrTimeout": c.Limit, "ErrLockLost": Lease}[kind]
				busy := within > 0 && c.Held > within/4 || kind == "ErrTimeout" && c.Limit < time.Second // a machine, and its disk
				return strings.HasPrefix(c.Op, a.op) && (a.effects == nil || busy || faults.suffers(c.Worker, c.Begin, c.End, a.effects...))
			}) {
				r.violate(c.Load(), "%s, which nothing explains: %v: %s", kind, &c, c.Err)
			}
		}
	}
}

// noticed: a client knows within its patience that its line is dead, though it only waits.
func (r *Report) noticed(h, faults History) {
	up, last := map[string]Record{}, map[string]Record{}
	look := func(from, to Record) {
		for _, f := range faults {
			silent := time.Duration(min(to.Begin, f.End) - max(from.Begin, f.Begin))
			if strings.Contains(f.ID, Dead) && strings.HasPrefix(to.Worker, f.Key+".") && silent > Patience+to.Stall &&
				!faults.suffers(to.Worker, f.Begin, f.End, Frozen) {
				r.violate("life", "%s has not noticed for %v that its line was dead: %v", to.Worker, silent, &f)
			}
		}
	}
	for _, c := range h {
		from, connected := up[c.Worker]
		if ends := c.Op == "life/line" || c.Op == "life/close"; ends && connected {
			look(from, c)
			delete(up, c.Worker)
		}
		if c.Op == "life/line" && c.ID == Up {
			up[c.Worker] = c
		}
		last[c.Worker] = c
	}
	for worker, from := range up {
		look(from, last[worker])
	}
}
