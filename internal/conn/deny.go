package conn

import (
	"errors"
	"slices"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// watch waits for the denial of one of its subjects.
type watch struct {
	subjects []string
	denied   func(error)
	inbox    time.Time // when one was subscribed to for it; zero where none is
}

// Answers stands, among the subjects of Watch, for the one on which nats.go's own requests are answered.
const Answers = ""

// Watch calls denied, which must not wait, each time that the server denies one of the subjects, for whatever
// it was used, until end is called: for those who have no request that would fail.
func (c *Conn) Watch(denied func(error), subjects ...string) (end func()) {
	return c.watch(&watch{subjects: subjects, denied: denied})
}

func (c *Conn) watch(w *watch) (end func()) {
	r, subjects, denied := &c.requests, w.subjects, w.denied
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watches[w] = struct{}{}
	if err := r.muted.Load(); err != nil && slices.Contains(subjects, Answers) {
		denied(*err)
	}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.watches, w)
	}
}

// Deny fails the requests that a permission error of the server means, tells those who watch for it, and tells
// whether there are any: those on the subject that may not be published to, or all, when the answers' subject
// may not be subscribed to.
func (c *Conn) Deny(err error) bool {
	r := &c.requests
	v := fault.DeniedBy(err)
	full := v.Subject == "" && errors.Is(err, natsgo.ErrMaxSubscriptionsExceeded)
	r.mu.Lock()
	defer r.mu.Unlock()
	mux := full && !r.proven.Load() || !v.Publish && v.Subject == r.prefix+"*"
	upstreams := !mux && r.isUpstreams(v)
	if mux || upstreams {
		err = fault.Joined{err, errUnheard}
	}
	if upstreams {
		v.Subject = Answers
		r.muted.Store(&err) // nats.go subscribes to it once, so this is all that is ever heard
	}
	if full && !mux {
		if w := c.newest(); w != nil {
			w.inbox = time.Time{}
			w.denied(err)
			return true
		}
	}
	settled := false
	for w := range r.watches {
		if slices.ContainsFunc(w.subjects, func(subject string) bool { return isMeant(subject, v.Subject) }) {
			w.denied(err)
			settled = true
		}
	}
	if !mux && !v.Publish {
		return settled
	}
	for _, w := range r.waiting {
		if mux || isMeant(w.subject, v.Subject) {
			r.forget(w)
			w.denied = err
			w.push(nil)
			if w.call != nil && w.call.quiet != nil {
				go w.call.take().GoOn()
			}
			settled = true
		}
	}
	if mux && r.sub != nil {
		c.Unsubscribe(r.sub) // the next request tries again
		r.sub = nil
	}
	return settled
}

// inboxFresh is how long after an inbox was subscribed to, and the way, the server may refuse it for want of room: it
// does not say which it means.
const inboxFresh = 5 * time.Second

// newest returns the watch with the newest inbox, or nil when none is new. The lock of the requests is held.
func (c *Conn) newest() (found *watch) {
	_, trip := c.Peer()
	for w := range c.requests.watches {
		if !w.inbox.IsZero() && time.Since(w.inbox) < inboxFresh+trip && (found == nil || w.inbox.After(found.inbox)) {
			found = w
		}
	}
	return found
}

// errUnheard is what becomes of a request where the answers are denied: the server has got it all the same.
var errUnheard error = fault.Doubt("no answer can be heard, and what was asked for may have been done")

// isMeant tells whether a denial is that of a subject. A server denies the subjects of its own JetStream domain
// by the names that they have without one.
func isMeant(subject, denied string) bool {
	if subject == denied {
		return true
	}
	domain, local, ok := strings.Cut(subject, ".API.")
	domain, isDomain := strings.CutPrefix(domain, "$JS.")
	return ok && isDomain && !strings.Contains(domain, ".") && (denied == local || denied == "$JS.API."+local)
}

// isUpstreams tells whether what is denied is where nats.go gets the answers to its requests: it looks like
// the subject of the answers to ours.
func (r *requests) isUpstreams(v fault.Denial) bool {
	const unique = 23 // what natsgo.NewInbox adds, and a dot
	return !v.Publish && len(v.Subject) == len(r.prefix)+1 && strings.HasSuffix(v.Subject, ".*") &&
		strings.HasPrefix(v.Subject, r.prefix[:len(r.prefix)-unique])
}
