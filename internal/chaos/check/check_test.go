package check_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/chaos/check"
)

// sound is a history in which all is well, and its truth. Its records are 1 s apart.
func sound() (check.History, *check.Truth) {
	object := check.Content(7, 100)
	sum := sha256.Sum256(object)
	meta := fmt.Sprintf(`{"name":"f","description":"7","nuid":"N","digest":"SHA-256=%s"}`, base64.URLEncoding.EncodeToString(sum[:]))
	truth := &check.Truth{Streams: map[string][]check.Stored{
		check.Orders: {
			{Seq: 1, Data: check.Body("w1.1-a", check.PlanOK)}, {Seq: 2, Data: check.Body("w1.1-b", check.PlanNever)},
			{Seq: 3, Data: check.Body("w1.1-c/0", check.PlanOK)}, {Seq: 4, Data: check.Body("w1.1-c/1", check.PlanOK)},
		},
		check.Letters: {{Seq: 1, Data: check.Body("w1.1-b", check.PlanNever)}},
		check.Keys: {
			{Seq: 3, Subject: "$KV.keys.own.1", Data: []byte("5")}, {Seq: 4, Subject: "$KV.keys.count.0", Data: []byte("1")},
			{Seq: 5, Subject: "$KV.keys.once.1", Data: []byte("w1")},
		},
		check.Objects: {
			{Seq: 1, Subject: "$O.files.C.N", Data: object}, {Seq: 2, Subject: "$O.files.M.f", Data: []byte(meta)},
		},
	}}
	h := check.History{
		{Op: "stream/publish", Key: "k", ID: "w1.1-a", Seq: 1, Limit: time.Second},
		{Op: "stream/publish", Key: "k", ID: "w1.1-b", Seq: 2},
		{Op: "stream/publish", Key: "k", ID: "w1.1-c/0", Seq: 3, N: 1},
		{Op: "stream/publish", Key: "k", ID: "w1.1-c/1", Seq: 4, N: 1},
		{Op: "consume/handle", Key: "k", Seq: 1, N: 1},
		{Op: "consume/handle", Key: "k", Seq: 2, N: 1, Err: "as planned"},
		{Op: "consume/handle", Key: "k", Seq: 3, N: 1},
		{Op: "consume/handle", Key: "k", Seq: 4, N: 1},
		{Op: "core/receive", Key: "core.x", N: 1},
		{Op: "core/receive", Key: "core.x", N: 2},
		{Op: "core/serve", ID: "q"},
		{Op: "core/request", ID: "q"},
		{Op: "kv/put", Key: "own.1", ID: "5", Seq: 3},
		{Op: "kv/modify", Key: "count.0", Seq: 4},
		{Op: "kv/create", Key: "once.1", ID: "w1", Seq: 5},
		{Op: "kv/see", Key: "own.1", Seq: 3},
		{Op: "kv/see", Key: "count.0", Seq: 4},
		{Op: "kv/see", Key: "once.1", Seq: 5},
		{Op: "kv/dump", ID: `{"own.1":3,"count.0":4,"once.1":5}`},
		{Op: "locks/lock", Key: "l", Seq: 1},
		{Op: "locks/look", Key: "l", Seq: 1},
		{Op: "locks/lock", Key: "l", Seq: 2},
		{Op: "objects/get", Key: "f"},
		{Op: "objects/see", Key: "f", ID: "N"},
		{Op: "life/close"},
		{Op: "life/report", ID: `{"Sent":6,"Received":8,"Processed":7,"Failed":1,"DeadLettered":1}`},
	}
	for i := range h {
		h[i].Worker = "w1.1"
		h[i].Begin = int64(time.Duration(i) * time.Second)
		h[i].End = h[i].Begin + int64(time.Millisecond)
	}
	return h, truth
}

func TestSoundHistory(t *testing.T) {
	t.Parallel()
	h, truth := sound()
	assert.Empty(t, check.Check(h, truth).Violations)
}

// A server that was killed counts deliveries from one again.
func TestKilledServerForgets(t *testing.T) {
	t.Parallel()
	h, truth := sound()
	h[6].Seq, h[7].Seq = 4, 3
	h = append(h, check.Record{Op: "fault/kill a server", ID: check.Forgets, Begin: h[6].Begin + 1, End: h[6].Begin + 2})
	assert.Empty(t, check.Check(h, truth).Violations)
}

