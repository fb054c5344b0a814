package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"regexp"
	"runtime/pprof"
	"slices"
	"time"
)

func main() {
	var err error
	if store := os.Getenv(serverStore); store != "" {
		err = serve(store)
	} else {
		err = compare()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func workloads() []workload { return slices.Concat(core(), streams(), stores(), held()) }

func compare() error {
	rounds := flag.Int("rounds", 7, "how often everything is done")
	short := flag.Bool("short", false, "a fifth of the work, without the largest: some two minutes for 2 rounds")
	most := flag.Duration("for", 0, "begin no round that would not end within this time; 0 is no limit")
	only := flag.String("run", "", "only the workloads whose name matches this expression")
	asJSON := flag.String("json", "", "write all measurements to this file")
	asPlot := flag.String("plot", "", "draw the ratios into this file (.svg, .pdf, .png)")
	profile := flag.String("cpuprofile", "", "write a CPU profile, whose samples have the labels workload and side, to this file")
	flag.Parse()
	match, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	all := slices.DeleteFunc(workloads(), func(w workload) bool { return *short && w.long || !match.MatchString(w.name) })
	if *rounds < 1 || len(all) == 0 {
		return fmt.Errorf("nothing to do: %d rounds of %d workloads", *rounds, len(all))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *profile != "" {
		file, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }() // pprof reads no half profile
		if err := pprof.StartCPUProfile(file); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	rep := newReport(*rounds, *short)
	rep.settle, rep.hold = 12*time.Second, 30*time.Second // watchful for the first ten seconds, and a heartbeat every fifteen
	if *short {
		rep.settle, rep.hold = 11*time.Second, 5*time.Second
	}
	if err := rep.measure(ctx, append(all, floors(all)...), *most); err != nil {
		return err
	}
	rep.finish()
	if *asJSON != "" {
		data, err := json.MarshalIndent(rep, "", "\t")
		if err == nil {
			err = os.WriteFile(*asJSON, append(data, '\n'), 0o600)
		}
		if err != nil {
			return err
		}
	}
	if *asPlot != "" {
		if err := rep.plot(*asPlot); err != nil {
			return err
		}
	}
	return rep.table(os.Stdout)
}

// measure has every side of every workload do its work once in each round, of which there are as many as there is time for.
func (rep *report) measure(ctx context.Context, all []workload, most time.Duration) error {
	store, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(store) }()
	url, stop, err := startServer(store)
	if err != nil {
		return err
	}
	defer stop()
	start := time.Now()
	for i := 0; i < rep.Rounds; i++ {
		for _, w := range all {
			if w.once && i > 0 {
				continue
			}
			names := slices.Sorted(maps.Keys(w.sides))
			first := i % len(names)
			for _, side := range append(names[first:], names[:first]...) {
				figures, err := rep.turn(ctx, url, w, side)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", w.name, side, err)
				}
				rep.add(w, side, figures)
			}
		}
		took := time.Since(start)
		if next := took / time.Duration(i+1); most > 0 && took+next > most {
			rep.Rounds = i + 1
		}
		left := took / time.Duration(i+1) * time.Duration(rep.Rounds-i-1)
		fmt.Fprintf(os.Stderr, "round %d of %d, %v, at most %v left\n", i+1, rep.Rounds, took.Round(time.Second), left.Round(time.Second))
	}
	return nil
}

// turn has one side do its work.
func (rep *report) turn(ctx context.Context, url string, w workload, side string) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	r := &round{url: url, n: w.n, settle: rep.settle, hold: rep.hold}
	if rep.Short && w.size < 1<<20 && w.n > 1000 {
		r.n = w.n / 5
	}
	var err error
	pprof.Do(ctx, pprof.Labels("workload", w.name, "side", side), func(ctx context.Context) {
		r.ctx = ctx
		err = r.run(w.sides[side])
	})
	return r.figures, err
}
