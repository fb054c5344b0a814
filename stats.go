package nats

import (
	"errors"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// Stats are counters of a client. Those of a connection start at its first connect and go on over
// reconnects. What has no other meaning is a total since the client was made and never falls.
type Stats struct {
	// Statistics are those of the connection, acknowledgements, pulls and what else the protocols need included.
	natsgo.Statistics
	// Sent messages were published by calls that returned no error, stored in streams or on their way there, answers, or
	// requests, answered or not. Dead letters, replays, key-value and objects are not among them.
	Sent uint64
	// Received messages came to handlers, from pulls, as answers, and to loops over messages.
	Received uint64
	// Processed messages were handled by subscriptions and Consumptions, of which Failed ended in an error or a panic.
	// Every try counts.
	Processed uint64
	Failed    uint64
	// Retried messages of Consumptions were sent away to be delivered again later, and DeadLettered ones stored as dead
	// letters.
	Retried      uint64
	DeadLettered uint64
	// LostLocks ended before they were unlocked, other than with the client.
	LostLocks uint64
	// StaleWatchers is how often a watcher or cache may have missed an update: see EventWatchStale.
	StaleWatchers uint64
	// Dropped messages were received and thrown away because handlers were too slow.
	Dropped uint64
	// Subscriptions that have not ended.
	Subscriptions int
	// Pending messages have been received and wait for their handlers.
	Pending int
	// InFlight handlers are running.
	InFlight int
	// Buffered bytes are published and not yet on their way to a server; after Close there are none: see ShutdownError.
	Buffered int
	// Unconfirmed bytes of payload and headers are published and, as far as the client knows, not
	// yet received by a server: what an outage at this moment could cost at most. A round trip
	// every second keeps it small.
	Unconfirmed uint64
	// ConnectError is why the last attempt to reconnect failed; nil while connected.
	ConnectError error
	// ServersUpdated is when discovery last named the servers; zero while the configured URLs are
	// used.
	ServersUpdated time.Time
}

// totals are what the client itself counts. Who sends and who receives do not meet in the same line of the cache.
type totals struct {
	_        [56]byte
	sent     atomic.Uint64
	_        [56]byte
	received atomic.Uint64
	_        [56]byte

	lostLocks, staleWatchers atomic.Uint64
}

// Stats returns the client's counters.
func (c *Client) Stats() Stats {
	subs, live := c.subs.Stats()
	consumed := c.consumer.Stats()
	s := Stats{
		Processed: subs.Handled + consumed.Handled, Failed: subs.Failed + consumed.Failed,
		Retried: consumed.Retried, DeadLettered: consumed.DeadLettered,
		Dropped: subs.Dropped, Subscriptions: live,
		Pending: subs.Pending + consumed.Ready, InFlight: subs.InFlight + consumed.InFlight,
		ConnectError: c.conn.LastError(),
	}
	s.Sent, s.Received = c.totals.sent.Load(), c.totals.received.Load()
	s.LostLocks, s.StaleWatchers = c.totals.lostLocks.Load(), c.totals.staleWatchers.Load()
	s.Statistics, s.Buffered = c.conn.Stats()
	s.Unconfirmed, _ = c.conn.Unconfirmed()
	_, s.ServersUpdated = c.servers.Get()
	return s
}

// sent counts a message that has left, by what the call returns.
func (c *Client) sent(err error) error {
	if err == nil {
		c.totals.sent.Add(1)
	}
	return err
}

// sentRequest is sent for a request, which has left although nothing, or no good, came of it.
func (c *Client) sentRequest(err error) {
	doubtful := errors.Is(err, ErrTimeout) || errors.Is(err, ErrConnectionLost) || errors.Is(err, ErrNoResponders)
	if err == nil || doubtful && !errors.Is(err, ErrNotConnected) {
		c.totals.sent.Add(1)
	}
}
