package states

import (
	"bytes"
	"context"
	"fmt"
	"runtime/pprof"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
)

const labelKey = "states"

// bounded are goroutines that may outlast a call, for they are few and end by themselves.
var bounded = []string{
	"(*Store).afterwards",      // an upload that failed is removed beside the caller, for half a minute at most; Close waits
	"(*Lease).forgo",           // a lock that could not be given up in time is given up when that is possible, while it would last
	"(*Conn).checkDrained",     // nats.go's drain of a subscription waits for its PONG, for ten seconds at most
	"(*Conn).Unsubscribe.func", // one for a connection tells the server, when it takes something, of the subscriptions that have ended
}

var labels atomic.Int64

// label marks goroutines and all that they start, directly or not.
type label string

func newLabel(what string) label {
	return label(fmt.Sprint(what, " ", labels.Add(1)))
}

func (l label) run(f func()) {
	pprof.Do(context.Background(), pprof.Labels(labelKey, string(l)), func(context.Context) { f() })
}

// left returns the stacks of the marked goroutines that are still there after d.
func (l label) left(d time.Duration, stalls *conntest.Stalls) []string {
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		over := stalls.Since(begin) > d
		stacks := l.stacks()
		if len(stacks) == 0 || over {
			return stacks
		}
	}
}

func (l label) stacks() []string {
	var profile bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		return []string{err.Error()}
	}
	var stacks []string
	mark := fmt.Sprintf("%q:%q", labelKey, string(l))
	for stack := range strings.SplitSeq(profile.String(), "\n\n") {
		isBounded := func(name string) bool { return strings.Contains(stack, name) }
		if strings.Contains(stack, mark) && !slices.ContainsFunc(bounded, isBounded) {
			stacks = append(stacks, frames(stack))
		}
	}
	return stacks
}

// frames keeps what a person reads of a goroutine in a profile: function and line.
func frames(stack string) string {
	var lines []string
	for line := range strings.Lines(stack) {
		if fields := strings.Fields(line); len(fields) == 4 {
			lines = append(lines, "\t"+fields[2]+" "+fields[3])
		}
	}
	return strings.Join(lines, "\n")
}
