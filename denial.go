package nats

import (
	"errors"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// denials matches the server's permission errors, which come without a reference to what caused
// them, with the subscriptions that are being made. The server answers a denied SUB before the
// PING that follows it. Nats.go records the error (Conn.LastError) before the PONG and calls the
// error handler on another goroutine, in the order of the errors: so the record tells whether there
// was an error at all, and where it is another one, that one's turn with the handler is waited for.
type denials struct {
	mu      sync.Mutex
	waiting map[*denial]struct{}

	published atomic.Pointer[error] // the denied publish that Flush returned last
}

// denial is a subscription that may be denied.
type denial struct {
	subject, queue string

	mu      sync.Mutex
	err     error
	handled []error       // by the error handler since the subscription began
	news    chan struct{} // holds one token when handled has grown
}

// How long the error handler may lag behind the connection's reader.
const (
	denialWait  = 2 * time.Second
	denialGrace = 20 * time.Millisecond // after an error that may be an old one
)

// The server's text, as nats.go itself reads it (permissionsRe, permissionsQueueRe), and that for
// publishing.
var (
	deniedSubject = regexp.MustCompile(`(Subscription|Publish) to "(\S+)"`)
	deniedQueue   = regexp.MustCompile(`using queue "(\S+)"`)
)

// violation is what the server denied.
type violation struct {
	subject, queue string
	publish        bool
}

// deniedBy reads a permission error of the server; other errors deny nothing.
func deniedBy(err error) violation {
	if !errors.Is(err, natsgo.ErrPermissionViolation) {
		return violation{}
	}
	var v violation
	if match := deniedSubject.FindStringSubmatch(err.Error()); match != nil {
		v.publish, v.subject = match[1] == "Publish", match[2]
	}
	if match := deniedQueue.FindStringSubmatch(err.Error()); match != nil {
		v.queue = match[1]
	}
	return v
}

func (d *denials) expect(subject, queue string) *denial {
	one := &denial{subject: subject, queue: queue, news: make(chan struct{}, 1)}
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

// settle shows an error of the connection, each in its turn, to the subscriptions that are being
// made and tells whether it denies any of them.
func (d *denials) settle(err error) bool {
	v := deniedBy(err)
	d.mu.Lock()
	defer d.mu.Unlock()
	settled := false
	for one := range d.waiting {
		denied := v.subject != "" && v == violation{subject: one.subject, queue: one.queue}
		one.show(err, denied)
		settled = settled || denied
	}
	return settled
}

func (one *denial) show(err error, denied bool) {
	one.mu.Lock()
	defer one.mu.Unlock()
	one.handled = append(one.handled, err)
	if denied && one.err == nil {
		one.err = err
	}
	select {
	case one.news <- struct{}{}:
	default:
	}
}

// known returns the denial, if there is one, and whether the handler has had last.
func (one *denial) known(last error) (err error, complete bool) { //nolint:revive // the error is the answer
	one.mu.Lock()
	defer one.mu.Unlock()
	return one.err, slices.ContainsFunc(one.handled, func(err error) bool { return err == last }) //nolint:errorlint // the very same value is meant
}

// verdict returns the server's denial, or nil, once the PONG is in. Before and after are
// Conn.LastError before the SUB and after the PONG.
func (one *denial) verdict(before, after error) error {
	wait := denialWait
	switch {
	case after == nil:
		return nil
	case errors.Is(after, natsgo.ErrSlowConsumer):
		wait = denialGrace // always the same value, so it may have come before the SUB
	case after == before: //nolint:errorlint // every denial is a value of its own
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		if err, complete := one.known(after); err != nil || complete && wait == denialWait {
			return err
		}
		select {
		case <-one.news:
		case <-timer.C:
			return nil
		}
	}
}

// deniedPublish returns the server's last word on a denied publish, if it has not been returned
// before.
func (c *Client) deniedPublish() error {
	err := c.nc.LastError()
	v := deniedBy(err)
	if !v.publish {
		return nil
	}
	if old := c.denials.published.Swap(&err); old != nil && *old == err { //nolint:errorlint // the very same value is meant
		return nil
	}
	return wrap("publish", v.subject, err)
}