// A server that was frozen while another one took over delivers once more, as if for the first time.
func TestFrozenLeaderRepeats(t *testing.T) {
	t.Parallel()
	h, truth := sound()
	for i, r := range []check.Record{h[7], h[6]} {
		r.Worker, r.Begin = "w2.1", int64(time.Hour)+int64(i)
		r.End = r.Begin
		h = append(h, r)
	}
	assert.Empty(t, check.Check(h, truth).Violations)
}

// What went into a connection that was given up comes after what was sent by the next one.
func TestGivenUpConnectionIsLate(t *testing.T) {
	t.Parallel()
	h, truth := sound()
	for _, r := range []check.Record{
		{Op: "core/publish", Key: "core.y", N: 1}, {Op: "life/line", ID: check.Down}, {Op: "core/publish", Key: "core.y", N: 2},
		{Op: "core/receive", Key: "core.y", N: 2}, {Op: "core/receive", Key: "core.y", N: 1},
		{Op: "kv/put", Key: "own.1", ID: "6", Fate: check.Maybe}, {Op: "kv/put", Key: "own.1", ID: "7", Seq: 6}, {Op: "kv/see", Key: "own.1", Seq: 7},
	} {
		r.Worker = "w2.1"
		h = append(h, r)
	}
	truth.Streams[check.Keys][0].Seq, truth.Streams[check.Keys][0].Data = 7, []byte("6")
	h[18].ID = `{"own.1":7,"count.0":4,"once.1":5}`
	h[15].Seq = 7
	assert.Empty(t, check.Check(h, truth).Violations)
}

