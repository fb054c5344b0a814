package chaos_test

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/chaos/check"
)

var (
	long  = flag.Duration("chaos.for", 20*time.Second, "how long to go on")
	each  = flag.Duration("chaos.round", 40*time.Second, "how long the faults of a round go on")
	seed  = flag.Uint64("chaos.seed", 0, "of the first round; 0 draws one")
	where = flag.String("chaos.topology", "", "one, three or leaf; all of them in turn otherwise")
	only  = flag.String("chaos.fault", "", "only faults whose names have this in them")
	keep  = flag.String("chaos.dir", os.TempDir(), "where failed rounds are kept")
	again = flag.String("chaos.check", "", "the directory of a round to check again, instead of a run")
)

// proc is the process of a worker.
type proc struct {
	node   // name and process
	stdin  io.WriteCloser
	stdout *bufio.Reader
}

// end ends the process by a signal.
func (p *proc) end(s syscall.Signal) {
	p.signal(s)
	if s == syscall.SIGTERM { // one that hangs is told by its history, which has no end
		hung := time.AfterFunc(40*time.Second, func() { p.signal(syscall.SIGKILL) })
		defer hung.Stop()
	}
	p.wait()
}

// say says something that is not answered; one that has ended does not hear it.
func (p *proc) say(what string) { _, _ = fmt.Fprintln(p.stdin, what) }

// tell says something and waits until it is done.
func (p *proc) tell(what string) bool {
	p.say(what)
	answered := make(chan bool, 1)
	go func() {
		text, err := p.stdout.ReadString('\n')
		answered <- err == nil && strings.TrimSpace(text) == what
	}()
	select {
	case ok := <-answered:
		return ok
	case <-time.After(2 * time.Minute):
		p.signal(syscall.SIGQUIT) // its goroutines are of interest
		<-answered
		return false
	}
}

// round is one set of servers and workers, and what happens to them.
type round struct {
	*topology
	tb      testing.TB
	dir     string
	seed    uint64
	lives   [workers]int
	workers [workers]*proc
	leaving sync.WaitGroup // those that have been told to
	log     *os.File
}

func (r *round) must(err error) {
	r.tb.Helper()
	require.NoError(r.tb, err)
}

func (r *round) create(name string) *os.File {
	r.tb.Helper()
	file, err := os.Create(filepath.Join(r.dir, name))
	r.must(err)
	return file
}

// note adds a line to the schedule.
func (r *round) note(text string, args ...any) {
	_, _ = fmt.Fprintf(r.log, time.Now().UTC().Format("15:04:05.000 ")+text+"\n", args...)
}

func (r *round) startWorker(i int) {
	r.tb.Helper()
	r.lives[i]++
	what := workerSpec{
		Name: fmt.Sprintf("w%d.%d", i+1, r.lives[i]), Dir: r.dir, URLs: r.urls[i], Domain: r.domains[i], Secret: r.secret, Seed: r.seed,
		Service: service(i),
	}
	if r.agent != nil {
		what.Consul = r.agent.Address()
	}
	if r.authority != nil {
		what.CA, what.Cert, what.Key = r.authority.Path("ca.pem"), r.authority.Path("worker.pem"), r.authority.Path("worker-key.pem")
	}
	spec, err := json.Marshal(what)
	r.must(err)
	p := &proc{}
	p.cmd, err = process(workerEnv, string(spec))
	r.must(err)
	p.stdin, err = p.cmd.StdinPipe()
	r.must(err)
	out, err := p.cmd.StdoutPipe()
	r.must(err)
	p.stdout = bufio.NewReader(out)
	r.must(p.cmd.Start())
	r.workers[i] = p
}

