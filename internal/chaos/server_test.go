package chaos_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/chaos/check"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consultest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/freeport"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// serve is the process of a server with a configuration file. It obeys the signals that nats-server does.
func serve(file string) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR2, syscall.SIGHUP)
	options := func() (*server.Options, error) {
		o, err := server.ProcessConfigFile(file)
		if err == nil { // shorter than a file may say
			o.NoSigs, o.LameDuckDuration, o.LameDuckGracePeriod = true, 2*time.Second, 500*time.Millisecond
		}
		return o, err
	}
	o, err := options()
	if err != nil {
		return err
	}
	s, err := server.NewServer(o)
	if err != nil {
		return err
	}
	s.ConfigureLogger()
	s.Start()
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}()
	go func() {
		for got := range signals {
			switch got {
			case syscall.SIGTERM:
				s.Shutdown()
			case syscall.SIGUSR2:
				s.LameDuckShutdown()
			default:
				if o, err = options(); err == nil {
					err = s.ReloadOptions(o)
				}
				if err != nil {
					s.Errorf("reload: %v", err)
				}
			}
		}
	}()
	s.WaitForShutdown()
	return nil
}

// node is a server in a process of its own.
type node struct {
	name, conf string
	text       string // of its configuration, but for the users
	port       int
	away       bool // it does not run, or is stopped
	cmd        *exec.Cmd
	stdin      io.Closer
}

// The users: that of the driver and of leaf nodes, and that of workers, whose password and rights change.
const (
	driver     = "driver:driver"
	user       = "worker"
	everything = `publish: ">", subscribe: ">"`
)

func (n *node) url() string { return fmt.Sprint("nats://", driver, "@127.0.0.1:", n.port) }

// configure writes the configuration with the rights of workers.
func (n *node) configure(password, rights string) error {
	users := fmt.Sprintf(`authorization { users: [ { user: driver, password: driver }
  { user: %s, password: %q, permissions: { %s } } ] }`, user, password, rights)
	return os.WriteFile(n.conf, []byte(n.text+users), 0o600)
}

// start begins the process; clients find out when it listens.
func (n *node) start() error { return n.run(serverEnv, n.conf) }

func (n *node) run(role, spec string) error {
	cmd, err := process(role, spec)
	if err != nil {
		return err
	}
	if n.stdin, err = cmd.StdinPipe(); err != nil {
		return err
	}
	n.cmd = cmd
	return cmd.Start()
}

// signal sends it, and wait returns when the process has ended.
func (n *node) signal(s syscall.Signal) { _ = n.cmd.Process.Signal(s) }
func (n *node) wait()                   { _ = n.cmd.Wait() }

func (n *node) kill() {
	n.signal(syscall.SIGKILL)
	n.wait()
}

// topology is what servers there are, and how workers reach them.
type topology struct {
	nodes    []*node
	replicas int
	domain   string
	secret   string // the file with the workers' password, which is its content
	truth    *node  // whom to ask
	// urls are those of each worker; the domain is given to those that are elsewhere.
	urls    [][]string
	domains []string
	lines   [][]*natstest.Proxy // of each worker
	link    *natstest.Proxy     // between a leaf and its hub
	// authority is that of TLS, and agent where workers find their servers; a topology has one of them.
	authority *conntest.Authority
	agent     *consultest.Agent
	instances []consultest.Instance
}

const workers = 2

var topologies = map[string]func(testing.TB, string) *topology{
	"one":   func(tb testing.TB, dir string) *topology { return cluster(tb, dir, 1) },
	"three": func(tb testing.TB, dir string) *topology { return cluster(tb, dir, 3) },
	"leaf":  leaf,
}

