package conn

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"
)

const (
	// maxPatience is how long a peer may take nothing before it counts as dead. A reader with a full window
	// opens it again only when a part of its buffer is free, which takes a slow one some seconds. Who asks
	// for a dead peer to be noticed sooner, by his pings, gets no less than minPatience.
	maxPatience = 10 * time.Second
	minPatience = 4 * time.Second
	// oneWrite is how long one write waits. Linux wakes a writer only when a third of the send buffer is
	// free, but a new write takes what fits: so progress on a slow line shows only in new writes.
	oneWrite = 400 * time.Millisecond
)

// errTakesNothing is why a connection is given up whose peer has stopped reading.
var errTakesNothing = errors.New("the server takes no more bytes")

// patient is a TCP connection whose writes wait for as long as the peer takes something now and then. It
// stands below TLS, whose connection a write that times out would end.
type patient struct {
	net.Conn
	patience time.Duration
	born     time.Time
	deadline time.Time    // of writes; the writer's alone
	waiting  atomic.Int64 // since when, after born, the write has made no progress; 0 while there is none
	hurry    atomic.Bool  // the end is near: one attempt only
}

func newPatient(c net.Conn, patience time.Duration) *patient {
	return &patient{Conn: c, patience: patience, born: time.Now()}
}

// Write implements net.Conn, for one writer at a time.
func (c *patient) Write(p []byte) (int, error) {
	defer c.waiting.Store(0)
	for written := 0; ; {
		now := time.Now()
		if c.waiting.Load() == 0 {
			c.waiting.Store(int64(now.Sub(c.born)) | 1)
		}
		if c.deadline.Sub(now) < oneWrite/2 {
			c.deadline = now.Add(oneWrite)
			_ = c.SetWriteDeadline(c.deadline) // a user's dialler may have made what knows none, such as a tunnel
		}
		n, err := c.Conn.Write(p[written:])
		written += n
		if n > 0 {
			c.waiting.Store(int64(time.Since(c.born)) | 1)
		}
		switch {
		case err == nil:
			return written, nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return written, err
		case c.hurry.Load() || c.stalled() >= c.patience:
			return written, errTakesNothing
		}
	}
}

// stalled returns for how long the peer has taken nothing of what is being written.
func (c *patient) stalled() time.Duration {
	since := c.waiting.Load()
	if since == 0 {
		return 0
	}
	return time.Since(c.born) - time.Duration(since)
}
