package natstest

import (
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// leafReconnect is how soon a leaf node looks for its hub again.
const leafReconnect = 50 * time.Millisecond

// RunLeaf starts a server as from [RunServer] that is a leaf node of hub, with JetStream in a domain of its own, and
// returns when the clients of hub reach that. Clients of both hear each other. Hub may be any server of this package,
// one of a cluster too; give it a domain with [WithConfig] where clients of the leaf are to name it. The leaf logs in
// with what [WithUser] or [WithToken] say of hub; set the user of another account in o.LeafNode.Remotes.
//
// RunLeaf fails the test when the leaf does not start, or hub does not hear of it.
func RunLeaf(tb testing.TB, hub *Server, domain string, opts ...Option) *Server {
	tb.Helper()
	join := WithConfig(func(o *server.Options) {
		o.JetStreamDomain = domain
		o.LeafNode.ReconnectInterval = leafReconnect
		o.LeafNode.Remotes = []*server.RemoteLeafOpts{{URLs: []*url.URL{hub.leafURL()}}}
	})
	leaf := RunServer(tb, append([]Option{join}, opts...)...)
	api := "$JS." + domain + ".API.INFO"
	if !poll(startTimeout, func() bool { return isHeardOf(hub.Embedded(), api) }) {
		tb.Fatalf("natstest: the leaf with the domain %q did not join its hub within %v", domain, startTimeout)
	}
	return leaf
}

// leafURL is where leaf nodes join the server.
func (s *Server) leafURL() *url.URL {
	s.mu.RLock()
	defer s.mu.RUnlock()
	u := &url.URL{Scheme: "nats-leaf", Host: s.access.leaves}
	switch a := s.access; {
	case a.user != "":
		u.User = url.UserPassword(a.user, a.password)
	case a.token != "":
		u.User = url.User(a.token)
	}
	return u
}

// isHeardOf tells whether somebody answers for a subject in one of the server's accounts.
func isHeardOf(es *server.Server, subject string) bool {
	for _, name := range accounts(es) {
		if account, err := es.LookupAccount(name); err == nil && account.Interest(subject) > 0 {
			return true
		}
	}
	return false
}
