package conn

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
)

const (
	// interestTravels is how long a server may take to tell its cluster of a subscription.
	interestTravels = 50 * time.Millisecond
	// answersWait is how long a move waits for the answers of requests that have just been sent.
	answersWait = 500 * time.Millisecond
	// moveWait bounds the rest of the time in which publishers are held back.
	moveWait = time.Second
)

// errSameServer means that nobody but the server that is to be left answers.
var errSameServer = errors.New("it is the server that is to be left")

// Leave moves to one of the servers, but not to the present one if it is to be another, once a connection to
// it stands: a healthy one is never left for less. It returns nil, too, when the connection broke by itself
// meanwhile.
//
// The groups are the live subscriptions of queue groups. The new server is told of them while the old one
// still sends, under the numbers by which nats.go knows them, so that it may tell it again; what it sends waits
// in the new connection. Then publishers wait at the gate, open requests are answered, and the old server
// confirms what was published and that it sends the groups no more. So a group loses nothing and gets nothing
// twice. Over websockets the lines are frames of nats.go's, and groups miss what was on its way.
func (c *Conn) Leave(ctx context.Context, urls []string, another bool, groups func() []*natsgo.Subscription) error {
	_, breaks, _ := c.State()
	pool, err := parseAll(urls)
	if err != nil {
		return err
	}
	old := c.present.Load()
	servers := c.order(pool)
	for i := range servers {
		if another && old != nil {
			servers[i].except = old.info.ID
		}
	}
	l, failures := c.round(ctx, servers)
	if l == nil {
		return roundError(urls, failures)
	}
	var moving []*natsgo.Subscription
	if l.websocket == nil && old != nil && old.websocket == nil {
		moving = slices.Clone(groups())
	}
	if len(moving) > 0 {
		if _, err := l.Conn.Write(beginLines(moving)); err != nil {
			l.discard()
			return err
		}
		pause.Sleep(ctx, interestTravels+l.trip)
	}
	open := c.gate.close()
	defer open()
	c.requests.settle(ctx, answersWait)
	flush, cancel := context.WithTimeout(ctx, moveWait)
	defer cancel()
	_ = c.nc.FlushWithContext(flush) // a server that does not confirm is left all the same
	if len(moving) > 0 {
		_ = old.queue.write(endLines(moving))
		_ = c.nc.FlushWithContext(flush)
	}
	c.mu.Lock()
	up, now, _ := c.State()
	if !up || now != breaks || ctx.Err() != nil {
		c.mu.Unlock()
		l.discard()
		_ = old.queue.write(beginLines(among(moving, groups()))) // if it stands, it goes on
		return nil
	}
	c.ready, c.gap = l, time.Now()
	c.mu.Unlock()
	if err := c.forceReconnect(); err != nil {
		return err
	}
	err = c.WaitPast(flush, breaks+1)
	// Nats.go has told the old server alone of those that have ended meanwhile.
	live := groups()
	moving = slices.DeleteFunc(moving, func(sub *natsgo.Subscription) bool { return slices.Contains(live, sub) })
	_ = l.queue.write(endLines(moving))
	return err
}

// among returns those of subs that are still live: who has ended meanwhile must not get a share of its group any more.
func among(subs, live []*natsgo.Subscription) []*natsgo.Subscription {
	return slices.DeleteFunc(subs, func(sub *natsgo.Subscription) bool { return !slices.Contains(live, sub) })
}

// beginLines are what makes a server send to subscriptions, and endLines what ends that.
func beginLines(subs []*natsgo.Subscription) (lines []byte) {
	for _, sub := range subs {
		lines = fmt.Appendf(lines, "SUB %s %s %d\r\n", sub.Subject, sub.Queue, sidOf(sub))
	}
	return lines
}

func endLines(subs []*natsgo.Subscription) (lines []byte) {
	for _, sub := range subs {
		lines = fmt.Appendf(lines, "UNSUB %d\r\n", sidOf(sub))
	}
	return lines
}

// sidOf returns the number by which nats.go knows a subscription, and the server with it. It is nobody else's
// business otherwise, so that nats.go has no method for it; a test fails when an upgrade has moved the field.
func sidOf(sub *natsgo.Subscription) int64 {
	sid := reflect.ValueOf(sub).Elem().FieldByName("sid")
	if !sid.IsValid() || !sid.CanInt() {
		return 0
	}
	return sid.Int()
}
