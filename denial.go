package nats

import (
	"errors"
	"regexp"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// denials matches the server's permission errors, which come without a reference to what caused
// them, with the subscriptions that are being made. The server answers a denied SUB before the
// PING that follows it, and nats.go records the error (Conn.LastError) before the PONG but calls
// the error handler on another goroutine: so the record decides, and only where another error may
// have covered it, the handler is waited for.
type denials struct {
	mu      sync.Mutex
	waiting map[*denial]struct{}
}

// denial is a subscription that may be denied.
type denial struct {
	subject, queue string
	reported       chan error
}

// denialGrace is how long the error handler may lag behind the connection's reader.
const denialGrace = 20 * time.Millisecond

// The server's text, as nats.go itself reads it (permissionsRe, permissionsQueueRe).
var (
	deniedSubject = regexp.MustCompile(`Subscription to "(\S+)"`)
	deniedQueue   = regexp.MustCompile(`using queue "(\S+)"`)
)

func (d *denials) expect(subject, queue string) *denial {
	one := &denial{subject: subject, queue: queue, reported: make(chan error, 1)}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.waiting == nil {
		d.waiting = make(map[*denial]struct{})
	}
	d.waiting[one] = struct{}{}
	return one
}

func (d *denials) forget(one *denial) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.waiting, one)
}

// settle hands an error of the connection to the subscriptions that it denies and tells whether
// there are any.
func (d *denials) settle(err error) bool {
	if !errors.Is(err, natsgo.ErrPermissionViolation) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	settled := false
	for one := range d.waiting {
		if !one.isDeniedBy(err) {
			continue
		}
		select {
		case one.reported <- err:
		default:
		}
		settled = true
	}
	return settled
}

func (one *denial) isDeniedBy(err error) bool {
	if !errors.Is(err, natsgo.ErrPermissionViolation) {
		return false
	}
	first := func(re *regexp.Regexp) string {
		if match := re.FindStringSubmatch(err.Error()); match != nil {
			return match[1]
		}
		return ""
	}
	return first(deniedSubject) == one.subject && first(deniedQueue) == one.queue
}

// verdict returns the server's denial, or nil, once the PONG is in. Before and after are
// Conn.LastError before the SUB and after the PONG; every denial is an error value of its own.
func (one *denial) verdict(before, after error) error {
	covered := errors.Is(after, natsgo.ErrSlowConsumer) // one value for ever: a change does not show
	if after == before && !covered {                    //nolint:errorlint // the very same value is meant
		return nil
	}
	select {
	case err := <-one.reported:
		return err
	case <-time.After(denialGrace):
	}
	if one.isDeniedBy(after) {
		return after
	}
	return nil
}
