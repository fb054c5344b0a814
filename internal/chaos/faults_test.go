package chaos_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/chaos/check"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// fault begins something, and returns whom it is for, if not for all, and what mends it.
type fault struct {
	name string
	// on is what it is done to: no two faults of one thing are at once.
	on string
	// brings are the effects, for the checker; none is that no call may fail for it.
	brings string
	// fits tells whether the topology can have it; nil is always.
	fits  func(*topology) bool
	begin func(*round, *rand.Rand) (whom string, mend func())
	// longest is for how long it lasts at most.
	longest time.Duration
}

// restart ends servers by a signal and starts them again.
func restart(pick func(*round, *rand.Rand) []*node, s syscall.Signal) func(*round, *rand.Rand) (string, func()) {
	return func(r *round, random *rand.Rand) (string, func()) {
		picked := pick(r, random)
		for _, n := range picked {
			n.signal(s)
		}
		for _, n := range picked {
			n.wait()
			n.away = true
		}
		return "", func() {
			for _, n := range picked {
				n.away = false
				r.must(n.start())
			}
		}
	}
}

// freeze stops a process, and mends that.
func (n *node) freeze() func() {
	n.signal(syscall.SIGSTOP)
	n.away = true
	return func() {
		n.away = false
		n.signal(syscall.SIGCONT)
	}
}

func nothing() {}

func one(r *round, random *rand.Rand) []*node {
	i := random.IntN(len(r.nodes))
	return r.nodes[i : i+1]
}

func leading(r *round, random *rand.Rand) []*node {
	return []*node{r.leader([]string{check.Orders, check.Keys, check.Locks, check.Objects}[random.IntN(4)])}
}

func all(r *round, _ *rand.Rand) []*node { return r.nodes }

// line does something to all lines of a worker.
func (r *round) line(i int, f func(*natstest.Proxy)) (whom string, mend func()) {
	for _, p := range r.lines[i] {
		f(p)
	}
	return fmt.Sprint("w", i+1), func() {
		for _, p := range r.lines[i] {
			p.Restore()
		}
	}
}

func line(f func(*natstest.Proxy, *rand.Rand)) func(*round, *rand.Rand) (string, func()) {
	return func(r *round, random *rand.Rand) (string, func()) {
		return r.line(random.IntN(workers), func(p *natstest.Proxy) { f(p, random) })
	}
}

// idle is a black hole around a worker that makes no calls, and waits for what it has subscribed to.
func idle(r *round, random *rand.Rand) (string, func()) {
	i := random.IntN(workers)
	r.workers[i].say(pause)
	whom, mend := r.line(i, (*natstest.Proxy).BlackHole)
	return whom, func() {
		mend()
		r.workers[i].say(resume)
	}
}

// link does something between a leaf and its hub, where w2 is.
func link(f func(*natstest.Proxy)) func(*round, *rand.Rand) (string, func()) {
	return func(r *round, _ *rand.Rand) (string, func()) {
		f(r.link)
		return "w2", r.link.Restore
	}
}

// end ends a worker by a signal and starts its next life, for which the last one may still be leaving.
func end(s syscall.Signal) func(*round, *rand.Rand) (string, func()) {
	return func(r *round, random *rand.Rand) (string, func()) {
		i := random.IntN(workers)
		w := r.workers[i]
		r.leaving.Go(func() { w.end(s) })
		return "", func() { r.startWorker(i) }
	}
}

// rights withdraws some from the workers for a while.
func rights(left string) func(*round, *rand.Rand) (string, func()) {
	return func(r *round, random *rand.Rand) (string, func()) {
		r.must(r.configure(fmt.Sprint("secret", random.Uint32()), left))
		return "", func() { r.must(r.configure(fmt.Sprint("secret", random.Uint32()), everything)) }
	}
}

func clustered(t *topology) bool  { return t.replicas > 1 }
func linked(t *topology) bool     { return t.link != nil }
func secure(t *topology) bool     { return t.authority != nil }
func discovered(t *topology) bool { return t.agent != nil }

const (
	broken  = check.Line + " " + check.Peer
	apart   = check.Store + " " + check.Peer
	outage  = check.Line + " " + check.Store
	crash   = outage + " " + check.Forgets
	renewed = outage + " " + check.Credentials
)