// Each of these breaks one promise, and the checker is worth nothing if it does not see it.
func TestCheckerFindsWhatIsBroken(t *testing.T) {
	t.Parallel()
	more := func(r check.Record) func(*check.History, *check.Truth) {
		return func(h *check.History, _ *check.Truth) {
			r.Worker, r.Begin = "w1.1", int64(time.Hour)
			r.End = r.Begin + r.End
			*h = append(*h, r)
		}
	}
	store := func(stream string, add ...check.Stored) func(*check.History, *check.Truth) {
		return func(_ *check.History, t *check.Truth) { t.Streams[stream] = append(t.Streams[stream], add...) }
	}
	cases := map[string]func(*check.History, *check.Truth){
		"acknowledged and not stored":   more(check.Record{Op: "stream/publish", ID: "w1.1-x", Seq: 9}),
		"stored at [1 9]":               store(check.Orders, check.Stored{Seq: 9, Data: check.Body("w1.1-a", check.PlanOK)}),
		"in spite of":                   more(check.Record{Op: "stream/publish", ID: "w1.1-a", Fate: check.Not}),
		"stored before its predecessor": more(check.Record{Op: "stream/publish", Key: "k", ID: "w1.1-a", Seq: 1}),
		"nobody has published it":       store(check.Orders, check.Stored{Seq: 9, Data: check.Body("w1.1-y", check.PlanOK)}),
		"2 stored and 1 not":            more(check.Record{Op: "stream/publish", ID: "w1.1-c/2", N: 1, Fate: check.Maybe}),
		"neither handled": func(h *check.History, _ *check.Truth) {
			(*h)[4].Err = "failed"
		},
		"two dead letters":     store(check.Letters, check.Stored{Seq: 2, Data: check.Body("w1.1-b", check.PlanNever)}),
		"a dead letter, tried": store(check.Letters, check.Stored{Seq: 2, Data: check.Body("w1.1-a", check.PlanOK)}),
		"no dead letter": func(h *check.History, t *check.Truth) {
			(*h)[5].Err, t.Streams[check.Letters] = "", nil
		},
		"never delivered":      func(_ *check.History, t *check.Truth) { t.Waiting = 1 },
		"two handlers":         func(h *check.History, _ *check.Truth) { (*h)[5].Begin = (*h)[4].Begin },
		"out of order":         func(h *check.History, _ *check.Truth) { (*h)[6].Seq, (*h)[7].Seq = 4, 3 },
		"late":                 more(check.Record{Op: "kv/read", Limit: time.Second, End: int64(2 * time.Second)}),
		"is no sentinel":       more(check.Record{Op: "kv/read", Limit: time.Second, Err: "no"}),
		"ErrPermission, which": more(check.Record{Op: "kv/read", Limit: time.Second, Err: "no", Kinds: []string{"ErrPermission"}}),
		"ErrConflict, which":   more(check.Record{Op: "kv/read", Limit: time.Second, Err: "no", Kinds: []string{"ErrConflict"}}),
		"received twice":       more(check.Record{Op: "core/receive", Key: "core.x", N: 2}),
		"received after":       func(h *check.History, _ *check.Truth) { (*h)[8].N, (*h)[9].N = 2, 1 },
		"has missed it": func(h *check.History, _ *check.Truth) {
			*h = append(*h, check.Record{Worker: "w1.1", Op: "core/subscribe", End: 1},
				check.Record{Worker: "w1.1", Op: "core/publish", Key: "core.x", N: 3, Begin: int64(9 * time.Second), End: int64(9 * time.Second)})
		},
		"served twice":             more(check.Record{Op: "core/serve", ID: "q"}),
		"never served":             more(check.Record{Op: "core/request", ID: "r"}),
		"served in spite":          more(check.Record{Op: "core/request", ID: "q", Fate: check.Not}),
		"another write has":        more(check.Record{Op: "kv/create", Key: "once.2", Seq: 5}),
		"written in spite":         more(check.Record{Op: "kv/create", Key: "once.1", ID: "w1", Fate: check.Not}),
		"put in spite":             more(check.Record{Op: "objects/put", ID: "7", Fate: check.Not}),
		"created twice":            more(check.Record{Op: "kv/create", Key: "once.1", Seq: 8}),
		`own.1 is "5"`:             more(check.Record{Op: "kv/put", Key: "own.1", ID: "6", Seq: 8}),
		"count.0 is 1":             more(check.Record{Op: "kv/modify", Key: "count.0", Seq: 8}),
		"reports it twice":         more(check.Record{Op: "kv/see", Key: "once.1", Seq: 5}),
		"reports it after":         more(check.Record{Op: "kv/see", Key: "once.1", Seq: 2}),
		"a cache has":              more(check.Record{Op: "kv/cached", Key: "own.1", Seq: 3, N: 4}),
		"the watcher of":           store(check.Keys, check.Stored{Seq: 6, Subject: "$KV.keys.own.2", Data: []byte("1")}),
		"the cache of":             func(h *check.History, _ *check.Truth) { (*h)[18].ID = `{}` },
		"two have the token":       more(check.Record{Op: "locks/lock", Key: "l", Seq: 2}),
		"tokens do not grow":       more(check.Record{Op: "locks/lock", Key: "l", Seq: 0}),
		"locks/look":               more(check.Record{Op: "locks/look", Key: "l", Seq: 1}),
		"the watcher of w1.1 ends": func(h *check.History, _ *check.Truth) { (*h)[23].ID = "M" },
		"is not SHA-256":           func(_ *check.History, t *check.Truth) { t.Streams[check.Objects][0].Data = []byte("x") },
		"bytes are left":           store(check.Objects, check.Stored{Seq: 3, Subject: "$O.files.C.M", Data: []byte("x")}),
		"read as another's":        more(check.Record{Op: "objects/get", Key: "f", N: 1}),
		"has not noticed for 15s": func(h *check.History, _ *check.Truth) {
			begin, end := int64(time.Hour), int64(time.Hour+15*time.Second)
			*h = append(*h, check.Record{Worker: "w1.1", Op: "life/line", ID: check.Up}, check.Record{Worker: "w1.1", Op: "kv/read", Begin: end + 1, End: end + 1},
				check.Record{Op: "fault/black hole", Key: "w1", ID: check.Dead, Begin: begin, End: end})
		},
		"left behind": more(check.Record{Op: "life/left", Err: "left behind: a goroutine"}),
		"tells of 7 sent": func(h *check.History, _ *check.Truth) {
			(*h)[25].ID = `{"Sent":7,"Received":8,"Processed":7,"Failed":1}`
		},
		"tells of 0 processed":  func(h *check.History, _ *check.Truth) { (*h)[25].ID = `{"Sent":6,"Received":8,"Failed":1}` },
		"w1.1: the cache stale": more(check.Record{Op: "kv/dump", ID: `{"own.1":3,"count.0":4,"once.1":5}`, Err: "the cache stale"}),
	}
	for want, breaks := range cases {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			h, truth := sound()
			breaks(&h, truth)
			violations := check.Check(h, truth).Violations
			require.NotEmpty(t, violations)
			assert.Contains(t, fmt.Sprint(violations), want)
		})
	}
}
