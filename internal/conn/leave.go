package conn

import (
	"context"
	"errors"
	"time"
)

const (
	// answersWait is how long a move waits for the answers of requests that have just been sent.
	answersWait = 500 * time.Millisecond
	// moveWait bounds the rest of the time in which publishers are held back.
	moveWait = time.Second
)

// errSameServer means that nobody but the server that is to be left answers.
var errSameServer = errors.New("it is the server that is to be left")

// Leave moves to one of the servers, but not to the present one if it is to be another, once a connection to
// it stands: a healthy one is never left for less. Release is called then, to end what must not lose a
// message; it returns how much that was and what makes it begin anew on the next connection. Publishers wait
// at the gate while the old server confirms what was published and open requests are answered. Leave returns
// nil, too, when the connection broke by itself meanwhile.
func (c *Conn) Leave(ctx context.Context, urls []string, another bool, release func(context.Context) (members int, rejoin func())) error {
	_, breaks, _ := c.State()
	pool, err := parseAll(urls)
	if err != nil {
		return err
	}
	servers := c.order(pool)
	for i := range servers {
		if present := c.present.Load(); another && present != nil {
			servers[i].except = present.info.ID
		}
	}
	l, failures := c.round(ctx, servers)
	if l == nil {
		return roundError(urls, failures)
	}
	begin := time.Now()
	members, rejoin := release(ctx)
	defer rejoin()
	open := c.gate.close()
	defer open()
	c.requests.settle(ctx, answersWait)
	flush, cancel := context.WithTimeout(ctx, moveWait)
	defer cancel()
	_ = c.nc.FlushWithContext(flush) // a server that does not confirm is left all the same
	if members == 0 {
		begin = time.Now()
	}
	c.mu.Lock()
	up, now, _ := c.State()
	if !up || now != breaks || ctx.Err() != nil {
		c.mu.Unlock()
		l.discard()
		return nil
	}
	c.ready, c.gap = l, begin
	c.mu.Unlock()
	if err := c.forceReconnect(); err != nil {
		return err
	}
	rejoin()
	return c.WaitPast(flush, breaks+1)
}