// vary gives a topology TLS or Consul, and servers that wait for their disks, or not.
func (t *topology) vary(tb testing.TB, seed uint64) (kind string) {
	tb.Helper()
	if kind = "tls"; seed/3%2 == 0 {
		t.demandTLS(tb)
	} else {
		kind = "consul"
		t.runConsul(tb)
	}
	if seed/2%2 == 0 {
		kind += "+sync"
		for _, n := range t.nodes {
			n.text = strings.Replace(n.text, "jetstream {", "jetstream { sync_interval: always,", 1)
		}
	}
	return kind
}

// cluster is one server, or several that are one.
func cluster(tb testing.TB, dir string, size int) *topology {
	t := &topology{replicas: size, secret: filepath.Join(dir, "secret")}
	taken := freeport.For(tb, 2*size)
	var routes []string
	for _, port := range taken[size:] {
		routes = append(routes, fmt.Sprintf("nats-route://127.0.0.1:%d", port))
	}
	for i := range size {
		more := ""
		if size > 1 {
			more = fmt.Sprintf("cluster { name: chaos, listen: \"127.0.0.1:%d\", no_advertise: true, routes: [%s] }",
				taken[size+i], strings.Join(routes, ", "))
		}
		t.nodes = append(t.nodes, newNode(tb, dir, fmt.Sprint("n", i+1), taken[i], "", more))
	}
	t.truth = t.nodes[0]
	for i := range workers {
		t.connect(tb, append(t.nodes[i%size:size:size], t.nodes[:i%size]...), "")
	}
	return t
}

// leaf is a hub and a leaf node with a domain of its own, where everything is stored; a worker is at each.
func leaf(tb testing.TB, dir string) *topology {
	taken := freeport.For(tb, 3)
	t := &topology{replicas: 1, domain: "leaf", secret: filepath.Join(dir, "secret"), link: natstest.NewProxy(tb, fmt.Sprint("127.0.0.1:", taken[2]))}
	hub := newNode(tb, dir, "hub", taken[0], "hub", fmt.Sprintf("leafnodes { listen: \"127.0.0.1:%d\" }", taken[2]))
	remote := strings.Replace(t.link.URL(), "nats://", "nats-leaf://"+driver+"@", 1)
	edge := newNode(tb, dir, "leaf", taken[1], "leaf", fmt.Sprintf("leafnodes { reconnect: 1, remotes: [{ url: %q }] }", remote))
	t.nodes, t.truth = []*node{hub, edge}, edge
	t.connect(tb, []*node{edge}, "")
	t.connect(tb, []*node{hub}, "leaf")
	return t
}

// connect gives one more worker its lines.
func (t *topology) connect(tb testing.TB, to []*node, domain string) {
	var urls []string
	var lines []*natstest.Proxy
	for _, n := range to {
		p := natstest.NewProxy(tb, fmt.Sprint("127.0.0.1:", n.port))
		urls, lines = append(urls, p.URL()), append(lines, p)
	}
	t.urls, t.lines, t.domains = append(t.urls, urls), append(t.lines, lines), append(t.domains, domain)
}

func newNode(tb testing.TB, dir, name string, port int, domain, more string) *node {
	tb.Helper()
	n := &node{name: name, port: port, conf: filepath.Join(dir, name+".conf")}
	if domain != "" {
		domain = "domain: " + domain
	}
	n.text = fmt.Sprintf("server_name: %s\nlisten: \"127.0.0.1:%d\"\nlog_file: %q\njetstream { store_dir: %q\n%s }\n%s\n",
		name, port, filepath.Join(dir, name+".log"), filepath.Join(dir, name), domain, more)
	return n
}

