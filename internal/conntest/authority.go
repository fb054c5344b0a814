package conntest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Authority is a certificate authority made for one test. Its own certificate is in ca.pem.
type Authority struct {
	Cert *x509.Certificate

	key  *ecdsa.PrivateKey
	dir  string
	last int64 // serial number
}

// NewAuthority returns an authority with a directory of its own.
func NewAuthority(tb testing.TB) *Authority {
	tb.Helper()
	a := &Authority{dir: tb.TempDir()}
	a.Renew(tb)
	return a
}

// Renew makes it another authority, of the same files.
func (a *Authority) Renew(tb testing.TB) {
	tb.Helper()
	a.Cert = nil
	a.Cert, a.key = a.Issue(tb, "ca", nil)
}

// Issue writes NAME.pem and NAME-key.pem, signed by the authority or, without one yet, by itself. Change, when it is
// not nil, may change the certificate, which is one for 127.0.0.1 and nats.test, of servers and of clients.
func (a *Authority) Issue(tb testing.TB, name string, change func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(tb, err)
	a.last++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.last), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(30 * 24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"nats.test"},
		BasicConstraintsValid: true, IsCA: a.Cert == nil,
	}
	if change != nil {
		change(template)
	}
	parent, signer := a.Cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	require.NoError(tb, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	require.NoError(tb, err)
	write := func(file, kind string, content []byte) {
		require.NoError(tb, os.WriteFile(a.Path(file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600))
	}
	write(name+".pem", "CERTIFICATE", der)
	write(name+"-key.pem", "EC PRIVATE KEY", keyDER)
	cert, err := x509.ParseCertificate(der)
	require.NoError(tb, err)
	return cert, key
}

// Path returns the path of one of the files.
func (a *Authority) Path(file string) string { return filepath.Join(a.dir, file) }
