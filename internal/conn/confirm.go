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
		up, _, _ := c.State()
		if _, none := c.Unconfirmed(); !up || none {
			continue
		}
		ctx, cancel := context.WithTimeout(c.ctx, confirmInterval)
		_ = c.Flush(ctx) // the next one may succeed; until then the bytes count
		cancel()
	}
}
