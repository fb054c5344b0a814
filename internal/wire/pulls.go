package wire

import (
	"strconv"

	natsgo "github.com/nats-io/nats.go"
)

// MaxBytes is what messages that are asked for at once may have in all. A server closes the connection of who does not
// take as fast what it sends, from 64 MiB on: a few hundred large messages.
const MaxBytes = 4 << 20

// AnyBytes is a limit that has room for any message: the end of a pull with a limit is told.
const AnyBytes = 1 << 30

// PullBytes returns the limit for a pull of so many messages, none of which is larger than most; 0 is none.
func PullBytes(batch int, most int64) int {
	if int64(batch)*most <= MaxBytes { // it would cost a status for each pull
		return 0
	}
	return MaxBytes
}

// Pulls counts what the pulls over one subject may still bring. A message does not tell which of them has brought it, and
// the server says nothing of the end of one whose limit of bytes is met exactly: but when all bytes have come, all pulls
// are over. The zero value has none.
type Pulls struct {
	left    int  // messages
	limited int  // pulls with a limit of bytes whose end was not told
	room    int  // bytes that these may still bring, where all pulls have a limit
	vague   bool // not all have had one since none was open
}

// Left returns how many messages are still to come.
func (p *Pulls) Left() int { return p.left }

// Add notes a pull that was sent; without a limit of bytes where that is 0.
func (p *Pulls) Add(batch, bytes int) {
	p.left += batch
	if bytes > 0 {
		p.limited++
		p.room += bytes
	} else {
		p.vague = true
	}
}

// Came notes a message.
func (p *Pulls) Came(m *natsgo.Msg) { p.less(1, m.Size()) }

// End notes the end of a pull, as the server tells it, and returns how many messages it was not given. There are no figures
// for one that was refused as there is no message for it: it was for one, of AnyBytes.
func (p *Pulls) End(status *natsgo.Msg) (messages int) {
	messages, bytes := 1, AnyBytes
	if status.Header.Get(pendingMessages) != "" {
		messages, bytes = number(status, pendingMessages), number(status, "Nats-Pending-Bytes")
	}
	if bytes > 0 {
		p.limited--
	}
	p.less(messages, bytes)
	return messages
}

const pendingMessages = "Nats-Pending-Messages"

func number(status *natsgo.Msg, header string) int {
	n, _ := strconv.Atoi(status.Header.Get(header))
	return max(n, 0)
}

// Doubt notes that what was asked for may be lost: it is not waited for, but may come.
func (p *Pulls) Doubt() { p.left = 0 }

func (p *Pulls) less(messages, bytes int) {
	p.left -= min(messages, p.left)
	switch p.room -= bytes; {
	case p.vague && p.left == 0 && p.limited == 0:
		p.room, p.vague = 0, false
	case !p.vague && p.room == 0:
		p.left, p.limited = 0, 0
	}
}
