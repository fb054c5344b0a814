package faults_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// lockGuard is what lockers write to. It knows who held which lock and when, and refuses tokens that
// are too small.
type lockGuard struct {
	t  *testing.T
	mu sync.Mutex

	holders    map[int]lockTurn // by key: the last one
	paused     map[int]bool     // lockers that are or were stopped in their present life
	highest    map[int]uint64   // by key: of the writes accepted
	refused    int              // writes of holders that came too late
	late       int              // looks of paused holders that found a lock held after another had got it
	violations int
	turns      int
}

type lockTurn struct {
	locker int
	token  uint64
	at     int64
}

func (g *lockGuard) take(locker int, line lockerLine) {
	g.mu.Lock()
	defer g.mu.Unlock()
	last := g.holders[line.Key]
	switch line.What {
	case lockerHolds:
		if line.Token == last.token {
			g.violate("two holders have the token %d of lock %d", line.Token, line.Key)
		}
		if line.Token > last.token { // an older line may come later, by another pipe
			g.holders[line.Key] = lockTurn{locker, line.Token, line.At}
			g.turns++
		}
	case lockerWrites:
		switch {
		case line.Token < last.token && line.At > last.at && g.paused[locker]:
			g.late++
		case line.Token < last.token && line.At > last.at:
			g.violate("locker %d holds lock %d with token %d at %d, and locker %d with token %d since %d",
				locker, line.Key, line.Token, line.At, last.locker, last.token, last.at)
		case line.Token == last.token && locker != last.locker:
			g.violate("lockers %d and %d write with the token %d", locker, last.locker, line.Token)
		}
		if line.Token < g.highest[line.Key] {
			g.refused++
			return
		}
		g.highest[line.Key] = line.Token
	}
}

func (g *lockGuard) violate(text string, args ...any) {
	g.violations++
	g.t.Errorf(text, args...)
}

// takeover returns how long after begun the key was taken, but for what the machine withheld. The caller has the lock.
func (g *lockGuard) takeover(key int, begun time.Time) time.Duration {
	at := time.Unix(0, g.holders[key].at)
	return at.Sub(begun) - stalls.Between(begun, at)
}

// held returns the locks of each locker.
func (g *lockGuard) held() map[int][]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	held := make(map[int][]int)
	for key, turn := range g.holders {
		held[turn.locker] = append(held[turn.locker], key)
	}
	return held
}

