package natstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// WithTLS makes the server demand TLS from clients, with a certificate for 127.0.0.1, localhost and the hosts given,
// which are names or addresses. Clients have to trust [Server.CAFile], as those of [Connect] do. The certificate is
// valid for an hour. For mutual TLS set TLSVerify, and ClientCAs in TLSConfig, with a [WithConfig] that follows.
func WithTLS(hosts ...string) Option {
	pair, ca, err := certificate(append([]string{"127.0.0.1", "localhost"}, hosts...))
	return func(s *settings) {
		s.ca, s.err = ca, err
		s.config = append(s.config, func(o *server.Options) {
			o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
			o.TLSTimeout = 10 // seconds: the machine may be busy
		})
	}
}

// CAFile returns a file with the authority of the server's certificate, as Config.TLSCA takes it; "" without [WithTLS].
func (s *Server) CAFile() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.access.caFile
}

// certificate returns one that is its own authority, and that in PEM.
func certificate(hosts []string) (pair tls.Certificate, ca []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return pair, nil, fmt.Errorf("a key for the certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "natstest"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA:        true, BasicConstraintsValid: true,
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return pair, nil, fmt.Errorf("a certificate for %q: %w", hosts, err)
	}
	pair = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return pair, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
