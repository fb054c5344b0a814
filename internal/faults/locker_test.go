package faults_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// lockerEnv, set in the environment, makes the test binary a process that competes for locks: one that
// can be killed, and stopped for a while.
const lockerEnv = "NATS_FAULTS_LOCKER"

type lockerSpec struct {
	URL  string
	Keys int
	TTL  time.Duration
}

// What a locker reports, one JSON object a line.
const (
	lockerHolds  = "holds"  // it has got the lock
	lockerWrites = "writes" // it has looked at the lock at At, found it held, and writes
	lockerEnds   = "ends"   // the lock's context has ended
)

type lockerLine struct {
	What  string
	Key   int
	Token uint64
	At    int64 // Unix nanoseconds, of the one clock of the machine
}

// lockerRun competes for the locks until its standard input ends.
func lockerRun(text string) error {
	var spec lockerSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return err
	}
	client, err := nats.NewClient(&nats.Config{
		URLs: []string{spec.URL}, JetStreamEnabled: true, ReconnectWait: 20 * time.Millisecond, ReconnectMaxWait: 100 * time.Millisecond,
	})
	if err != nil {
		return err
	}
	kv, err := client.GetKeyValue(context.Background(), "locks")
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	var mu sync.Mutex
	report := func(what string, key int, token uint64, at time.Time) {
		mu.Lock()
		defer mu.Unlock()
		_ = out.Encode(lockerLine{what, key, token, at.UnixNano()})
	}
	for key := range spec.Keys {
		go func() {
			for {
				lock, err := kv.Lock(context.Background(), fmt.Sprint("k", key), spec.TTL)
				if err != nil {
					fmt.Fprintln(os.Stderr, "lock:", err)
					return
				}
				report(lockerHolds, key, lock.Token(), time.Now())
				for {
					at := time.Now()
					if lock.Context().Err() != nil {
						break
					}
					time.Sleep(20 * time.Millisecond) // the work
					report(lockerWrites, key, lock.Token(), at)
					time.Sleep(30 * time.Millisecond)
				}
				report(lockerEnds, key, lock.Token(), time.Now())
				_ = lock.Unlock(context.Background())
			}
		}()
	}
	_, _ = os.Stdin.Read(make([]byte, 1))
	return nil
}

// locker is such a process.
type locker struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when all its lines are taken
}

func startLocker(t testing.TB, spec lockerSpec, take func(lockerLine)) *locker {
	t.Helper()
	text, err := json.Marshal(spec)
	require.NoError(t, err)
	l := &locker{cmd: process(t, lockerEnv, string(text)), done: make(chan struct{})}
	_, err = l.cmd.StdinPipe()
	require.NoError(t, err)
	out, err := l.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, l.cmd.Start())
	go func() {
		defer close(l.done)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var line lockerLine
			if json.Unmarshal(lines.Bytes(), &line) == nil { // the last one may be cut off
				take(line)
			}
		}
	}()
	return l
}

func (l *locker) kill() {
	_ = l.cmd.Process.Kill()
	<-l.done
	_ = l.cmd.Wait()
}