// configure gives the workers another password, and rights, on all servers. It returns when those that run obey.
func (t *topology) configure(password, rights string) error {
	err := os.WriteFile(t.secret, []byte(password), 0o600)
	for _, n := range t.nodes {
		err = errors.Join(err, n.configure(password, rights))
		if n.cmd == nil {
			continue
		}
		if n.signal(syscall.SIGHUP); n.away {
			continue // it will
		}
		nc, failed := natsgo.Connect(fmt.Sprint("nats://127.0.0.1:", n.port), t.access(natsgo.UserInfo(user, password),
			natsgo.RetryOnFailedConnect(true), natsgo.IgnoreAuthErrorAbort(), natsgo.ReconnectWait(50*time.Millisecond), natsgo.MaxReconnects(-1))...)
		if failed == nil {
			for until := time.Now().Add(30 * time.Second); ; { // the server may end its connection in the middle of the change
				if failed = nc.FlushTimeout(2 * time.Second); failed == nil || time.Now().After(until) {
					break
				}
			}
			nc.Close()
		}
		err = errors.Join(err, failed)
	}
	return err
}

// start runs the servers and makes what the workers use, by nats.go alone.
func (t *topology) start(tb testing.TB) {
	tb.Helper()
	require.NoError(tb, t.configure("first", everything))
	for _, n := range t.nodes {
		require.NoError(tb, n.start())
		tb.Cleanup(func() {
			n.signal(syscall.SIGCONT)
			n.kill()
		})
	}
	require.NoError(tb, t.ask(time.Minute, func(ctx context.Context, js jetstream.JetStream) error {
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{
			Name: check.Orders, Subjects: []string{"orders.>"}, Replicas: t.replicas, AllowAtomicPublish: true, AllowDirect: true,
		})
		if err == nil {
			_, err = js.CreateOrUpdateConsumer(ctx, check.Orders, jetstream.ConsumerConfig{
				Durable: check.Consumer, AckPolicy: jetstream.AckExplicitPolicy, AckWait: 5 * time.Second,
			})
		}
		if err == nil {
			_, err = js.CreateStream(ctx, jetstream.StreamConfig{Name: check.Letters, Subjects: []string{"dlq.>"}, Replicas: t.replicas})
		}
		if err == nil {
			_, err = js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "keys", History: 64, Replicas: t.replicas})
		}
		if err == nil {
			_, err = js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
				Bucket: "locks", LimitMarkerTTL: time.Minute, Replicas: t.replicas,
			})
		}
		if err == nil {
			_, err = js.CreateOrUpdateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: "files", Replicas: t.replicas})
		}
		return err
	}))
}

// ask tries f over a plain connection to the servers until it succeeds.
func (t *topology) ask(patience time.Duration, f func(context.Context, jetstream.JetStream) error) error {
	var urls []string
	for _, n := range t.nodes {
		if t.domain == "" || n == t.truth {
			urls = append(urls, n.url())
		}
	}
	err := errors.New("not tried")
	for deadline := time.Now().Add(patience); err != nil && time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		var nc *natsgo.Conn
		if nc, err = natsgo.Connect(strings.Join(urls, ","), t.access(natsgo.NoReconnect())...); err != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience/2)
		var js jetstream.JetStream
		if js, err = jetstream.New(nc); err == nil {
			err = f(ctx, js)
		}
		cancel()
		nc.Close()
	}
	return err
}

// answered waits until the servers answer for all that they store, or long enough.
func (t *topology) answered() {
	_ = t.ask(30*time.Second, func(ctx context.Context, js jetstream.JetStream) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_, err := js.Consumer(ctx, check.Orders, check.Consumer)
		for _, stream := range []string{check.Orders, check.Letters, check.Keys, check.Locks, check.Objects} {
			if err == nil {
				_, err = js.Stream(ctx, stream)
			}
		}
		return err
	})
}

// leader returns the node that leads the stream, or any.
func (t *topology) leader(stream string) *node {
	found := t.truth
	_ = t.ask(2*time.Second, func(ctx context.Context, js jetstream.JetStream) error {
		s, err := js.Stream(ctx, stream)
		if err != nil || s.CachedInfo().Cluster == nil {
			return err
		}
		for _, n := range t.nodes {
			if n.name == s.CachedInfo().Cluster.Leader {
				found = n
			}
		}
		return nil
	})
	return found
}
