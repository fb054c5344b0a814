package nats

import (
	"context"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/pause"
)

// outagePoll is how often the cause of failed attempts is looked at. Upstream calls nobody when the
// TLS handshake or the authorization of a reconnect fails: only Conn.LastError shows it, until the
// next attempt.
const outagePoll = 100 * time.Millisecond

// outage remembers why the attempts of the present outage failed.
type outage struct {
	mu   sync.Mutex
	err  error
	seen map[string]bool
}

// isNew records the reason of a failed attempt and tells whether this outage had it before.
func (o *outage) isNew(err error) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err = err
	if o.seen == nil {
		o.seen = make(map[string]bool)
	}
	text := err.Error()
	if o.seen[text] {
		return false
	}
	o.seen[text] = true
	return true
}

func (o *outage) end() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.err, o.seen = nil, nil
}

func (o *outage) lastError() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// watchOutage reports what keeps the client from connecting until it is connected or closed.
func (c *Client) watchOutage() {
	<-c.ready
	tick := time.NewTicker(outagePoll)
	defer tick.Stop()
	for {
		up, _, change := c.link.state()
		if up || c.life.Context().Err() != nil {
			return
		}
		if err := c.nc.LastError(); err != nil && c.nc.IsReconnecting() {
			c.onReconnectFailed(err)
		}
		select {
		case <-tick.C:
		case <-change:
		case <-c.life.Context().Done():
		}
	}
}

// sentMark remembers what the server has surely received: everything sent before a PING that it
// answered.
type sentMark struct {
	mu              sync.Mutex
	messages, bytes uint64
}

func (m *sentMark) confirm(sent natsgo.Statistics) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.messages, m.bytes = max(m.messages, sent.OutMsgs), max(m.bytes, sent.OutBytes)
}

// unconfirmed returns how many of the bytes published until now the server may not have received.
func (m *sentMark) unconfirmed(now natsgo.Statistics) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return now.OutBytes - min(now.OutBytes, m.bytes)
}

func (m *sentMark) allConfirmed(now natsgo.Statistics) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return now.OutMsgs == m.messages
}

// confirmInterval bounds for how long published bytes stay unconfirmed on a healthy connection.
const confirmInterval = time.Second

// confirmSent makes a round trip now and then while there is something to confirm.
func (c *Client) confirmSent() {
	for pause.Sleep(c.life.Context(), confirmInterval) {
		up, _, _ := c.link.state()
		if !up || c.allConfirmed() {
			continue
		}
		ctx, cancel := context.WithTimeout(c.life.Context(), confirmInterval)
		_ = c.roundTrip(ctx, "confirm", "") // the next one may succeed; until then the bytes count
		cancel()
	}
}
