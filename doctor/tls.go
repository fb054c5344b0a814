package doctor

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/auth"
)

// encryption tells of the TLS of a connection, or without one, that it got past TLS.
func (x *examination) encryption(client *nats.Client) Finding {
	if client == nil {
		return unknown("nothing is wrong with it, if there is any")
	}
	state, err := client.TLSConnectionState()
	if err != nil {
		return unknown("there is none, for neither the server nor the configuration demands it")
	}
	leaf := state.PeerCertificates[0]
	if err := ending("the server's", leaf); err != nil {
		return failed(err, "have the server's certificate renewed")
	}
	if pair, err := tls.LoadX509KeyPair(x.cfg.TLSCert, x.cfg.TLSKey); err == nil {
		if err := ending("this client's", pair.Leaf); err != nil {
			return failed(err, "renew the certificate in tls_cert")
		}
	}
	return passed(fmt.Sprintf("%s, certificate for %s until %s", tls.VersionName(state.Version), named(leaf), leaf.NotAfter.Format(time.DateOnly)))
}

func ending(whose string, c *x509.Certificate) error {
	if left := time.Until(c.NotAfter); left < auth.EndsSoon {
		return fmt.Errorf("%s certificate ends in %v", whose, left.Round(time.Minute))
	}
	return nil
}

// named lists what a certificate is for.
func named(c *x509.Certificate) string {
	names := c.DNSNames
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	return list(names)
}

func tlsRemedy(err error) string {
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var authority x509.UnknownAuthorityError
	switch text := err.Error(); {
	case errors.As(err, &name):
		return "connect by a name that the certificate has, or give it in tls_server_name: " + named(name.Certificate)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "have the server's certificate renewed; if it has not ended, mend this machine's clock"
	case errors.As(err, &authority):
		return "give the authority that has signed the server's certificate in tls_ca"
	case errors.Is(err, natsgo.ErrSecureConnWanted):
		return "configure TLS on the server, or take tls:// and the tls_* keys out of the configuration"
	case strings.Contains(text, "first record does not look like"):
		return "set tls_handshake_first to false: the server does not begin with TLS"
	case strings.Contains(text, "remote error"), strings.Contains(text, "ended the connection"):
		return "give a valid certificate of this client, by an authority that the server knows, in tls_cert and tls_key"
	}
	return "see the server's log"
}
