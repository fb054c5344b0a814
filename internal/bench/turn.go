package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/pprof"
	"time"
)

// ownTurn, set in the environment, makes this program take one turn, in a process of its own.
const ownTurn = "NATS_BENCH_TURN"

// A turn is what a process of its own is told.
type turn struct {
	URL, Workload, Side string
	N                   int
	Settle, Hold        time.Duration
	side                func(*round)
}

// An outcome is what it answers, after a line that says that what is idle is there.
type outcome struct {
	Figures map[string]float64
	Failed  string
}

func (rep *report) turn(url string, w workload, side string) *turn {
	t := &turn{URL: url, Workload: w.name, Side: side, N: w.n, Settle: rep.settle, Hold: rep.hold, side: w.sides[side]}
	if rep.Short && w.size < 1<<20 && w.n > 1000 {
		t.N = w.n / 5
	}
	return t
}

// take has the side do its work. What is begun in a process of its own, which tells when it is there, is left to that.
func (t *turn) take(ctx context.Context, begun func()) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	r := &round{url: t.URL, n: t.N, settle: t.Settle, hold: t.Hold, begun: begun, left: begun != nil}
	var err error
	pprof.Do(ctx, pprof.Labels("workload", t.Workload, "side", t.Side), func(ctx context.Context) {
		r.ctx = ctx
		err = r.run(t.side)
	})
	return r.figures, err
}

// takeTurn takes the turn that another process has told.
func takeTurn(told string) error {
	t, out := &turn{}, outcome{}
	err := json.Unmarshal([]byte(told), t)
	if err != nil {
		return err
	}
	err = errors.New("no such turn")
	for _, w := range workloads() {
		if t.side = w.sides[t.Side]; w.name == t.Workload && t.side != nil {
			out.Figures, err = t.take(context.Background(), func() { fmt.Println() })
		}
	}
	if err != nil {
		out = outcome{Failed: err.Error()}
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

// beside has the turn taken in a process of its own. It returns when what is idle is there, and wait when that was looked
// at. So memory and CPU are the turn's alone, and the minutes in which nothing happens are the same for all.
func (t *turn) beside(ctx context.Context) (wait func() (map[string]float64, error)) {
	failed := func(err error) func() (map[string]float64, error) {
		return func() (map[string]float64, error) { return nil, err }
	}
	told, err := json.Marshal(t)
	if err != nil {
		return failed(err)
	}
	binary, err := os.Executable()
	if err != nil {
		return failed(err)
	}
	cmd := exec.CommandContext(ctx, binary) //nolint:gosec // this program
	cmd.Env = append(os.Environ(), ownTurn+"="+string(told))
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return failed(err)
	}
	answer := bufio.NewReader(stdout)
	first, _ := answer.ReadString('\n') // what ends too early is told by what follows
	return func() (map[string]float64, error) {
		rest, err := io.ReadAll(answer)
		out := outcome{}
		ended := cmd.Wait() // an error, too, when it had answered before ctx ended
		if err := errors.Join(err, json.Unmarshal(append([]byte(first), rest...), &out)); err != nil {
			return nil, errors.Join(ended, err)
		}
		if out.Failed != "" {
			return nil, errors.New(out.Failed)
		}
		return out.Figures, nil
	}
}

// sweep removes the streams that turns have left.
func sweep(ctx context.Context, url string) error {
	r := &round{ctx: ctx, url: url}
	return r.run(func(r *round) {
		_, js := r.raw()
		lister := js.StreamNames(ctx)
		for name := range lister.Name() {
			r.atEnd(func(ctx context.Context) error { return js.DeleteStream(ctx, name) })
		}
		r.check(lister.Err())
	})
}
