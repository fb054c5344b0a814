package nats_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// authority is one for the servers and clients of a test.
type authority struct{ *conntest.Authority }

func newAuthority(t testing.TB) authority {
	t.Helper()
	return authority{conntest.NewAuthority(t)}
}

// demand makes a server present the certificate "server" and demand one of the authority's.
func (a authority) demand(t testing.TB) natstest.Option {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(a.Path("server.pem"), a.Path("server-key.pem"))
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(a.Cert)
	return natstest.WithConfig(func(o *server.Options) {
		o.TLSConfig = &tls.Config{
			MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair},
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
		}
		o.TLSVerify, o.TLSTimeout = true, 5
	})
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	ca.Issue(t, "server", nil)
	ca.Issue(t, "client", nil)
	other.Issue(t, "client", nil)
	s := natstest.RunServer(t, ca.demand(t))
	good := nats.Config{
		URLs: []string{s.URL()}, Timeout: 2 * time.Second,
		TLSCA: ca.Path("ca.pem"), TLSCert: ca.Path("client.pem"), TLSKey: ca.Path("client-key.pem"),
	}
	for name, c := range map[string]struct {
		change func(*nats.Config)
		opts   []nats.Option
		works  bool
	}{
		"all files":             {func(*nats.Config) {}, nil, true},
		"server name":           {func(c *nats.Config) { c.TLSServerName = "nats.test" }, nil, true},
		"own tls.Config":        {func(*nats.Config) {}, []nats.Option{nats.WithTLSConfig(&tls.Config{MinVersion: tls.VersionTLS13})}, true},
		"wrong server name":     {func(c *nats.Config) { c.TLSServerName = "other.test" }, nil, false},
		"wrong authority":       {func(c *nats.Config) { c.TLSCA = other.Path("ca.pem") }, nil, false},
		"no client certificate": {func(c *nats.Config) { c.TLSCert, c.TLSKey = "", "" }, nil, false},
		"a stranger's certificate": {func(c *nats.Config) {
			c.TLSCert, c.TLSKey = other.Path("client.pem"), other.Path("client-key.pem")
		}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := good
			if c.works {
				cfg.Timeout = patience
			}
			c.change(&cfg)
			client, err := nats.NewClient(&cfg, c.opts...)
			if !c.works {
				require.ErrorIs(t, err, nats.ErrNotConnected)
				return
			}
			require.NoError(t, err)
			state, err := client.TLSConnectionState()
			require.NoError(t, err)
			assert.GreaterOrEqual(t, state.Version, uint16(tls.VersionTLS12))
			require.NoError(t, client.Ping(context.Background()))
			require.NoError(t, client.Close())
		})
	}
}

// With upstream's fixed tls.Config the client would be stuck for ever.
func TestRenewedCertificatesAreUsedAtTheNextConnect(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	ca.Issue(t, "server", nil)
	ca.Issue(t, "client", nil)
	s := natstest.RunServer(t, ca.demand(t))
	client := connect(t, s, func(c *nats.Config) {
		c.TLSCA, c.TLSCert, c.TLSKey = ca.Path("ca.pem"), ca.Path("client.pem"), ca.Path("client-key.pem")
	})
	s.Stop()
	ca.Renew(t) // and all certificates anew
	ca.Issue(t, "server", nil)
	ca.Issue(t, "client", nil)
	s.Restart(ca.demand(t))
	eventually(t, "reconnected", client.IsConnected)
}

// serials collects the serial numbers of the certificates that clients show to a server.
type serials struct {
	mu   sync.Mutex
	seen []int64
}

func (s *serials) last() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.seen) == 0 {
		return 0
	}
	return s.seen[len(s.seen)-1]
}

func (s *serials) option() natstest.Option {
	return natstest.WithConfig(func(o *server.Options) {
		o.TLSConfig.VerifyConnection = func(state tls.ConnectionState) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.seen = append(s.seen, state.PeerCertificates[0].SerialNumber.Int64())
			return nil
		}
	})
}

func TestTLSReload(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	ca.Issue(t, "server", nil)
	first, _ := ca.Issue(t, "client", nil)
	var shown serials
	s := natstest.RunServer(t, ca.demand(t), shown.option())
	var log logBuffer
	client := connect(t, s, func(c *nats.Config) {
		c.TLSCA, c.TLSCert, c.TLSKey = ca.Path("ca.pem"), ca.Path("client.pem"), ca.Path("client-key.pem")
		c.TLSReload = 10 * time.Millisecond
	}, nats.WithLogger(log.logger()))
	ctx := context.Background()
	var got atomic.Int64
	_, err := client.Subscribe(ctx, "x", func(*nats.Message) error { got.Add(1); return nil })
	require.NoError(t, err)
	assert.Equal(t, first.SerialNumber.Int64(), shown.last())
	reconnects := client.Stats().Reconnects

	old, err := os.ReadFile(ca.Path("client.pem"))
	require.NoError(t, err)
	second, _ := ca.Issue(t, "client", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(6 * 24 * time.Hour) })
	eventually(t, "the new certificate is shown", func() bool {
		return shown.last() == second.SerialNumber.Int64() && client.Stats().Reconnects > reconnects && client.IsConnected()
	})
	assert.Contains(t, log.String(), "the client's TLS certificate ends soon", "in six days")

	// Half a pair: the old certificate with the new key.
	reconnects = client.Stats().Reconnects
	require.NoError(t, os.WriteFile(ca.Path("client.pem"), old, 0o600))
	eventually(t, "a warning", func() bool { return strings.Contains(log.String(), "the TLS files are unusable") })
	s.Restart()
	eventually(t, "reconnected with the last good pair", func() bool {
		return client.Stats().Reconnects > reconnects && client.IsConnected()
	})
	assert.Equal(t, second.SerialNumber.Int64(), shown.last())
	require.NoError(t, client.Publish(ctx, "x", nil))
	eventually(t, "the subscription lives", func() bool { return got.Load() == 1 })
}

// A scheme means the same in capitals, and one tls:// demands TLS of every server.
func TestSchemeInCapitalsDemandsTLS(t *testing.T) {
	t.Parallel()
	plain := natstest.RunServer(t, natstest.WithoutJetStream(), natstest.WithUser("user", "secret"))
	for _, url := range []string{"tls://127.0.0.1:1", "TLS://127.0.0.1:1", "Tls://user:secret@127.0.0.1:1"} {
		client, err := nats.NewClient(&nats.Config{URLs: []string{url}, Timeout: time.Second}, nats.WithResolver(fixedServers{plain.URL()}))
		if !assert.Error(t, err, "the password went over the line in plain text") {
			_ = client.Close()
		}
	}
}
