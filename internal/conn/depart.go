package conn

import (
	"context"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

// The pauses while no other server stands.
const (
	movePauseMin = 100 * time.Millisecond
	movePauseMax = 2 * time.Second
)

// Departure is a wish to leave the present server.
type Departure struct {
	Reason   string
	Another  bool // than the present server is gone to, whatever its address
	Unlisted bool // only while the present server is none of the pool
}

// departing is a wish that is being fulfilled.
type departing struct {
	cancel context.CancelFunc
	over   chan struct{}
}

// Depart moves to another connection in the background, as soon as one is sure to stand. The last wish takes the place
// of the one before, and all end when the client begins to.
func (c *Conn) Depart(d Departure) {
	done, err := c.o.Life.Begin()
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(c.o.Life.Context())
	own := &departing{cancel: cancel, over: make(chan struct{})}
	before := c.departing.Swap(own)
	go func() {
		defer done()
		defer close(own.over)
		defer cancel()
		if before != nil {
			before.cancel()
			<-before.over
		}
		go func() {
			select {
			case <-c.o.Life.Draining():
				cancel()
			case <-ctx.Done():
			}
		}()
		c.moveAway(ctx, d)
	}()
}

// moveAway tries to leave the present server until another one stands or there is no need any more.
func (c *Conn) moveAway(ctx context.Context, d Departure) {
	up, breaks, change := c.State()
	for failures := 0; up; failures++ {
		var servers []string
		for _, s := range c.nc.ServerPool() {
			servers = append(servers, s.URL.String())
		}
		if len(servers) == 0 || d.Unlisted && serverurl.Names(servers, c.Server()) {
			return
		}
		err := c.Leave(ctx, servers, d.Another, c.o.Groups)
		up, now, _ := c.State()
		switch {
		case err == nil, ctx.Err() != nil, !up, now != breaks:
			return
		case failures == 0:
			c.told.Push(func() { c.reports.Stays(d, err) })
		}
		select {
		case <-time.After(pause.Backoff(failures+1, movePauseMin, movePauseMax)):
		case <-change:
			return // it was left meanwhile
		case <-ctx.Done():
			return
		}
	}
}
