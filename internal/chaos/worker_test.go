package chaos_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/chaos/check"
)

// workerSpec is what a worker is told.
type workerSpec struct {
	Name   string // and life: w1.2
	Dir    string
	URLs   []string
	Domain string
	Secret string
	Seed   uint64
}

// What the driver says to a worker, a line each, and hears as soon as it is done. SIGTERM ends it gracefully.
const (
	settle = "settle" // begin nothing more
	dump   = "dump"   // sweep, and write down what watchers and caches know
)

// worker makes all kinds of calls and writes down what it does and sees.
type worker struct {
	workerSpec
	client *nats.Client
	stalls stalls
	loads  sync.WaitGroup
	cache  *nats.KeyValueCache
	store  *nats.ObjectStore

	mu  sync.Mutex
	out *os.File
}

// work is the process of a worker.
func work(text string) (err error) {
	w := &worker{}
	if err := json.Unmarshal([]byte(text), &w.workerSpec); err != nil {
		return err
	}
	if w.out, err = os.Create(filepath.Join(w.Dir, w.Name+".jsonl")); err != nil {
		return err
	}
	stop := w.stalls.watch()
	defer stop()
	before := runtime.NumGoroutine()
	ended, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	before++ // of the signals
	for w.client == nil && ended.Err() == nil {
		_ = w.call("life/connect", "", "", 10*time.Second, func(ctx context.Context, _ *check.Record) (err error) {
			w.client, err = nats.NewClientContext(ctx, w.config())
			return err
		})
	}
	if w.client == nil {
		return nil
	}
	loading, settled := context.WithCancel(ended)
	defer settled()
	w.begin(loading)
	go w.obey(settled)
	<-ended.Done()
	w.loads.Wait()
	_ = w.call("life/close", "", "", 20*time.Second, func(ctx context.Context, _ *check.Record) error { return w.client.Shutdown(ctx) })
	w.nothingLeft(before + 1) // that which reads its standard input
	return nil
}

func (w *worker) config() *nats.Config {
	return &nats.Config{
		URLs: w.URLs, Username: user, PasswordFile: w.Secret, JetStreamEnabled: true, JetStreamDomain: w.Domain, ClientID: w.Name, Timeout: 3 * time.Second,
		ReconnectWait: 50 * time.Millisecond, ReconnectMaxWait: 500 * time.Millisecond, RequestTimeout: 5 * time.Second,
	}
}

// obey does what the driver says. The process ends with its standard input.
func (w *worker) obey(settled func()) {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		switch lines.Text() {
		case settle:
			w.saw("life/settle", "", "", 0, 0)
			settled()
			w.loads.Wait()
		case dump:
			w.dump()
		}
		fmt.Println(lines.Text())
	}
	os.Exit(1)
}

// write adds a record to the history.
func (w *worker) write(r check.Record) {
	r.Worker = w.Name
	line, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.out.Write(append(line, '\n')); err != nil {
		panic(err)
	}
}

// saw writes down what came to the worker.
func (w *worker) saw(op, key, id string, seq, n uint64) {
	now := time.Now().UnixNano()
	w.write(check.Record{Op: op, Key: key, ID: id, Seq: seq, N: n, Begin: now, End: now})
}

// call makes a call within its time and writes down how it ended. What f sets in the record is kept.
func (w *worker) call(op, key, id string, limit time.Duration, f func(context.Context, *check.Record) error) error {
	r := check.Record{Op: op, Key: key, ID: id, Limit: limit}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	begin := time.Now()
	err := f(ctx, &r)
	end := time.Now()
	r.Begin, r.End, r.Stall = begin.UnixNano(), end.UnixNano(), w.stalls.between(begin, end)
	r.Fate, r.Err = fate(err)
	r.Denied = errors.Is(err, nats.ErrPermission)
	w.write(r)
	return err
}

func fate(err error) (check.Fate, string) {
	switch {
	case err == nil:
		return check.Done, ""
	case nats.IsUncertain(err):
		return check.Maybe, err.Error()
	}
	return check.Not, err.Error()
}

// forever repeats a load until the worker settles.
func (w *worker) forever(ctx context.Context, pause time.Duration, f func(n int, random *rand.Rand)) {
	random := rand.New(rand.NewPCG(w.Seed, rand.Uint64()))
	w.loads.Go(func() {
		for n := 1; ctx.Err() == nil; n++ {
			f(n, random)
			select {
			case <-time.After(time.Duration(random.Int64N(int64(2 * pause)))):
			case <-ctx.Done():
			}
		}
	})
}

// until tries what a load cannot do without.
func until(ctx context.Context, f func() error) bool {
	for ctx.Err() == nil {
		if f() == nil {
			return true
		}
		time.Sleep(100 * time.Millisecond)
	}
	return false
}

// nothingLeft writes down the goroutines that have outlived the client.
func (w *worker) nothingLeft(before int) {
	r := check.Record{Op: "life/left", N: uint64(runtime.NumGoroutine()), Begin: time.Now().UnixNano()}
	for deadline := time.Now().Add(3 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond)
	}
	if runtime.NumGoroutine() > before {
		var text strings.Builder
		_ = pprof.Lookup("goroutine").WriteTo(&text, 1)
		r.Err = fmt.Sprintf("%d goroutines instead of %d\n%s", runtime.NumGoroutine(), before, text.String())
	}
	r.End = time.Now().UnixNano()
	w.write(r)
}

// stalls knows when the process was held up: a ticker comes late then.
type stalls struct {
	mu   sync.Mutex
	last time.Time // when it came last
	late [][2]time.Time
}

const tick = 5 * time.Millisecond

func (s *stalls) watch() (stop func()) {
	ticker := time.NewTicker(tick)
	done := make(chan struct{})
	s.last = time.Now()
	go func() {
		for {
			select {
			case <-ticker.C:
				s.tick(time.Now())
			case <-done:
				return
			}
		}
	}()
	return func() { ticker.Stop(); close(done) }
}

func (s *stalls) tick(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.last) > 2*tick {
		s.late = append(s.late, [2]time.Time{s.last.Add(tick), now})
	}
	if now.After(s.last) {
		s.last = now
	}
}

// between returns how long in all the process was held up.
func (s *stalls) between(begin, end time.Time) (sum time.Duration) {
	s.tick(end) // what woke up first asks before the ticker comes
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.late) - 1; i >= 0 && s.late[i][1].After(begin); i-- {
		from, to := s.late[i][0], s.late[i][1]
		if from.Before(begin) {
			from = begin
		}
		if to.After(end) {
			to = end
		}
		sum += max(0, to.Sub(from))
	}
	return sum
}

var errPlanned = errors.New("as planned")
