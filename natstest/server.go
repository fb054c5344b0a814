package natstest

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/freeport"
)

const (
	startTimeout = time.Minute // generous: the machine may be busy with other tests
	portTimeout  = time.Minute // how long a restart waits for its port
	portAttempts = 10          // how many ports or sets of ports a first start tries
	pollInterval = 5 * time.Millisecond
)

// Server is a nats-server inside the test's process. Its methods may be called from several
// goroutines; those that can fail the test say so and belong on the test's own.
type Server struct {
	tb    testing.TB
	name  string // set in a cluster
	clean sync.Once

	life sync.Mutex     // held while the server starts or stops
	duck sync.WaitGroup // the goroutine of LameDuck

	mu       sync.RWMutex // guards what follows
	opts     []Option
	port     int // leased; unused when the test sets its own
	leafPort int // likewise
	dir      string
	cluster  server.ClusterOpts
	routes   []*url.URL
	embedded *server.Server
	log      *serverLog
	url      string
	access   access
}

// access is what others need to know of a server's options.
type access struct {
	user, password, token string
	caFile                string // "" without TLS
	leaves                string // where leaf nodes join
}

// RunServer starts a server with JetStream on a free port of 127.0.0.1, its store in a directory of
// the test, and returns when clients can use it. It is stopped when the test ends.
//
// RunServer fails the test when the server does not start.
func RunServer(tb testing.TB, opts ...Option) *Server {
	tb.Helper()
	s := &Server{tb: tb, opts: opts, dir: filepath.Join(tb.TempDir(), "jetstream")}
	tb.Cleanup(s.cleanup)
	for attempt := 1; ; attempt++ {
		err := s.lease()
		if err != nil {
			tb.Fatalf("natstest: %v", err)
		}
		if err = s.start(); err == nil {
			return s
		}
		s.release()
		if !isPortTaken(err) || attempt == portAttempts {
			tb.Fatalf("natstest: the server did not start: %v", err)
		}
	}
}

// lease takes the ports of the server.
func (s *Server) lease() (err error) {
	if s.port, err = freeport.Lease(); err == nil {
		s.leafPort, err = freeport.Lease()
	}
	return err
}

// release gives them back.
func (s *Server) release() {
	for _, port := range []int{s.port, s.leafPort, s.cluster.Port} {
		freeport.Release(port)
	}
	s.port, s.leafPort = 0, 0
}

// URL returns the address for clients, as "nats://127.0.0.1:12345", or with the scheme "tls" when the
// server has a TLSConfig. It is the same before and after a stop or restart, and holds no credentials.
func (s *Server) URL() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.url
}

// Name returns the server's name: "n1", "n2" and so on in a cluster, else what [WithConfig] set, or
// the random one that nats-server chose.
func (s *Server) Name() string { return s.Embedded().Name() }

// Embedded returns the nats-server itself, for what this package does not offer. A restart replaces
// it, so do not keep it. It is never nil, but it may have been shut down: see its Running method.
func (s *Server) Embedded() *server.Server {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.embedded
}

// Stop shuts the server down and waits until it is gone. Clients are disconnected, the lead of
// clustered streams is handed over, and the store is complete on disk. A server in lame-duck mode
// is stopped at once. Stopping a stopped server does nothing.
func (s *Server) Stop() {
	s.life.Lock()
	defer s.life.Unlock()
	s.stop()
}

func (s *Server) stop() {
	es := s.Embedded()
	if es == nil {
		return
	}
	es.Shutdown()
	es.WaitForShutdown()
	s.duck.Wait()
}