var faults = []fault{
	{name: "kill a server", on: "servers", brings: crash, longest: 3 * time.Second, begin: restart(one, syscall.SIGKILL)},
	{name: "kill a server that leads", on: "servers", brings: crash, longest: 8 * time.Second, fits: clustered, begin: restart(leading, syscall.SIGKILL)},
	{name: "kill all servers", on: "servers", brings: crash, longest: 3 * time.Second, begin: restart(all, syscall.SIGKILL)},
	{name: "restart a server", on: "servers", brings: outage, longest: time.Second, begin: restart(one, syscall.SIGTERM)},
	{name: "lame duck", on: "servers", brings: outage, longest: time.Second, begin: restart(one, syscall.SIGUSR2)},
	{name: "freeze a server", on: "servers", brings: outage, longest: 10 * time.Second, begin: func(r *round, random *rand.Rand) (string, func()) {
		return "", one(r, random)[0].freeze()
	}},
	{name: "freeze a majority", on: "servers", brings: outage, longest: 5 * time.Second, fits: clustered, begin: func(r *round, random *rand.Rand) (string, func()) {
		i := random.IntN(len(r.nodes))
		thaw, too := r.nodes[i].freeze(), r.nodes[(i+1)%len(r.nodes)].freeze()
		return "", func() { thaw(); too() }
	}},
	{name: "step down", on: "servers", brings: check.Store, fits: clustered, begin: func(r *round, random *rand.Rand) (string, func()) {
		stream := []string{check.Orders, check.Keys, check.Locks, check.Objects}[random.IntN(4)]
		if nc, err := natsgo.Connect(r.truth.url(), r.access(natsgo.NoReconnect())...); err == nil {
			_, _ = nc.Request("$JS.API.STREAM.LEADER.STEPDOWN."+stream, nil, time.Second)
			_, _ = nc.Request("$JS.API.CONSUMER.LEADER.STEPDOWN."+check.Orders+"."+check.Consumer, nil, time.Second)
			nc.Close()
		}
		return "", nothing
	}},
	{name: "cut", on: "lines", brings: broken, longest: 2 * time.Second, begin: line(func(p *natstest.Proxy, _ *rand.Rand) { p.Cut() })},
	{name: "black hole while idle", on: "lines", brings: broken + " " + check.Dead, longest: 18 * time.Second, begin: idle},
	{name: "black hole", on: "lines", brings: broken + " " + check.Dead, longest: 12 * time.Second, begin: line(func(p *natstest.Proxy, _ *rand.Rand) {
		p.BlackHole()
	})},
	{name: "delay", on: "lines", brings: broken, longest: 8 * time.Second, begin: line(func(p *natstest.Proxy, random *rand.Rand) {
		p.Delay(time.Duration(20+random.IntN(1180)) * time.Millisecond) // there, and back
	})},
	{name: "throttle", on: "lines", brings: broken, longest: 8 * time.Second, begin: line(func(p *natstest.Proxy, _ *rand.Rand) {
		p.Throttle(50_000)
	})},
	{name: "cut the leaf off", on: "link", brings: apart, longest: 6 * time.Second, fits: linked, begin: link((*natstest.Proxy).Cut)},
	{name: "black hole around the leaf", on: "link", brings: apart, longest: 10 * time.Second, fits: linked, begin: link((*natstest.Proxy).BlackHole)},
	{name: "rotate the secret", on: "access", brings: renewed, begin: func(r *round, random *rand.Rand) (string, func()) {
		r.must(r.configure(fmt.Sprint("secret", random.Uint32()), everything))
		return "", nothing
	}},
	{name: "deny publishing", on: "access", brings: renewed + " " + check.Rights, longest: 5 * time.Second,
		begin: rights(`publish: { deny: ["orders.>", "$KV.keys.count.*"] }, subscribe: ">"`)},
	{name: "deny subscribing", on: "access", brings: renewed + " " + check.Rights + " " + check.Gap, longest: 5 * time.Second,
		begin: rights(`publish: ">", subscribe: { deny: ["core.*"] }`)},
	{name: "renew the certificates", on: "access", fits: secure, begin: func(r *round, _ *rand.Rand) (string, func()) {
		r.must(r.certify(r.authority))
		return "", nothing
	}},
	{name: "certificates of strangers", on: "access", brings: check.Strangers, longest: 5 * time.Second, fits: secure, begin: func(r *round, _ *rand.Rand) (string, func()) {
		r.must(r.certify(conntest.NewAuthority(r.tb)))
		return "", func() { r.must(r.certify(r.authority)) }
	}},
	{name: "half a certificate", on: "access", brings: check.Files, longest: 5 * time.Second, fits: secure, begin: func(r *round, _ *rand.Rand) (string, func()) {
		r.must(os.WriteFile(r.authority.Path("worker.pem"), []byte("-----BEGIN CERTIFICATE-----\nMIIB"), 0o600))
		return "", func() { r.authority.Issue(r.tb, "worker", nil) }
	}},
	{name: "Consul dies", on: "consul", longest: 8 * time.Second, fits: discovered, begin: func(r *round, _ *rand.Rand) (string, func()) {
		r.agent.Stop()
		return "", func() {
			r.agent.Restart()
			r.register()
		}
	}},
	{name: "Consul freezes", on: "consul", longest: 10 * time.Second, fits: discovered, begin: func(r *round, _ *rand.Rand) (string, func()) {
		r.agent.Signal(syscall.SIGSTOP)
		return "", func() { r.agent.Signal(syscall.SIGCONT) }
	}},
	{name: "Consul drops a server", on: "consul", brings: check.Gap, longest: 5 * time.Second, fits: discovered, begin: func(r *round, random *rand.Rand) (string, func()) {
		r.agent.Deregister(r.instances[random.IntN(len(r.instances))])
		return "", r.register
	}},
	{name: "a busy disk", on: "disk", brings: check.Store, longest: 8 * time.Second, begin: func(r *round, _ *rand.Rand) (string, func()) {
		n := &node{}
		r.must(n.run(diskEnv, filepath.Join(r.dir, "disk")))
		return "", n.kill
	}},
	{name: "kill a worker", on: "workers", brings: check.Peer, longest: time.Second, begin: end(syscall.SIGKILL)},
	{name: "end a worker", on: "workers", brings: check.Peer, longest: time.Second, begin: end(syscall.SIGTERM)},
	{name: "freeze a worker", on: "workers", brings: outage + " " + check.Peer + " " + check.Frozen, longest: 6 * time.Second, begin: func(r *round, random *rand.Rand) (string, func()) {
		return "", r.workers[random.IntN(workers)].freeze()
	}},
}

