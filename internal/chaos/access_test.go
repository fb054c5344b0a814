package chaos_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consultest"
)

// demandTLS has the servers ask for certificates, and show their own.
func (t *topology) demandTLS(tb testing.TB) {
	tb.Helper()
	t.authority = conntest.NewAuthority(tb)
	path := t.authority.Path
	for _, name := range []string{"server", "worker", "driver"} {
		t.authority.Issue(tb, name, nil)
	}
	for _, n := range t.nodes {
		n.text += fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true, timeout: 10 }\n",
			path("server.pem"), path("server-key.pem"), path("ca.pem"))
	}
}

// certify gives the servers a certificate of somebody's, and workers one of theirs.
func (r *round) certify(by *conntest.Authority) (err error) {
	by.Issue(r.tb, "server", nil)
	if by == r.authority {
		by.Issue(r.tb, "worker", nil)
	}
	for _, file := range []string{"server.pem", "server-key.pem"} {
		text, failed := os.ReadFile(by.Path(file))
		err = errors.Join(err, failed, os.WriteFile(r.authority.Path(file), text, 0o600))
	}
	for _, n := range r.nodes {
		n.signal(syscall.SIGHUP)
	}
	return err
}

// access returns what the driver's own connections need, and more.
func (t *topology) access(more ...natsgo.Option) []natsgo.Option {
	if t.authority == nil {
		return more
	}
	pair, err := tls.LoadX509KeyPair(t.authority.Path("driver.pem"), t.authority.Path("driver-key.pem"))
	if err != nil {
		panic(err)
	}
	return append(more, natsgo.Secure(&tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true})) // whoever it is
}

// runConsul has the workers find their lines by an agent, each by a service of its own.
func (t *topology) runConsul(tb testing.TB) {
	tb.Helper()
	t.agent = consultest.Run(tb)
	for i, lines := range t.lines {
		for _, line := range lines {
			var port int
			_, err := fmt.Sscanf(line.URL(), "nats://127.0.0.1:%d", &port)
			require.NoError(tb, err)
			t.instances = append(t.instances, consultest.Instance{Service: service(i), ID: fmt.Sprint(port), Address: "127.0.0.1", Port: port})
		}
	}
	t.register()
}

func service(worker int) string { return fmt.Sprint("nats-w", worker+1) }

func (t *topology) register() {
	for _, instance := range t.instances {
		t.agent.Register(instance)
	}
}

// work of a process that writes to a disk and waits for it, until it is killed.
func churn(path string) error {
	file, err := os.Create(path)
	for block := make([]byte, 1<<20); err == nil; {
		if _, err = file.WriteAt(block, 0); err == nil {
			err = file.Sync()
		}
	}
	return err
}
