package doctor_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
)

// authority is one for the servers and clients of a test.
type authority struct{ *conntest.Authority }

func newAuthority(t testing.TB) authority {
	t.Helper()
	return authority{conntest.NewAuthority(t)}
}

// demandClients makes a server demand a certificate of its clients.
func (a authority) demandClients(o *server.Options) {
	o.TLSVerify, o.TLSConfig.ClientAuth, o.TLSConfig.ClientCAs = true, tls.RequireAndVerifyClientCert, x509.NewCertPool()
	o.TLSConfig.ClientCAs.AddCert(a.Cert)
}