// run is a round from its start to the report.
func (r *round) run(long time.Duration) *check.Report {
	r.tb.Helper()
	r.start(r.tb)
	for i := range workers {
		r.startWorker(i)
	}
	defer func() {
		for _, w := range r.workers {
			w.kill()
		}
	}()
	r.suffer(schedule(r.topology, r.seed, long, *only))
	r.leaving.Wait()
	r.note("mended")
	for _, w := range r.workers {
		assert.True(r.tb, w.tell(settle), "a worker does not settle")
	}
	r.note("settled: %v", r.finished())
	for _, w := range r.workers {
		assert.True(r.tb, w.tell(dump), "a worker does not dump")
	}
	for _, w := range r.workers {
		w.end(syscall.SIGTERM)
	}
	var truth *check.Truth
	r.must(r.ask(2*time.Minute, func(ctx context.Context, js jetstream.JetStream) (err error) {
		truth, err = check.ReadTruth(ctx, js)
		return err
	}))
	r.must(truth.Write(r.dir))
	history, err := check.ReadHistory(r.dir)
	r.must(err)
	return check.Check(history, truth)
}

// finished waits until the consumer has nothing left, or long enough.
func (r *round) finished() error {
	return r.ask(time.Minute, func(ctx context.Context, js jetstream.JetStream) error {
		consumer, err := js.Consumer(ctx, check.Orders, check.Consumer)
		if err != nil {
			return err
		}
		if info := consumer.CachedInfo(); info.NumPending > 0 || info.NumAckPending > 0 {
			return fmt.Errorf("%d wait, and %d are held", info.NumPending, info.NumAckPending)
		}
		return nil
	})
}

// TestChaos runs rounds until the time is up, and prints the table.
func TestChaos(t *testing.T) {
	if *again != "" {
		truth, err := check.LoadTruth(*again)
		require.NoError(t, err)
		history, err := check.ReadHistory(*again)
		require.NoError(t, err)
		report := check.Check(history, truth)
		printRows(filepath.Base(*again), report)
		tell(t, *again, report)
		return
	}
	if *seed == 0 {
		*seed = rand.Uint64N(1_000_000)
	}
	fmt.Printf("chaos: -chaos.seed=%d -chaos.for=%v -chaos.round=%v\n", *seed, *long, *each)
	fmt.Printf("%-32s %6s %9s %9s %9s %5s %10s %5s %10s\n", "scenario", "faults", "calls", "failed", "worst gap", "lost", "duplicated", "late", "violations")
	names := []string{"one", "three", "leaf"}
	all := summary{Seed: *seed, For: *long, Begin: time.Now().UTC(), Cores: runtime.NumCPU(), Faults: map[string]*check.Fault{}}
	for n := uint64(0); n == 0 || time.Since(all.Begin) < *long; n++ {
		name := names[(*seed+n)%uint64(len(names))]
		if *where != "" {
			name = *where
		}
		ok := t.Run(fmt.Sprint(name, "-", *seed+n), func(t *testing.T) {
			dir, err := os.MkdirTemp(*keep, fmt.Sprintf("chaos-%s-%d-", name, *seed+n))
			require.NoError(t, err)
			r := &round{topology: topologies[name](t, dir), tb: t, dir: dir, seed: *seed + n}
			r.log = r.create("schedule.txt")
			defer func() { _ = r.log.Close() }()
			scenario := name + " " + r.vary(t, r.seed)
			r.note("seed %d, %s", r.seed, scenario)
			report := r.run(min(*each, *long))
			printRows(fmt.Sprint(scenario, " ", r.seed), report)
			tell(t, dir, report)
			all.add(scenario, r.seed, report)
			if !t.Failed() {
				require.NoError(t, os.RemoveAll(dir))
			}
		})
		if ok {
			all.Passed++
		} else {
			all.Failed++
		}
	}
	all.print()
	text, err := json.MarshalIndent(all, "", "\t")
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(*keep, "chaos.json"), text, 0o600))
}

// tell reports the first violations of each load, and keeps all.
func tell(t *testing.T, dir string, report *check.Report) {
	t.Helper()
	if len(report.Violations) == 0 {
		return
	}
	_ = os.WriteFile(filepath.Join(dir, "violations.txt"), []byte(strings.Join(report.Violations, "\n")+"\n"), 0o600)
	for _, load := range check.Loads {
		of := slices.DeleteFunc(slices.Clone(report.Violations), func(text string) bool { return !strings.HasPrefix(text, load) })
		for _, text := range of[:min(len(of), 5)] {
			t.Error(text)
		}
	}
	t.Logf("kept; to check it again: -test.run TestChaos -chaos.check %s", dir)
}
