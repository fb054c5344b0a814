package natstest_test

import (
	"crypto/x509"
	"errors"
	"os"
	"testing"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// A client gets in whatever the server demands, also after a restart.
func TestConnect(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]natstest.Option{
		"plain":             nil,
		"a user":            {natstest.WithUser("u", "secret")},
		"a token":           {natstest.WithToken("secret")},
		"TLS":               {natstest.WithTLS()},
		"TLS and a user":    {natstest.WithUser("u", "secret"), natstest.WithTLS("nats.test")},
		"without JetStream": {natstest.WithoutJetStream()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := natstest.RunServer(t, opts...)
			client := natstest.Connect(t, s, nil)
			if err := client.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.Restart()
			eventually(t, "it is back", func() bool { return client.Ping(t.Context()) == nil })
			_, err := client.GetStream(t.Context(), "none")
			want := nats.ErrStreamNotFound
			if name == "without JetStream" {
				want = nats.ErrJetStreamDisabled
			}
			if !errors.Is(err, want) {
				t.Fatalf("%v, want %v", err, want)
			}
		})
	}
}

func TestConnectThroughProxy(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	proxy := natstest.NewProxy(t, s.URL())
	client := natstest.Connect(t, s, func(c *nats.Config) { c.URLs = []string{proxy.URL()} })
	proxy.Cut()
	eventually(t, "it is cut off", func() bool { return !client.IsConnected() })
}

// Who does not trust the authority does not get in, and the names are in the certificate.
func TestWithTLS(t *testing.T) {
	t.Parallel()
	c := natstest.RunCluster(t, 2, natstest.WithTLS("nats.test", "192.0.2.1"))
	for _, s := range c.Servers() {
		if _, err := natsgo.Connect(s.URL()); err == nil {
			t.Fatal("connected without the authority")
		}
		for _, name := range []string{"", "localhost", "nats.test"} {
			natstest.Connect(t, s, func(c *nats.Config) { c.TLSServerName = name })
		}
		pem, err := os.ReadFile(s.CAFile())
		if err != nil {
			t.Fatal(err)
		}
		if pool := x509.NewCertPool(); !pool.AppendCertsFromPEM(pem) {
			t.Fatalf("no certificate in %s", pem)
		}
	}
	if file := natstest.RunServer(t).CAFile(); file != "" {
		t.Fatalf("an authority without TLS: %s", file)
	}
}
