package states

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// State is a condition that a connection can be in.
type State struct {
	Name string
	// Down tells that no connection stands, Never that none ever stood, Ended that none ever will.
	Down, Never, Ended bool
	// Slow is what a call may take more because the line is slow.
	Slow time.Duration

	change  func(*server.Options)
	config  func(*Scene, *nats.Config) []nats.Option
	enter   func(*Scene)
	says    map[Kind][]error // what calls may return; nil is success
	problem string           // what Health says; empty when all is well
}

// Sets of what calls may return.
var (
	works   = []error{nil}
	tooLate = []error{nats.ErrTimeout, context.DeadlineExceeded}
	away    = []error{nats.ErrNotConnected}
	gone    = []error{nats.ErrClosed}
	off     = []error{nil, nats.ErrTimeout, nats.ErrNoResponders, nats.ErrNoStream, nats.ErrJetStreamDisabled} // JetStream
	// A server that does not answer may have done it all.
	silent = []error{nats.ErrTimeout, nats.ErrConnectionLost, nats.ErrNotConnected}

	allWell = map[Kind][]error{Sends: works, Opens: works, Asks: works, Stores: works, Waits: slices.Concat(works, tooLate)}
	allAway = map[Kind][]error{Sends: works, Opens: away, Asks: away, Stores: away, Waits: slices.Concat(away, tooLate, works)}
	silence = map[Kind][]error{Sends: works, Opens: silent, Asks: silent, Stores: silent, Waits: slices.Concat(silent, tooLate, works)}
)

// with returns what calls may say, with another set for one kind.
func with(says map[Kind][]error, kind Kind, errs ...error) map[Kind][]error {
	other := map[Kind][]error{}
	for k, v := range says {
		other[k] = v
	}
	other[kind] = errs
	return other
}

// States returns all states.
func States() []State {
	return []State{
		{Name: "connected", says: allWell},
		{Name: "refused", Down: true, says: allAway, problem: "connection: ",
			config: func(s *Scene, cfg *nats.Config) []nats.Option { cfg.URLs = []string{s.ends.url(s.server)}; return nil },
			enter:  func(s *Scene) { s.server.Stop() },
		},
		{Name: "dead host", Down: true, says: allAway, problem: "connection: ",
			config: beside(func(s *Scene) string { return s.ends.like(natstest.DeadHost(s.tb)) }),
			enter:  func(s *Scene) { s.proxy.Cut() },
		},
		{Name: "silent before INFO", Down: true, says: allAway, problem: "connection: ",
			config: beside(func(s *Scene) string { return s.ends.like(natstest.SilentServer(s.tb, "")) }),
			enter:  func(s *Scene) { s.proxy.Cut() },
		},
		{Name: "silent after INFO", Down: true, says: allAway, problem: "connection: ",
			config: beside(func(s *Scene) string { return s.ends.silentAfterInfo(s.tb) }),
			enter:  func(s *Scene) { s.proxy.Cut() },
		},
		{Name: "black hole while idle", says: silence, problem: "connection: ",
			enter: func(s *Scene) { s.proxy.BlackHole() },
		},
		{Name: "black hole under load", problem: "connection: ",
			says:  with(silence, Sends, nil, nats.ErrTimeout, nats.ErrConnectionLost, nats.ErrNotConnected),
			enter: func(s *Scene) { s.proxy.BlackHole(); s.load(s.Client.Publish) },
		},
		// Who uses nats.go's connection directly asks nobody for room, and holds its lock while there is none.
		{
			Name: "black hole filled over Conn()", problem: "connection: ",
			says: with(silence, Sends, nil, nats.ErrTimeout, nats.ErrConnectionLost, nats.ErrNotConnected),
			enter: func(s *Scene) {
				s.proxy.BlackHole()
				s.load(func(_ context.Context, subject string, data []byte) error {
					return s.Client.Conn().Publish(subject, data)
				})
			},
		},
		{Name: "throttled", Slow: time.Second,
			says:  allWell,
			enter: func(s *Scene) { s.proxy.Throttle(64 << 10) },
		},
		// JetStream of a server in lame duck mode is off; core NATS goes on until the server hangs up.
		{Name: "lame duck", problem: "JetStream: ",
			says: with(with(allWell, Stores, off...), Waits, append(off, tooLate...)...),
			change: func(o *server.Options) {
				o.LameDuckGracePeriod, o.LameDuckDuration = long, long+time.Second
			},
			enter: func(s *Scene) {
				s.server.LameDuck()
				s.until("JetStream is off", func() bool { return !s.server.Embedded().JetStreamEnabled() })
			},
		},
		{Name: "Consul away", says: allWell,
			config: func(s *Scene, cfg *nats.Config) []nats.Option {
				cfg.UseConsul, cfg.Consul.Timeout = true, 300*time.Millisecond
				cfg.Consul.Address = strings.TrimPrefix(natstest.SilentServer(s.tb, ""), "nats://")
				return nil
			},
		},
		{Name: "connecting in the background", Down: true, Never: true, problem: "connection: ",
			says: with(allAway, Opens, nil),
			config: func(s *Scene, cfg *nats.Config) []nats.Option {
				cfg.URLs = []string{
					s.ends.like("nats://127.0.0.1:1"), s.ends.like(natstest.DeadHost(s.tb)),
					s.ends.like(natstest.SilentServer(s.tb, "")), s.ends.silentAfterInfo(s.tb),
				}
				return []nats.Option{nats.WithBackgroundConnect()}
			},
		},
		{Name: "closed", Ended: true, problem: "closed",
			says:  map[Kind][]error{Sends: gone, Opens: gone, Asks: gone, Stores: gone, Waits: gone},
			enter: func(s *Scene) { _ = s.Client.Close() },
		},
	}
}

