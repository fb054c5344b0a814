package natstest

import (
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/freeport"
)

const (
	// An election without a candidate takes up to nine seconds, and two can be lost in a row.
	clusterTimeout = 60 * time.Second
	// A new cluster holds its first election within a second, but about one in ten splits the vote and
	// waits up to nine for the next. As there is nothing to lose yet, starting anew is faster.
	firstElection  = 2 * time.Second
	firstElections = 3
)

// Cluster is a group of servers in the test's process, connected to each other. Its methods may be
// called from several goroutines; those that can fail the test say so and belong on the test's own.
type Cluster struct {
	tb      testing.TB
	servers []*Server
}

// RunCluster starts n servers, at least two, as one cluster with JetStream, each with a port and a
// store as from [RunServer], and returns when a stream with n replicas can be created. All are
// stopped when the test ends. The options apply to every server.
//
// RunCluster fails the test when the servers do not start or do not find each other.
func RunCluster(tb testing.TB, n int, opts ...Option) *Cluster {
	tb.Helper()
	if n < 2 {
		tb.Fatalf("natstest: a cluster needs at least 2 servers, not %d; use RunServer for one", n)
	}
	dir := tb.TempDir()
	for attempt := 1; ; attempt++ {
		c, err := startCluster(tb, n, filepath.Join(dir, strconv.Itoa(attempt)), opts)
		tb.Cleanup(c.cleanup)
		switch {
		case err != nil && (!isPortTaken(err) || attempt == portAttempts):
			tb.Fatalf("natstest: the cluster did not start: %v", err)
		case err == nil && (attempt >= firstElections || poll(firstElection, c.ready)):
			c.WaitReady()
			return c
		}
		// Every server knows the ports of all others, so one lost port means new ones for all.
		c.cleanup()
	}
}

// startCluster returns the servers it made even when it fails, for the caller to clean up.
func startCluster(tb testing.TB, n int, dir string, opts []Option) (*Cluster, error) {
	c := &Cluster{tb: tb}
	var routes []*url.URL
	for i := range n {
		name := "n" + strconv.Itoa(i+1)
		s := &Server{tb: tb, name: name, opts: opts, dir: filepath.Join(dir, name)}
		c.servers = append(c.servers, s)
		if err := s.lease(); err != nil {
			return c, err
		}
		s.cluster = server.ClusterOpts{Name: "natstest", Host: "127.0.0.1"}
		// One plain connection between two servers instead of several compressed ones: it is set up
		// sooner, and a test has no use for the difference.
		s.cluster.PoolSize = -1
		s.cluster.Compression.Mode = server.CompressionOff
		port, err := freeport.Lease()
		if err != nil {
			return c, err
		}
		s.cluster.Port = port
		host := net.JoinHostPort(s.cluster.Host, strconv.Itoa(s.cluster.Port))
		routes = append(routes, &url.URL{Scheme: "nats-route", Host: host})
	}
	for _, s := range c.servers {
		// The number of routes, with that to itself, is how a server knows the size of the first election.
		s.routes = routes
	}
	// One after the other, so that each finds all before it listening: a refused route is tried again
	// only after a second, and of two servers that dial each other at once both can hang up.
	for _, s := range c.servers {
		if err := s.start(); err != nil {
			return c, fmt.Errorf("server %s: %w", s.name, err)
		}
	}
	return c, nil
}

// Servers returns the servers, stopped ones included, always in the same order.
func (c *Cluster) Servers() []*Server { return slices.Clone(c.servers) }

// URLs returns the client address of each server, in the order of [Cluster.Servers].
func (c *Cluster) URLs() []string {
	urls := make([]string, len(c.servers))
	for i, s := range c.servers {
		urls[i] = s.URL()
	}
	return urls
}

// Stop shuts all servers down at the same time, as [Server.Stop] does, and waits until they are gone.
// To bring the cluster back, restart each server and call [Cluster.WaitReady].
func (c *Cluster) Stop() { c.each((*Server).Stop) }

func (c *Cluster) cleanup() { c.each((*Server).cleanup) }

func (c *Cluster) each(f func(*Server)) {
	var wg sync.WaitGroup
	for _, s := range c.servers {
		wg.Go(func() { f(s) })
	}
	wg.Wait()
}

// Leader returns the server that leads the stream now, or nil when none does: the stream does not
// exist, or an election is on. A key-value bucket b is the stream "KV_b", an object bucket "OBJ_b".
// When several accounts have a stream of that name it is the leader of one of them.
func (c *Cluster) Leader(stream string) *Server {
	s, _ := c.leader(stream)
	return s
}

// leader returns the account of the stream as well.
func (c *Cluster) leader(stream string) (*Server, string) {
	for _, s := range c.servers {
		es := s.Embedded()
		if es == nil || !es.Running() {
			continue
		}
		for _, account := range accounts(es) {
			if es.JetStreamIsClustered() && es.JetStreamIsStreamLeader(account, stream) {
				return s, account
			}
		}
	}
	return nil, ""
}

// WaitLeader waits until a running server leads the stream, and returns it.
//
// WaitLeader fails the test when there is none within a minute.
func (c *Cluster) WaitLeader(stream string) *Server {
	c.tb.Helper()
	var s *Server
	if !poll(clusterTimeout, func() bool { s = c.Leader(stream); return s != nil }) {
		c.tb.Fatalf("natstest: no server leads the stream %q after %v; does it exist?", stream, clusterTimeout)
	}
	return s
}

// StepDown makes the leader of the stream give up its lead, waits until another server leads, and
// returns that one. The stream needs more than one replica.
//
// StepDown fails the test when there is no other leader within a minute.
func (c *Cluster) StepDown(stream string) *Server {
	c.tb.Helper()
	old := c.WaitLeader(stream)
	var (
		next  *Server
		asked time.Time
	)
	if !poll(clusterTimeout, func() bool {
		var account string
		next, account = c.leader(stream)
		// The old leader may be elected again; then it is asked again.
		if next == old && time.Since(asked) > time.Second {
			asked = time.Now()
			_ = old.Embedded().JetStreamStepdownStream(account, stream)
		}
		return next != nil && next != old
	}) {
		c.tb.Fatalf("natstest: no server but %s led the stream %q within %v; has it more than one replica?",
			old.Name(), stream, clusterTimeout)
	}
	return next
}
