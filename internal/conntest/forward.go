package conntest

import (
	"strings"
	"testing"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// ForwardPrefix is that of a JetStream API that Forward leads to the server's.
const ForwardPrefix = "FORWARD"

// Forward leads what comes for an API of the prefix ForwardPrefix to the server's, as the import from another account
// does, but for that of which pass, on the goroutine that forwards all, tells that it is not to.
func Forward(tb testing.TB, url string, pass func(nc *natsgo.Conn, m *natsgo.Msg) bool) {
	tb.Helper()
	nc := Raw(tb, url)
	_, err := nc.Subscribe(ForwardPrefix+".>", func(m *natsgo.Msg) {
		m.Subject = strings.TrimPrefix(m.Subject, ForwardPrefix+".")
		if !strings.HasPrefix(m.Subject, "$") { // else it is a key
			m.Subject = jetstream.DefaultAPIPrefix + m.Subject
		}
		if pass(nc, m) {
			m.Sub = nil
			_ = nc.PublishMsg(m)
		}
	})
	require.NoError(tb, err)
	require.NoError(tb, nc.Flush())
}
