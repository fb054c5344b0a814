package conn

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

const (
	// nextAfter is how long a server may be silent before the next one is begun.
	nextAfter = 300 * time.Millisecond
	// mostOpen is how many servers are tried at once.
	mostOpen = 3
	// hungAfter is how long after the end of a round's context an attempt may return. What the user has given
	// for credentials, certificates and dialling may not return at all.
	hungAfter = 100 * time.Millisecond
)

var errHangs = errors.New("the attempt does not end, as when what supplies credentials or certificates does not return")

// ServerError is why a server could not be connected to.
type ServerError struct {
	URL  string // without credentials
	Err  error
	host string
}

func (e *ServerError) Error() string { return e.URL + ": " + e.Err.Error() }
func (e *ServerError) Unwrap() error { return e.Err }

// round tries the servers in their order until one lets the client in; the losers are closed. The next one
// is begun when the last has failed or says nothing, so that a silent one costs little and a distant one
// need not be hurried.
func (c *Conn) round(ctx context.Context, servers []server) (*line, []*ServerError) {
	type outcome struct {
		server int
		line   *line
		err    error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	outcomes := make(chan outcome, len(servers))
	greeted := make(chan int, len(servers))
	timer := time.NewTimer(nextAfter)
	defer timer.Stop()
	begun, open := 0, 0
	begin := func() {
		i := begun
		begun++
		open++
		timer.Reset(nextAfter)
		go func() {
			o := outcome{server: i}
			o.err = fault.Contained(func() (err error) { // functions of the user's are called there
				o.line, err = c.open(ctx, servers[i], func() {
					select {
					case greeted <- i:
					case <-ctx.Done(): // nobody listens any more
					}
				})
				return err
			})
			outcomes <- o
		}()
	}
	leave := func() { // nobody waits for the others
		cancel()
		go func() {
			for range open {
				if o := <-outcomes; o.line != nil {
					o.line.discard()
				}
			}
		}()
	}
	answered := make([]bool, len(servers))
	failures := make([]*ServerError, 0, len(servers))
	fail := func(i int, err error) {
		u := servers[i].url
		failures = append(failures, &ServerError{serverurl.Redact(u.String()), err, hostOf(u)})
	}
	if len(servers) > 0 {
		begin()
	}
	ended := ctx.Done()
	var hung <-chan time.Time
	for open > 0 {
		select {
		case o := <-outcomes:
			open--
			answered[o.server] = true
			if o.err == nil {
				leave()
				return o.line, nil
			}
			fail(o.server, o.err)
			if begun < len(servers) && ctx.Err() == nil {
				begin()
			}
		case i := <-greeted:
			if i == begun-1 {
				timer.Stop()
			}
		case <-ended:
			ended, hung = nil, time.After(hungAfter)
		case <-hung:
			leave()
			for i := range begun {
				if !answered[i] {
					fail(i, errHangs)
				}
			}
			return nil, failures
		case <-timer.C:
			if begun < len(servers) && open < mostOpen && ctx.Err() == nil {
				begin()
			}
		}
	}
	return nil, failures
}

func targets(urls []string) string { return fault.Few(serverurl.RedactAll(urls), ", ", 50) }

// roundError is the error of a round in which no server let the client in.
func roundError(urls []string, failures []*ServerError) error {
	kind := fault.ErrNotConnected
	var causes fault.Joined
	for _, f := range failures {
		switch {
		case errors.Is(f, fault.ErrInvalidConfig):
			kind = fault.ErrInvalidConfig
		case errors.Is(fault.Kind(f), fault.ErrAuthorization):
			kind = fault.ErrAuthorization
		}
		causes = append(causes, f)
	}
	e := &fault.Error{Op: "connect to", Target: targets(urls), Kind: kind}
	if len(causes) > 0 {
		e.Cause = causes
	}
	return e
}

// discard closes a line that nats.go will not get.
func (l *line) discard() { _ = l.tcp.Close() }

// reasonOf is what errors of one reason have in common, whatever their texts.
func reasonOf(err error) string {
	var step *stepError
	switch kind := fault.Kind(err); {
	case errors.As(err, &step):
		return step.step
	case kind != nil:
		return kind.Error()
	}
	for {
		inner := errors.Unwrap(err)
		if several, ok := err.(interface{ Unwrap() []error }); ok {
			if causes := several.Unwrap(); len(causes) > 0 {
				inner = causes[len(causes)-1]
			}
		}
		if inner == nil {
			return fmt.Sprintf("%T %v", err, err)
		}
		err = inner
	}
}
