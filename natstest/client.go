package natstest

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// closeTimeout bounds the end of a client whose server may be gone.
const closeTimeout = time.Second

// Connect returns a client of s, which is closed when the test ends. It logs in with what [WithUser] or [WithToken]
// say, trusts the certificate of [WithTLS], has JetStream enabled, and reconnects within a tenth of a
// second. Change, when it is not nil, may change that, and set the URL of a [Proxy].
//
// Connect fails the test when there is no connection.
func Connect(tb testing.TB, s *Server, change func(*nats.Config), opts ...nats.Option) *nats.Client {
	tb.Helper()
	s.mu.RLock()
	cfg := &nats.Config{
		URLs:     []string{s.url},
		Username: s.access.user, Password: s.access.password, Token: s.access.token, TLSCA: s.access.caFile,
		JetStreamEnabled: true,
		ReconnectWait:    20 * time.Millisecond, ReconnectMaxWait: 100 * time.Millisecond,
	}
	s.mu.RUnlock()
	if change != nil {
		change(cfg)
	}
	client, err := nats.NewClient(cfg, opts...)
	if err != nil {
		tb.Fatalf("natstest: %v", err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		_ = client.Shutdown(ctx)
	})
	return client
}

// accessOf returns what the options mean for others, and writes the file that clients need.
func (s *Server) accessOf(o *server.Options, set *settings) (access, error) {
	a := access{
		user: o.Username, password: o.Password, token: o.Authorization,
		leaves: net.JoinHostPort(o.LeafNode.Host, strconv.Itoa(o.LeafNode.Port)),
	}
	if set.err != nil || set.ca == nil {
		return a, set.err
	}
	a.caFile = filepath.Join(s.dir, "ca.pem")
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return a, err
	}
	return a, os.WriteFile(a.caFile, set.ca, 0o600)
}
