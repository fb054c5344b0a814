package consultest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/freeport"
)

const (
	nodeName = "agent"
	// managementToken is what every agent with ACLs accepts for everything.
	managementToken = "5f0c7a52-6f0e-4c7b-9a41-2a1d0b7c9e11"

	startTimeout = time.Minute // generous: the machine may be busy with other tests
	pollInterval = 20 * time.Millisecond
	// attempts is how often a start is tried with other ports: a free port may be taken between
	// finding it and the agent's listening on it.
	attempts = 3
)

// Agent is a running Consul agent. Its methods end the test when they fail, so they belong on the
// test's own goroutine.
type Agent struct {
	tb        testing.TB
	binary    string
	dir       string
	acl       bool
	authority *conntest.Authority // of the HTTPS API; nil without one
	socket    string              // "" for none
	ports     ports
	client    *api.Client
	process   *process // nil while stopped
}

type ports struct{ http, https, serf, server int }

// process is one run of the binary.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
}

// Run starts an agent and waits until it has elected itself and serves its own registration. The
// agent ends with the test. Where there is no Consul binary the test is skipped, and fails when the
// environment has CI=true.
func Run(tb testing.TB, opts ...Option) *Agent {
	tb.Helper()
	a := &Agent{tb: tb, binary: findBinary(tb), dir: tb.TempDir()}
	for _, opt := range opts {
		opt(a)
	}
	tb.Cleanup(a.Stop)

	var err error
	for range attempts {
		leased := freeport.For(tb, 4)
		a.ports = ports{http: leased[0], https: leased[1], serf: leased[2], server: leased[3]}
		if err = a.start(); err == nil || !errors.Is(err, errExited) {
			break
		}
	}
	if err != nil {
		tb.Fatalf("consultest: %v\n%s", err, a.logTail())
	}
	return a
}

// Address returns the host and port of the agent's HTTP API.
func (a *Agent) Address() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(a.ports.http))
}

// Stop kills the agent, as an outage would. It may be called again.
func (a *Agent) Stop() {
	if a.process == nil {
		return
	}
	_ = a.process.cmd.Process.Kill() // fails only when the process has ended already
	<-a.process.done
	a.process = nil
}

// Signal sends the agent's process a signal, such as SIGSTOP.
func (a *Agent) Signal(s os.Signal) { _ = a.process.cmd.Process.Signal(s) } // fails only when it has ended

// Restart stops the agent if it runs and starts it again on the same ports. Its memory is empty
// then: instances and tokens have to be registered anew.
func (a *Agent) Restart() {
	a.tb.Helper()
	a.Stop()
	err := a.start()
	for deadline := time.Now().Add(startTimeout); errors.Is(err, errExited) && time.Now().Before(deadline); err = a.start() {
		time.Sleep(pollInterval) // another process may have had a port for a moment
	}
	if err != nil {
		a.tb.Fatalf("consultest: restart: %v\n%s", err, a.logTail())
	}
}

// errExited is the error of a start whose agent ended by itself, most likely for want of a port.
var errExited = errors.New("agent exited")

func (a *Agent) start() error {
	config := filepath.Join(a.dir, "agent.hcl")
	if err := os.WriteFile(config, []byte(a.config()), 0o600); err != nil {
		return err
	}
	log, err := os.OpenFile(a.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the agent has its own descriptor

	cmd := exec.Command(a.binary, "agent", "-dev", "-config-file", config)
	cmd.Dir, cmd.Stdout, cmd.Stderr = a.dir, log, log
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + a.dir} // no CONSUL_* variable of the developer's
	if err := cmd.Start(); err != nil {
		return err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // killed, or its log tells why it ended
	}()
	a.process = p

	if a.client, err = a.newClient(); err == nil {
		err = a.waitReady(p)
	}
	if err != nil {
		a.Stop()
	}
	return err
}

// newClient returns a client that leaves no connection behind and heeds no CONSUL_* variable that
// tells where the agent is or who asks.
func (a *Agent) newClient() (*api.Client, error) {
	conf := api.DefaultNonPooledConfig()
	conf.Address, conf.Scheme, conf.HttpAuth = a.Address(), "http", nil
	conf.Token, conf.TokenFile = a.ManagementToken(), os.DevNull
	conf.HttpClient = &http.Client{Transport: conf.Transport, Timeout: startTimeout}
	conf.Transport.Proxy = nil
	return api.NewClient(conf)
}

// waitReady waits until the agent leads and its node passes its health check, since before that
// registrations are refused or queries answered from an empty catalog.
func (a *Agent) waitReady(p *process) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := a.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return errExited
		case <-ctx.Done():
			return fmt.Errorf("not ready within %s: %w", startTimeout, err)
		case <-tick.C:
		}
	}
}

func (a *Agent) ready(ctx context.Context) error {
	checks, _, err := a.client.Health().Node(nodeName, (&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return err // "No cluster leader", too, is an error here
	}
	if len(checks) == 0 || checks.AggregatedStatus() != api.HealthPassing {
		return errors.New("the agent's node is not healthy yet")
	}
	return nil
}

func (a *Agent) logFile() string { return filepath.Join(a.dir, "agent.log") }

// logTail returns the end of the agent's log.
func (a *Agent) logTail() string {
	const limit = 4000
	data, err := os.ReadFile(a.logFile())
	if err != nil {
		return err.Error()
	}
	if len(data) > limit {
		data = data[len(data)-limit:]
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	return "agent log:\n" + string(data)
}

// findBinary returns the path of the consul binary: the module's own .bin/consul, else $PATH's.
func findBinary(tb testing.TB) string {
	tb.Helper()
	if root, err := moduleRoot(); err == nil {
		if path := filepath.Join(root, ".bin", "consul"); isExecutable(path) {
			return path
		}
	}
	if path, err := exec.LookPath("consul"); err == nil {
		return path
	}
	const text = "no consul binary in .bin or $PATH; build it with: make consul"
	if os.Getenv("CI") == "true" {
		tb.Fatal(text)
	}
	tb.Skip(text)
	return ""
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = parent
	}
}

// ClearEnvironment unsets, for the test, the CONSUL_* variables that Consul's own tools read, so that a
// developer's settings cannot change what a resolver does.
func ClearEnvironment(tb testing.TB) {
	tb.Helper()
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "CONSUL_") {
			tb.Setenv(name, "") // upstream takes empty for unset; Setenv restores the value
		}
	}
}