// Restart starts the server again on the same port, with the same store and options; opts are added
// to them for good. A running server is stopped first. A server of a cluster is up when it accepts
// connections; what it takes for its streams to be usable is the business of [Cluster.WaitReady].
//
// Restart fails the test when the server does not start, or when another process holds its port.
func (s *Server) Restart(opts ...Option) {
	s.tb.Helper()
	s.life.Lock()
	defer s.life.Unlock()
	s.stop()

	s.mu.Lock()
	s.opts = append(s.opts[:len(s.opts):len(s.opts)], opts...)
	s.mu.Unlock()

	deadline := time.Now().Add(portTimeout)
	for {
		err := s.start()
		if err == nil {
			return
		}
		if !isPortTaken(err) {
			s.tb.Fatalf("natstest: the server did not restart: %v", err)
		}
		if time.Now().After(deadline) {
			s.tb.Fatalf("natstest: the server did not restart: something else listened on its port for %v: %v",
				portTimeout, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// LameDuck puts the server into lame-duck mode and returns without waiting: the server stops to
// accept connections, tells its clients, disconnects them one by one and shuts down. Clients have a
// quarter of a second before the first is disconnected, and after a second all are; LameDuckGracePeriod
// and LameDuckDuration change that, see [WithConfig]. JetStream is off from the start.
//
// [Server.Stop] cuts it short. To wait for the end, use the WaitForShutdown method of [Server.Embedded].
func (s *Server) LameDuck() {
	s.life.Lock()
	defer s.life.Unlock()
	s.duck.Go(s.Embedded().LameDuckShutdown)
}

// start runs a new nats-server and returns when it accepts connections. The caller holds s.life, or
// is the only one to know s.
func (s *Server) start() error {
	o, set := s.options()
	access, err := s.accessOf(o, set)
	if err != nil {
		return err
	}
	es, err := server.NewServer(o)
	if err != nil {
		return fmt.Errorf("invalid options: %w", err)
	}
	log := &serverLog{name: es.Name()}
	if set.log {
		log.tb = s.tb
	}
	es.SetLoggerV2(log, o.Debug, o.Trace, o.TraceVerbose)
	if err := run(es, log, o.JetStream); err != nil {
		es.Shutdown()
		es.WaitForShutdown()
		log.detach()
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.embedded, s.log, s.url, s.access = es, log, es.ClientURL(), access
	return nil
}

// run starts es and waits for its listeners.
func run(es *server.Server, log *serverLog, jetStream bool) error {
	started := make(chan struct{})
	go func() {
		defer close(started)
		es.Start() // returns when it listens for clients, or has given up
	}()
	select {
	case <-started:
	case <-time.After(startTimeout):
		return fmt.Errorf("not ready for connections after %v", startTimeout)
	}
	// The route listener opens on another goroutine, and can fail there.
	var failure error
	up := poll(startTimeout, func() bool {
		failure = log.failure()
		return failure != nil || es.ReadyForConnections(time.Millisecond)
	})
	switch {
	case failure != nil:
		return failure
	case !up:
		return fmt.Errorf("not ready for connections after %v", startTimeout)
	case jetStream && !es.JetStreamEnabled():
		return errors.New("JetStream is not enabled")
	}
	return nil
}

// options are the server's for its next start: defaults, then the test's, then what must not change.
func (s *Server) options() (*server.Options, *settings) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	o, set := defaultOptions(), &settings{}
	o.StoreDir = s.dir
	o.ServerName = s.name
	o.Cluster = s.cluster
	for _, opt := range s.opts {
		opt(set)
	}
	for _, f := range set.config {
		f(o)
	}
	if o.Port <= 0 {
		o.Port = s.port
	}
	if o.LeafNode.Port <= 0 {
		o.LeafNode.Port = s.leafPort
	}
	if s.routes != nil {
		o.Cluster.Host, o.Cluster.Port = s.cluster.Host, s.cluster.Port
		o.Routes = s.routes
	}
	return o, set
}

// cleanup stops the server for good and gives back what it held.
func (s *Server) cleanup() {
	s.clean.Do(func() {
		s.Stop()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.log != nil {
			s.log.detach()
		}
		s.release()
		// The test removes its directory only once, and fails if a late write of the server gets in between.
		poll(startTimeout, func() bool { return os.RemoveAll(s.dir) == nil })
	})
}

// poll calls cond until it returns true, and reports whether it did so in time.
func poll(timeout time.Duration, cond func() bool) bool {
	for deadline := time.Now().Add(timeout); !cond(); time.Sleep(pollInterval) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// isPortTaken reports whether a start failed because the server could not listen.
func isPortTaken(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "listen"
}
