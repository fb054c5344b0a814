package natstest

import (
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Option changes how [RunServer], [RunCluster] and [Server.Restart] start a server.
// Options apply in the order given, so the last one wins.
type Option func(*settings)

// settings is what the options of a server add up to.
type settings struct {
	config []func(*server.Options)
	log    bool
	ca     []byte // of the server's certificate, in PEM
	err    error  // of an option
}

// WithConfig calls f with the server's options before each start, a restart included, so f may read
// variables that the test changes in between. All of nats-server's options may be set; what they
// hold before f is the package's default, in a cluster with ServerName, StoreDir and Cluster set.
//
// A Port of 0 or below stands for a free port, which the server keeps over a restart. In a cluster
// f is called for each server, and can tell them apart by ServerName: "n1", "n2" and so on; the
// host, port and routes of the cluster are not f's to change.
func WithConfig(f func(*server.Options)) Option {
	return func(s *settings) { s.config = append(s.config, f) }
}

// WithoutJetStream starts the server with core NATS only.
func WithoutJetStream() Option {
	return WithConfig(func(o *server.Options) { o.JetStream = false })
}

// WithUser makes the server demand this user and password from clients.
// [Server.URL] does not contain them.
func WithUser(user, password string) Option {
	return WithConfig(func(o *server.Options) { o.Username, o.Password = user, password })
}

// WithToken makes the server demand this token from clients. [Server.URL] does not contain it.
func WithToken(token string) Option {
	return WithConfig(func(o *server.Options) { o.Authorization = token })
}

// WithLog writes the server's log to the test's. It holds notices, warnings and errors; set Debug or
// Trace with [WithConfig] to see more. Without WithLog the server logs nothing.
func WithLog() Option {
	return func(s *settings) { s.log = true }
}

// Short enough for a test, long enough for a client to act on the notice before it is disconnected.
const (
	lameDuckDuration = time.Second
	lameDuckGrace    = 250 * time.Millisecond
)

func defaultOptions() *server.Options {
	return &server.Options{
		Host:                   "127.0.0.1",
		Port:                   server.RANDOM_PORT,
		NoLog:                  true,
		NoSigs:                 true,
		JetStream:              true,
		DisableJetStreamBanner: true,
		LameDuckDuration:       lameDuckDuration,
		LameDuckGracePeriod:    lameDuckGrace,
		LeafNode:               server.LeafNodeOpts{Host: "127.0.0.1"}, // see RunLeaf
	}
}