// step is a fault of a schedule.
type step struct {
	at, lasts time.Duration
	fault     *fault
	seed      uint64 // of what the fault chooses
}

func (s step) String() string {
	return fmt.Sprintf("at %v: %s for %v", s.at.Round(time.Millisecond), s.fault.name, s.lasts.Round(time.Millisecond))
}

// schedule draws faults for a time, so that often two are at once. It follows from the seed and the topology alone.
func schedule(t *topology, seed uint64, long time.Duration, only string) (steps []step) {
	random := rand.New(rand.NewPCG(seed, 1))
	var fitting []*fault
	for i := range faults {
		if f := &faults[i]; (f.fits == nil || f.fits(t)) && strings.Contains(f.name, only) {
			fitting = append(fitting, f)
		}
	}
	for range 2 {
		for at := time.Duration(0); at < long; {
			s := step{fault: fitting[random.IntN(len(fitting))], seed: random.Uint64()}
			s.at = at + time.Duration(random.Int64N(int64(4*time.Second)))
			s.lasts = time.Duration(random.Int64N(int64(s.fault.longest) + 1))
			at = s.at + s.lasts
			if !slices.ContainsFunc(steps, func(other step) bool {
				return other.fault.on == s.fault.on && other.at <= s.at+s.lasts && s.at <= other.at+other.lasts
			}) {
				steps = append(steps, s)
			}
		}
	}
	return steps
}

// suffer lets a schedule happen. What takes its time moves the rest. A fault of servers ends when they answer again.
func (r *round) suffer(steps []step) {
	history := r.create("faults.jsonl")
	defer func() { _ = history.Close() }()
	var ending sync.WaitGroup
	var mu sync.Mutex
	type event struct {
		at time.Duration
		do func()
	}
	var events []event
	for _, s := range steps {
		record := check.Record{Op: "fault/" + s.fault.name, ID: s.fault.brings}
		var mend func()
		events = append(events, event{s.at, func() {
			r.note("%v", s)
			record.Begin = time.Now().UnixNano()
			record.Key, mend = s.fault.begin(r, rand.New(rand.NewPCG(s.seed, 2)))
		}}, event{s.at + s.lasts, func() {
			mend()
			r.note("mended: %s", s.fault.name)
			ending.Go(func() {
				if s.fault.on == "servers" {
					r.answered()
				}
				mu.Lock()
				defer mu.Unlock()
				record.End = time.Now().UnixNano()
				assert.NoError(r.tb, json.NewEncoder(history).Encode(record))
			})
		}})
	}
	slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	for now := time.Duration(0); len(events) > 0; events = events[1:] {
		time.Sleep(events[0].at - now)
		now = events[0].at
		events[0].do()
	}
	ending.Wait()
}
