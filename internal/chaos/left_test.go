package chaos_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/chaos/check"
)

// usage is what a process holds.
type usage struct {
	goroutines, descriptors int
	heap                    uint64
}

func used() (u usage) {
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	open, _ := os.ReadDir("/proc/self/fd") // where there is one
	return usage{runtime.NumGoroutine(), len(open), memory.HeapAlloc}
}

func (u usage) sub(v usage) usage {
	return usage{u.goroutines - v.goroutines, u.descriptors - v.descriptors, u.heap - min(v.heap, u.heap)}
}

func (u usage) most(v usage) usage {
	return usage{max(u.goroutines, v.goroutines), max(u.descriptors, v.descriptors), max(u.heap, v.heap)}
}

// within tells whether it is no more, but for what comes and goes.
func (u usage) within(v usage) bool {
	return u.goroutines <= v.goroutines+2 && u.descriptors <= v.descriptors && u.heap <= v.heap+4<<20
}

// compare holds the client, that has been through everything, against one that has just begun with the same.
func (w *worker) compare() {
	old := used()
	client := w.connect(context.Background())
	_, _ = w.open(context.Background(), client)
	var fresh usage
	for range 10 { // some of it comes and goes
		time.Sleep(100 * time.Millisecond)
		fresh = fresh.most(used().sub(old))
	}
	_ = w.call("life/fresh", "", "", 20*time.Second, func(ctx context.Context, _ *check.Record) error { return client.Shutdown(ctx) })
	const readers = 2 // of what watchers report
	limit := usage{w.before.goroutines + fresh.goroutines + readers, w.before.descriptors + fresh.descriptors, w.before.heap + fresh.heap}
	w.atMost("more than a fresh client holds", limit, time.Minute) // pulls that a change of leader put in doubt keep their inboxes until they expire
}

// nothingLeft looks at what has outlived the client.
func (w *worker) nothingLeft() { w.atMost("left behind after Close", w.before, 10*time.Second) }

// atMost writes down whether the process comes to hold no more than that.
func (w *worker) atMost(what string, limit usage, patience time.Duration) {
	r := check.Record{Op: "life/left", Begin: time.Now().UnixNano()}
	now := used()
	for deadline := time.Now().Add(patience); !now.within(limit) && time.Now().Before(deadline); now = used() {
		time.Sleep(100 * time.Millisecond)
	}
	if r.ID = fmt.Sprintf("%+v of %+v", now, limit); !now.within(limit) {
		var text strings.Builder
		_ = pprof.Lookup("goroutine").WriteTo(&text, 1)
		r.Err = what + ": " + r.ID + "\n" + text.String()
	}
	r.End = time.Now().UnixNano()
	w.write(r)
}

// report writes down what the client says of itself in the end.
func (w *worker) report() {
	if w.holding == nil {
		return
	}
	stats := w.client.Stats()
	text, err := json.Marshal(check.Told{
		Sent: stats.Sent, Received: stats.Received, Processed: stats.Processed, Failed: stats.Failed, DeadLettered: stats.DeadLettered, LostLocks: stats.LostLocks,
		Subscriptions: uint64(stats.Subscriptions), Pending: uint64(stats.Pending), InFlight: uint64(stats.InFlight), Buffered: uint64(stats.Buffered),
	})
	if err != nil {
		panic(err)
	}
	w.saw("life/report", "", string(text), 0, 0)
}
