package nats_test

import (
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consultest"
)

func TestConsulResolverTransports(t *testing.T) {
	verifyNoLeak(t)
	consultest.ClearEnvironment(t)
	// Not t.TempDir: the path of a Unix socket has room for about 100 bytes.
	dir, err := os.MkdirTemp("", "consul")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	agent := consultest.Run(t, consultest.WithTLS(), consultest.WithSocket(socket))
	agent.Register(consultest.Instance{Service: "nats", Address: "10.0.0.1", Port: 4222})
	current := goleak.IgnoreCurrent()

	resolve(t, nats.ConsulConfig{Address: "unix://" + socket}, "nats")
	resolve(t, nats.ConsulConfig{Address: "https://" + agent.TLSAddress(), CAFile: agent.CAFile()}, "nats")
	resolve(t, nats.ConsulConfig{Address: agent.TLSAddress(), Scheme: "https", CAFile: agent.CAFile()}, "nats")

	err = resolveError(t, nats.ConsulConfig{Address: "https://" + agent.TLSAddress()}, "nats")
	var unknown x509.UnknownAuthorityError
	if !errors.As(err, &unknown) {
		t.Errorf("without the CA file: %v, want UnknownAuthorityError", err)
	}
	wantText(t, resolveError(t, nats.ConsulConfig{Address: "unix://" + socket + ".gone"}, "nats"), "no such file")

	// Here and not at the end: the agent's death would close idle connections for us.
	goleak.VerifyNone(t, current)
}

// A redirect must not carry the token to another host, as net/http would with a header it does not
// know to be secret.
func TestConsulResolverFollowsNoRedirect(t *testing.T) {
	verifyNoLeak(t)
	consultest.ClearEnvironment(t)
	const secret = "c0ffee00-secret"
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		t.Errorf("redirect followed, token %q", req.Header.Get("X-Consul-Token"))
	}))
	t.Cleanup(elsewhere.Close)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Location", elsewhere.URL)
		w.WriteHeader(http.StatusFound)
		_, _ = w.Write([]byte("moved, you with " + req.Header.Get("X-Consul-Token")))
	}))
	t.Cleanup(proxy.Close)

	err := resolveError(t, nats.ConsulConfig{Address: proxy.URL, Token: secret}, "nats")
	wantText(t, err, "302", "you with ***")
	wantNoSecret(t, secret, err.Error())
}
