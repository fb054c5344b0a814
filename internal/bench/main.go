package main

import (
	"context"
	"encoding/json"
	"errors"
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
	if store, turn := os.Getenv(serverStore), os.Getenv(ownTurn); store != "" {
		err = serve(store)
	} else if turn != "" {
		err = takeTurn(turn)
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
	rep.profiled = *profile != ""
	rep.settle, rep.hold = 12*time.Second, 30*time.Second // watchful for the first ten seconds, and a heartbeat every fifteen
	if *short {
		rep.settle, rep.hold = 11*time.Second, 5*time.Second
	}
	all = append(all, floors(all)...)
	if err := rep.measure(ctx, all, *most); err != nil {
		return err
	}
	rep.finish(all)
	if *asJSON != "" {
		data, failed := json.MarshalIndent(rep, "", "\t")
		err = errors.Join(failed, os.WriteFile(*asJSON, append(data, '\n'), 0o600))
	}
	if *asPlot != "" {
		err = errors.Join(err, rep.plot(*asPlot))
	}
	if err = errors.Join(err, rep.table(os.Stdout)); len(rep.Failed) > 0 {
		err = errors.Join(err, fmt.Errorf("%d turns have failed", len(rep.Failed)))
	}
	return err
}

// measure has every side of every workload do its work once in each round, of which there are as many as there is time for.
// A turn that fails is noted, and the others are taken.
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
		begun, once := time.Now(), time.Duration(0)
		var waiting []func()
		for _, w := range all {
			if w.once && i > 0 {
				continue
			}
			begun := time.Now()
			names := slices.Sorted(maps.Keys(w.sides))
			first := i % len(names)
			for _, side := range append(names[first:], names[:first]...) {
				if ctx.Err() != nil {
					break
				}
				t := rep.turn(url, w, side)
				if w.idle && !rep.profiled {
					wait := t.beside(ctx)
					waiting = append(waiting, func() {
						figures, err := wait()
						rep.add(i, w, side, figures, err)
					})
					continue
				}
				figures, err := t.take(ctx, nil)
				rep.add(i, w, side, figures, err)
			}
			if w.once {
				once += time.Since(begun)
			}
		}
		for _, wait := range waiting {
			wait()
		}
		if err := sweep(ctx, url); err != nil {
			fmt.Fprintln(os.Stderr, "streams of idle turns are left:", err)
		}
		next := time.Since(begun) - once
		if took := time.Since(start); ctx.Err() != nil || most > 0 && took+next > most {
			rep.Rounds = i + 1
		}
		left := next * time.Duration(rep.Rounds-i-1)
		fmt.Fprintf(os.Stderr, "round %d of %d, %v, at most %v left\n", i+1, rep.Rounds, time.Since(start).Round(time.Second), left.Round(time.Second))
	}
	return nil
}
