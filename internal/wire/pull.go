package wire

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
)

// Pull is the body of a request for messages; what is zero is left out.
func Pull(batch, bytes int, expires, heartbeat time.Duration, noWait bool) []byte {
	body := strconv.AppendInt([]byte(`{"batch":`), int64(batch), 10)
	if bytes > 0 {
		body = strconv.AppendInt(append(body, `,"max_bytes":`...), int64(bytes), 10)
	}
	if expires > 0 {
		body = strconv.AppendInt(append(body, `,"expires":`...), int64(expires), 10)
	}
	if heartbeat > 0 {
		body = strconv.AppendInt(append(body, `,"idle_heartbeat":`...), int64(heartbeat), 10)
	}
	if noWait {
		body = append(body, `,"no_wait":true`...)
	}
	return append(body, '}')
}

// ServerShutdown describes the end of a pull whose server stops: its next leader may have a word as well.
const ServerShutdown = "Server Shutdown"

// ErrPullAgain means that a pull ended early for a reason that passes.
var ErrPullAgain = errors.New("the pull ended early")

// ErrTooManyPulls means that as many pulls wait as the consumer allows, its MaxWaiting.
var ErrTooManyPulls = errors.New("the consumer's MaxWaiting is reached")

// PullError says what a status means for the pull; nil is its natural end.
func PullError(status, description string) error {
	switch status {
	case StatusNotFound:
		return nil
	case StatusTimeout:
		if description == "Requests Pending" { // other pulls wait for the messages there are
			return ErrPullAgain
		}
		return nil
	case StatusNoResponders:
		return natsgo.ErrNoResponders
	case StatusConflict:
		switch description {
		case "Consumer Deleted":
			return jetstream.ErrConsumerDeleted
		case ServerShutdown, "Leadership Change":
			return ErrPullAgain
		case "Exceeded MaxWaiting":
			return ErrTooManyPulls
		}
		if strings.HasPrefix(description, "Exceeded MaxRequest") || description == "Consumer is push based" {
			return fmt.Errorf("%w: the server answered %s %s", fault.ErrPullRefused, status, description)
		}
	case StatusBadRequest:
		return fmt.Errorf("%w: the server answered %s %s", fault.ErrPullRefused, status, description)
	}
	return Unexpected(status, description)
}

// RefusedBytes returns the consumer's MaxRequestMaxBytes where a pull was refused for asking for more, or 0.
func RefusedBytes(err error) (most int) {
	if errors.Is(err, fault.ErrPullRefused) {
		_, text, _ := strings.Cut(err.Error(), "Exceeded MaxRequestMaxBytes of ")
		most, _ = strconv.Atoi(text)
	}
	return most
}

// Unexpected is the error of a status that has no meaning there.
func Unexpected(status, description string) error {
	return fmt.Errorf("the server answered %s %s", status, description)
}

// PullEnded tells whether a pull is over with nothing to it: its time, or its limit of bytes.
func PullEnded(m *natsgo.Msg) bool {
	status, description := Status(m)
	return status == StatusTimeout || status == StatusConflict && (description == "Batch Completed" || description == tooLarge)
}

// tooLarge describes the end of a pull whose limit of bytes has no room for the next message.
const tooLarge = "Message Size Exceeds MaxBytes"

// PullFull tells whether a pull is over because of its limit of bytes. The next message may be larger than any limit, so
// it is to be asked for by itself, without one.
func PullFull(m *natsgo.Msg) bool {
	_, description := Status(m)
	return description == tooLarge
}

// LastDelivered is the consumer sequence of the last message delivered before a heartbeat, as the server
// writes it.
func LastDelivered(heartbeat *natsgo.Msg) string { return heartbeat.Header.Get("Nats-Last-Consumer") }
