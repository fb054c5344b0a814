package conn

import (
	"context"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
)

// sentMark remembers what the server has surely received: everything sent before a PING that it answered.
type sentMark struct {
	mu              sync.Mutex
	messages, bytes uint64
}

func (m *sentMark) confirm(sent natsgo.Statistics) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.messages, m.bytes = max(m.messages, sent.OutMsgs), max(m.bytes, sent.OutBytes)
}

// Unconfirmed returns how many bytes of what was published until now the server may not have received, and
// whether it has received every message.
func (c *Conn) Unconfirmed() (bytes uint64, none bool) {
	now, _ := c.Stats()
	c.sent.mu.Lock()
	defer c.sent.mu.Unlock()
	return now.OutBytes - min(now.OutBytes, c.sent.bytes), now.OutMsgs == c.sent.messages
}

// confirmInterval bounds for how long published bytes stay unconfirmed on a healthy connection.
const confirmInterval = time.Second

// confirmSent makes a round trip now and then while there is something to confirm.
func (c *Conn) confirmSent() {
	for pause.Sleep(c.ctx, confirmInterval) {
		if _, none := c.Unconfirmed(); !c.IsUp() || none {
			continue
		}
		ctx, cancel := context.WithTimeout(c.ctx, confirmInterval)
		_ = c.Flush(ctx) // the next one may succeed; until then the bytes count
		cancel()
	}
}

// drainGrace is what Drain takes on a connection that stands when ctx has ended before.
const drainGrace = 25 * time.Millisecond

// Drain sends what was published, and returns how many bytes it could not, and why. While there is no connection it
// waits for one only when there is something to send.
func (c *Conn) Drain(ctx context.Context) (left int, err error) {
	up, before := c.IsUp(), c.unsent()
	if _, none := c.Unconfirmed(); c.IsClosed() || none || !up && before == 0 {
		return 0, nil
	}
	if up && ctx.Err() != nil {
		// Handlers took all the time; what they published deserves a moment still.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), drainGrace)
		defer cancel()
	}
	if err := c.RoundTrip(ctx, "flush", ""); err != nil {
		return min(before, c.unsent()), err // without the flush's own PING
	}
	return 0, nil
}

// unsent returns how many bytes wait for the connection. The buffer may hold no more than PINGs: then the server has
// confirmed every message.
func (c *Conn) unsent() int {
	if _, none := c.Unconfirmed(); none {
		return 0
	}
	_, n := c.Stats()
	return n
}
