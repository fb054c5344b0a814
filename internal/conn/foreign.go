package conn

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// drainPoll is how often a drain looks at what nats.go counts.
const drainPoll = 5 * time.Millisecond

// DrainForeign lets the handlers return that others have on the connection: those of micro services, of upstream's
// Consume and of plain subscriptions. It returns what is left of handlers and of messages when ctx ends. Nats.go's own
// Drain would do it, too, but from then on refuses the subscriptions, and drops the answers, that the calls of these
// handlers need.
func (c *Conn) DrainForeign(ctx context.Context) (handlers, messages int) {
	subs := foreign(c.nc)
	if len(subs) == 0 {
		return 0, 0
	}
	if pass, err := c.Enter(ctx, 0); err == nil && c.IsUp() {
		up, leave := c.WhileUp(ctx)
		for _, sub := range subs {
			_ = sub.Drain() // it fails when it has ended
		}
		pass.Leave()
		_ = c.Flush(up) // nothing comes after it, nor after the end of the connection
		leave()
	}
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for {
		handlers, messages = 0, 0
		for _, sub := range subs {
			if n, _, err := sub.Pending(); err == nil && n > 0 { // the one being handled included
				handlers++
				messages += n - 1
			}
		}
		if handlers == 0 {
			return 0, 0
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return handlers, messages
		}
	}
}

// foreign returns the subscriptions of nc with a handler, but for those that receive the answers to calls, which
// handlers still make: these end in a wildcard below an inbox. When the client's own handlers have returned, all others
// are somebody else's. Nats.go has no list of subscriptions, so it is read from where nats.go has it, under its lock; a
// test sees to it that an upgrade cannot move it unnoticed.
func foreign(nc *natsgo.Conn) []*natsgo.Subscription {
	mu, list := hidden[sync.RWMutex](nc, "subsMu"), hidden[map[int64]*natsgo.Subscription](nc, "subs")
	if mu == nil || list == nil {
		return nil
	}
	mu.RLock()
	subs := slices.Collect(maps.Values(*list))
	mu.RUnlock()
	inboxes := natsgo.InboxPrefix
	if prefix := nc.Opts.InboxPrefix; prefix != "" {
		inboxes = prefix + "."
	}
	return slices.DeleteFunc(subs, func(sub *natsgo.Subscription) bool {
		answers := strings.HasPrefix(sub.Subject, inboxes) && strings.HasSuffix(sub.Subject, ".*")
		return answers || sub.Type() != natsgo.AsyncSubscription
	})
}

// hidden returns an unexported field of nc, or nil when there is none of this name and type.
func hidden[T any](nc *natsgo.Conn, name string) *T {
	field := reflect.ValueOf(nc).Elem().FieldByName(name)
	if !field.IsValid() || field.Type() != reflect.TypeFor[T]() {
		return nil
	}
	found, _ := reflect.NewAt(field.Type(), field.Addr().UnsafePointer()).Interface().(*T)
	return found
}
