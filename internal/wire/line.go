package wire

import (
	"errors"
	"fmt"
	"net/textproto"

	natsgo "github.com/nats-io/nats.go"
)

// The server counts the arguments of a control line, without the verb before them and the line's end
// (nats-server, overMaxControlLineLimit in server/parser.go), and closes the connection of a client whose
// line is longer than its max_control_line.

// PublishLine is the length of the line of a message: of PUB, and of HPUB when it has a header. The
// subjects are given by their lengths; a reply of 0 is none.
func PublishLine(subject, reply int, header natsgo.Header, size int) int {
	line := subject + 1
	if reply > 0 {
		line += reply + 1
	}
	if len(header) > 0 {
		head := HeaderSize(header)
		line += digits(head) + 1
		size += head
	}
	return line + digits(size)
}

// SubscribeLine is the length of the line of a subscription, at most: its number is upstream's secret,
// and counts up with every pull of a client that may live for months.
func SubscribeLine(subject, queue int) int {
	const number = 9 // digits
	return subject + 1 + queue + 1 + number
}

// HeaderSize is how long header is on the wire, where nats.go trims the values. It counts for the server's max_payload.
func HeaderSize(header natsgo.Header) int {
	if len(header) == 0 {
		return 0
	}
	size := len("NATS/1.0\r\n\r\n")
	for name, values := range header {
		for _, value := range values {
			size += len(name) + len(": ") + len(textproto.TrimString(value)) + len("\r\n")
		}
	}
	return size
}

// Sized adds the sizes to the error of a payload that was too large for the server, whose max_payload is limit; it
// leaves other errors alone.
func Sized(err error, header natsgo.Header, data []byte, limit int64) error {
	if errors.Is(err, natsgo.ErrMaxPayload) {
		return fmt.Errorf("%d bytes, and the server's max_payload is %d: %w", HeaderSize(header)+len(data), limit, err)
	}
	return err
}

func digits(n int) int {
	count := 1
	for ; n > 9; n /= 10 {
		count++
	}
	return count
}
