package nats_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// authority is a certificate authority made for one test.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	last int64 // serial number
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.cert, a.key = a.issue(t, "ca", nil)
	return a
}

// issue writes NAME.pem and NAME-key.pem, signed by the authority or, without one yet, by itself.
func (a *authority) issue(t testing.TB, name string, change func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	a.last++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.last), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"nats.test"},
		BasicConstraintsValid: true, IsCA: a.cert == nil,
	}
	if change != nil {
		change(template)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	require.NoError(t, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	require.NoError(t, err)
	write := func(file, kind string, content []byte) {
		require.NoError(t, os.WriteFile(a.path(file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600))
	}
	write(name+".pem", "CERTIFICATE", der)
	write(name+"-key.pem", "EC PRIVATE KEY", keyDER)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert, key
}

func (a *authority) path(file string) string { return filepath.Join(a.dir, file) }

// demand makes a server present the certificate "server" and demand one of the authority's.
func (a *authority) demand(t testing.TB) natstest.Option {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(a.path("server.pem"), a.path("server-key.pem"))
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
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
	ca.issue(t, "server", nil)
	ca.issue(t, "client", nil)
	other.issue(t, "client", nil)
	s := natstest.RunServer(t, ca.demand(t))
	good := nats.Config{
		URLs: []string{s.URL()}, Timeout: 2 * time.Second,
		TLSCA: ca.path("ca.pem"), TLSCert: ca.path("client.pem"), TLSKey: ca.path("client-key.pem"),
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
		"wrong authority":       {func(c *nats.Config) { c.TLSCA = other.path("ca.pem") }, nil, false},
		"no client certificate": {func(c *nats.Config) { c.TLSCert, c.TLSKey = "", "" }, nil, false},
		"a stranger's certificate": {func(c *nats.Config) {
			c.TLSCert, c.TLSKey = other.path("client.pem"), other.path("client-key.pem")
		}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg := good
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
	ca.issue(t, "server", nil)
	ca.issue(t, "client", nil)
	s := natstest.RunServer(t, ca.demand(t))
	client := connect(t, s, func(c *nats.Config) {
		c.TLSCA, c.TLSCert, c.TLSKey = ca.path("ca.pem"), ca.path("client.pem"), ca.path("client-key.pem")
	})
	s.Stop()
	ca.cert = nil // another authority, and all certificates anew
	ca.cert, ca.key = ca.issue(t, "ca", nil)
	ca.issue(t, "server", nil)
	ca.issue(t, "client", nil)
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
	ca.issue(t, "server", nil)
	first, _ := ca.issue(t, "client", nil)
	var shown serials
	s := natstest.RunServer(t, ca.demand(t), shown.option())
	var log logBuffer
	client := connect(t, s, func(c *nats.Config) {
		c.TLSCA, c.TLSCert, c.TLSKey = ca.path("ca.pem"), ca.path("client.pem"), ca.path("client-key.pem")
		c.TLSReload = 10 * time.Millisecond
	}, nats.WithLogger(log.logger()))
	ctx := context.Background()
	var got atomic.Int64
	_, err := client.Subscribe(ctx, "x", func(*nats.Message) error { got.Add(1); return nil })
	require.NoError(t, err)
	assert.Equal(t, first.SerialNumber.Int64(), shown.last())
	reconnects := client.Stats().Reconnects

	old, err := os.ReadFile(ca.path("client.pem"))
	require.NoError(t, err)
	second, _ := ca.issue(t, "client", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(6 * 24 * time.Hour) })
	eventually(t, "the new certificate is shown", func() bool {
		return shown.last() == second.SerialNumber.Int64() && client.Stats().Reconnects > reconnects && client.IsConnected()
	})
	assert.Contains(t, log.String(), "the client's TLS certificate ends soon", "in six days")

	// Half a pair: the old certificate with the new key.
	reconnects = client.Stats().Reconnects
	require.NoError(t, os.WriteFile(ca.path("client.pem"), old, 0o600))
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
