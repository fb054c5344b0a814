package chaos_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/chaos/check"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// fault begins something and returns what mends it.
type fault struct {
	name string
	// fits tells whether the topology can have it; nil is always.
	fits  func(*topology) bool
	begin func(*round, *rand.Rand) (mend func())
	// longest is for how long it lasts at most.
	longest time.Duration
}

// restart ends a server by a signal and starts it again.
func restart(pick func(*round, *rand.Rand) *node, s syscall.Signal) func(*round, *rand.Rand) func() {
	return func(r *round, random *rand.Rand) func() {
		n := pick(r, random)
		n.signal(s)
		n.wait()
		return func() { r.must(n.start()) }
	}
}

func anyNode(r *round, random *rand.Rand) *node { return r.nodes[random.IntN(len(r.nodes))] }

func leading(r *round, random *rand.Rand) *node {
	return r.leader([]string{check.Orders, check.Keys, check.Locks, check.Objects}[random.IntN(4)])
}

// line does something to all lines of a worker.
func line(f func(*natstest.Proxy, *rand.Rand)) func(*round, *rand.Rand) func() {
	return func(r *round, random *rand.Rand) func() {
		lines := r.lines[random.IntN(len(r.lines))]
		for _, p := range lines {
			f(p, random)
		}
		return func() {
			for _, p := range lines {
				p.Restore()
			}
		}
	}
}

func clustered(t *topology) bool { return t.replicas > 1 }
func linked(t *topology) bool    { return t.link != nil }

var faults = []fault{
	{name: "kill a server", longest: 3 * time.Second, begin: restart(anyNode, syscall.SIGKILL)},
	{name: "kill a server that leads", longest: 8 * time.Second, fits: clustered, begin: restart(leading, syscall.SIGKILL)},
	{name: "restart a server", longest: time.Second, begin: restart(anyNode, syscall.SIGTERM)},
	{name: "lame duck", longest: time.Second, begin: restart(anyNode, syscall.SIGUSR2)},
	{name: "freeze a server", longest: 10 * time.Second, begin: func(r *round, random *rand.Rand) func() {
		n := anyNode(r, random)
		n.signal(syscall.SIGSTOP)
		return func() { n.signal(syscall.SIGCONT) }
	}},
	{name: "step down", fits: clustered, begin: func(r *round, random *rand.Rand) func() {
		stream := []string{check.Orders, check.Keys, check.Locks, check.Objects}[random.IntN(4)]
		if nc, err := natsgo.Connect(r.truth.url(), natsgo.NoReconnect()); err == nil {
			_, _ = nc.Request("$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil, time.Second)
			_, _ = nc.Request("$JS.API.CONSUMER.LEADER.STEPDOWN."+check.Orders+"."+check.Consumer, nil, time.Second)
			nc.Close()
		}
		return func() {}
	}},
	{name: "cut", longest: 2 * time.Second, begin: line(func(p *natstest.Proxy, _ *rand.Rand) { p.Cut() })},
	{name: "black hole", longest: 10 * time.Second, begin: line(func(p *natstest.Proxy, _ *rand.Rand) { p.BlackHole() })},
	{name: "delay", longest: 8 * time.Second, begin: line(func(p *natstest.Proxy, random *rand.Rand) {
		p.Delay(time.Duration(20+random.IntN(1180)) * time.Millisecond)
	})},
	{name: "throttle", longest: 8 * time.Second, begin: line(func(p *natstest.Proxy, _ *rand.Rand) { p.Throttle(50_000) })},
	{name: "cut the leaf off", longest: 6 * time.Second, fits: linked, begin: func(r *round, _ *rand.Rand) func() {
		r.link.Cut()
		return r.link.Restore
	}},
	{name: "rotate the secret", begin: func(r *round, random *rand.Rand) func() {
		r.must(r.configure(fmt.Sprint("secret", random.Uint32())))
		return func() {}
	}},
	{name: strings.TrimPrefix(check.FaultDenied, "fault/"), longest: 5 * time.Second, begin: func(r *round, random *rand.Rand) func() {
		r.must(r.configure(fmt.Sprint("secret", random.Uint32()), `"orders.>"`, `"$KV.keys.count.*"`))
		return func() { r.must(r.configure(fmt.Sprint("secret", random.Uint32()))) }
	}},
	{name: "kill a worker", longest: time.Second, begin: func(r *round, random *rand.Rand) func() {
		i := random.IntN(workers)
		r.workers[i].end(syscall.SIGKILL)
		return func() { r.startWorker(i) }
	}},
	{name: "end a worker", longest: time.Second, begin: func(r *round, random *rand.Rand) func() {
		i := random.IntN(workers)
		r.workers[i].end(syscall.SIGTERM)
		return func() { r.startWorker(i) }
	}},
	{name: "freeze a worker", longest: 6 * time.Second, begin: func(r *round, random *rand.Rand) func() {
		w := r.workers[random.IntN(workers)]
		w.signal(syscall.SIGSTOP)
		return func() { w.signal(syscall.SIGCONT) }
	}},
}

// step is a fault of a schedule.
type step struct {
	after, lasts time.Duration
	fault        *fault
	seed         uint64 // of what the fault chooses
}

func (s step) String() string {
	return fmt.Sprintf("after %v: %s for %v", s.after.Round(time.Millisecond), s.fault.name, s.lasts.Round(time.Millisecond))
}

// schedule draws faults until they take long enough. It follows from the seed and the topology alone.
func schedule(t *topology, seed uint64, long time.Duration, only string) (steps []step) {
	random := rand.New(rand.NewPCG(seed, 1))
	var fitting []*fault
	for i := range faults {
		if f := &faults[i]; (f.fits == nil || f.fits(t)) && strings.Contains(f.name, only) {
			fitting = append(fitting, f)
		}
	}
	for sum := time.Duration(0); sum < long; {
		s := step{fault: fitting[random.IntN(len(fitting))], seed: random.Uint64()}
		s.after = time.Duration(random.Int64N(int64(3 * time.Second)))
		s.lasts = time.Duration(random.Int64N(int64(s.fault.longest) + 1))
		steps = append(steps, s)
		sum += s.after + s.lasts
	}
	return steps
}

// suffer lets a schedule happen.
func (r *round) suffer(steps []step) {
	history := r.create("faults.jsonl")
	defer func() { _ = history.Close() }()
	for _, s := range steps {
		time.Sleep(s.after)
		r.note("%v", s)
		record := check.Record{Op: "fault/" + s.fault.name, Begin: time.Now().UnixNano()}
		mend := s.fault.begin(r, rand.New(rand.NewPCG(s.seed, 2)))
		time.Sleep(s.lasts)
		mend()
		record.End = time.Now().UnixNano()
		r.must(json.NewEncoder(history).Encode(record))
	}
}