// Processes compete for locks and are killed, stopped for longer than the lease, and cut off, always
// the one that holds most.
func TestLockOverKillsPausesAndPartitions(t *testing.T) {
	t.Parallel()
	const lockers, keys, ttl = 3, 60, time.Second
	rounds := 1000
	if testing.Short() {
		rounds = 100
	}
	server := publishServers(t, 1)[0]
	client := publishClient(t, []*publishServer{server})
	_, err := client.CreateKeyValue(context.Background(), "locks",
		nats.WithKeyTTLs(time.Minute), nats.WithKeyValueStorage(jetstream.MemoryStorage))
	require.NoError(t, err)
	guard := &lockGuard{t: t, holders: make(map[int]lockTurn), paused: make(map[int]bool), highest: make(map[int]uint64)}
	proxies, running := make([]*natstest.Proxy, lockers), make([]*locker, lockers)
	start := func(i int) {
		running[i] = startLocker(t, lockerSpec{proxies[i].URL(), keys, ttl}, func(line lockerLine) { guard.take(i, line) })
	}
	for i := range lockers {
		proxies[i] = natstest.NewProxy(t, server.url())
		start(i)
	}
	defer func() {
		for _, l := range running {
			l.kill()
		}
	}()
	faults := []struct {
		name        string
		begin, mend func(i int)
		takeovers   []time.Duration
	}{
		{name: "kill", begin: func(i int) { running[i].kill() }, mend: func(i int) {
			guard.mu.Lock()
			delete(guard.paused, i)
			guard.mu.Unlock()
			start(i)
		}},
		{name: "pause", begin: func(i int) {
			guard.mu.Lock()
			guard.paused[i] = true
			guard.mu.Unlock()
			_ = running[i].cmd.Process.Signal(syscall.SIGSTOP)
		}, mend: func(i int) {
			_ = running[i].cmd.Process.Signal(syscall.SIGCONT)
		}},
		{name: "partition", begin: func(i int) { proxies[i].BlackHole() }, mend: func(i int) { proxies[i].Restore() }},
	}
	for done, n := 0, 0; done < rounds || n < len(faults); n++ {
		publishEventually(t, "all locks are held", func() bool {
			count := 0
			for _, held := range guard.held() {
				count += len(held)
			}
			return count == keys
		})
		time.Sleep(300 * time.Millisecond) // they hold
		victim, fault := 0, &faults[n%len(faults)]
		held := guard.held()
		for i := range lockers {
			if len(held[i]) > len(held[victim]) {
				victim = i
			}
		}
		fault.begin(victim)
		begun := time.Now()
		publishEventually(t, "the others have taken over", func() bool { return len(guard.held()[victim]) == 0 })
		guard.mu.Lock()
		for _, key := range held[victim] {
			fault.takeovers = append(fault.takeovers, guard.takeover(key, begun))
		}
		guard.mu.Unlock()
		fault.mend(victim)
		done += len(held[victim])
	}
	guard.mu.Lock()
	defer guard.mu.Unlock()
	assert.Zero(t, guard.violations)
	for _, fault := range faults {
		slices.Sort(fault.takeovers)
		n := len(fault.takeovers)
		t.Attr("figure", fmt.Sprintf("%s: %d take-overs, median %v, longest %v", fault.name, n,
			fault.takeovers[n/2].Round(time.Millisecond), fault.takeovers[n-1].Round(time.Millisecond)))
		assert.Less(t, fault.takeovers[n/2], ttl+time.Second)
	}
	t.Attr("figure", fmt.Sprintf("%d turns, %d at once, %d late looks by paused holders, %d writes refused for their token",
		guard.turns, guard.violations, guard.late, guard.refused))
}

// A lock of two seconds in a bucket of three replicas is taken over within three when its holder is
// killed.
func TestLockOfAKilledHolder(t *testing.T) {
	const keys, ttl = 5, 2 * time.Second
	servers := publishServers(t, 3)
	client := publishClient(t, servers)
	publishEventually(t, "the bucket is created", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_, err := client.EnsureKeyValue(ctx, "locks", nats.WithKeyTTLs(time.Minute), nats.WithKeyValueReplicas(3))
		return err == nil
	})
	guard := &lockGuard{t: t, holders: make(map[int]lockTurn), paused: make(map[int]bool), highest: make(map[int]uint64)}
	var running [2]*locker
	start := func(i int) {
		running[i] = startLocker(t, lockerSpec{servers[i].url(), keys, ttl}, func(line lockerLine) { guard.take(i, line) })
	}
	for i := range running {
		start(i)
	}
	defer func() {
		for _, l := range running {
			l.kill()
		}
	}()
	var takeovers []time.Duration
	for range 6 {
		publishEventually(t, "all locks are held", func() bool {
			held := guard.held()
			return len(held[0])+len(held[1]) == keys
		})
		held, victim := guard.held(), 0
		if len(held[1]) > len(held[0]) {
			victim = 1
		}
		begun := time.Now()
		running[victim].kill()
		publishEventually(t, "the other has taken over", func() bool { return len(guard.held()[victim]) == 0 })
		guard.mu.Lock()
		for _, key := range held[victim] {
			takeovers = append(takeovers, guard.takeover(key, begun))
		}
		guard.mu.Unlock()
		start(victim)
	}
	slices.Sort(takeovers)
	t.Logf("take-overs: %v", takeovers)
	assert.Less(t, takeovers[len(takeovers)-1], ttl+time.Second)
	guard.mu.Lock()
	defer guard.mu.Unlock()
	assert.Zero(t, guard.violations)
}