// beside gives the client a second server.
func beside(other func(*Scene) string) func(*Scene, *nats.Config) []nats.Option {
	return func(s *Scene, cfg *nats.Config) []nats.Option {
		cfg.URLs = append(cfg.URLs, other(s))
		return nil
	}
}

func (st State) server(o *server.Options) {
	if st.change != nil {
		st.change(o)
	}
}

func (st State) patience() time.Duration {
	if slices.Contains(st.says[Asks], nil) {
		return longPatience
	}
	return shortPatience
}

// health checks what Health says.
func (st State) health(h nats.Health) error {
	// Consumptions may have begun or ended just now.
	h.Problems = slices.DeleteFunc(h.Problems, func(problem string) bool { return strings.HasPrefix(problem, "consumer ") })
	problems := strings.Join(h.Problems, "; ")
	switch {
	case st.problem == "" && problems != "":
		return fmt.Errorf("health has problems: %s", problems)
	case st.problem != "" && (h.OK || !strings.Contains(problems, st.problem)):
		return fmt.Errorf("health knows no problem with %q: %s", st.problem, problems)
	}
	return nil
}

// permits tells whether a call of the kind may return err.
func (st State) permits(kind Kind, err error) bool {
	switch kind {
	case Local, Tells:
		return err == nil
	case Ends:
		return err == nil || errors.Is(err, nats.ErrDrainTimeout) || st.permits(Asks, err)
	}
	return slices.ContainsFunc(st.says[kind], func(one error) bool { return errors.Is(err, one) })
}

// begin brings the connection into the state.
func (s *Scene) begin() {
	s.tb.Helper()
	if s.state.enter != nil {
		s.state.enter(s)
	}
	if s.state.Down {
		s.until("the client knows that it is disconnected", func() bool { return !s.Client.IsConnected() })
	}
}

// load publishes until the connection takes no more, and goes on until the end of the scene.
func (s *Scene) load(publish func(ctx context.Context, subject string, data []byte) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var count atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		data := bytes.Repeat([]byte("x"), 512<<10)
		for ctx.Err() == nil {
			if publish(ctx, "load", data) == nil {
				count.Add(1)
			}
		}
	}()
	s.stop = append(s.stop, func() { cancel(); <-done })
	known, since := count.Load(), time.Now()
	s.until("the line is full", func() bool {
		if now := count.Load(); now != known {
			known, since = now, time.Now()
		}
		return known > 0 && time.Since(since) > 300*time.Millisecond
	})
}

func (s *Scene) until(what string, ok func() bool) {
	s.tb.Helper()
	for deadline := time.Now().Add(setupTimeout); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.tb.Fatalf("%s: not within %v: %s", s.state.Name, setupTimeout, what)
		}
	}
}
