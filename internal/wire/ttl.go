package wire

import (
	"strconv"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Forever is the time to live of a message that its stream's MaxAge does not end either.
const Forever = -time.Second

// TTL returns a message's own time to live, in whole seconds as the server counts it, Forever, or 0 when it has none.
func TTL(header natsgo.Header) time.Duration {
	text := header.Get(jetstream.MsgTTLHeader)
	if text == "" {
		return 0
	}
	if strings.EqualFold(text, "never") {
		return Forever
	}
	ttl, err := time.ParseDuration(text)
	if err != nil {
		seconds, _ := strconv.ParseInt(text, 10, 32)
		ttl = time.Duration(seconds) * time.Second
	}
	return max(ttl.Truncate(time.Second), 0)
}
