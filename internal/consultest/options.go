package consultest

import (
	"fmt"
	"net"
	"strconv"

	"github.com/hashicorp/consul/api"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
)

// Option changes how an agent runs.
type Option func(*Agent)

// WithACL turns on access control: what no token allows is denied. ManagementToken may do
// everything, and CreateToken makes tokens that may do less.
func WithACL() Option { return func(a *Agent) { a.acl = true } }

// WithTLS adds an HTTPS port, at TLSAddress, with a certificate of CAFile's.
func WithTLS() Option {
	return func(a *Agent) {
		a.authority = conntest.NewAuthority(a.tb)
		a.authority.Issue(a.tb, nodeName, nil)
	}
}

// WithSocket makes the agent listen on the Unix socket path, too.
func WithSocket(path string) Option { return func(a *Agent) { a.socket = path } }

// Client returns upstream's client, with every permission.
func (a *Agent) Client() *api.Client { return a.client }

// ManagementToken returns the token that may do everything, "" without WithACL.
func (a *Agent) ManagementToken() string {
	if !a.acl {
		return ""
	}
	return managementToken
}

// TLSAddress returns the host and port of the HTTPS API. It needs WithTLS.
func (a *Agent) TLSAddress() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(a.ports.https))
}

// CAFile returns the PEM file of the authority that the HTTPS API's certificate is of. It needs WithTLS.
func (a *Agent) CAFile() string { return a.authority.Path("ca.pem") }

// config returns the agent's configuration file.
func (a *Agent) config() string {
	https, addresses := -1, "127.0.0.1"
	if a.authority != nil {
		https = a.ports.https
	}
	if a.socket != "" {
		addresses += " unix://" + a.socket
	}
	text := fmt.Sprintf(`
node_name            = %q
bind_addr            = "127.0.0.1"
client_addr          = "127.0.0.1"
disable_update_check = true
addresses {
  http = %q
}
ports {
  http     = %d
  https    = %d
  serf_lan = %d
  server   = %d
  serf_wan = -1
  dns      = -1
  grpc     = -1
}
`, nodeName, addresses, a.ports.http, https, a.ports.serf, a.ports.server)
	if a.authority != nil {
		text += fmt.Sprintf(`
tls {
  https {
    cert_file = %q
    key_file  = %q
  }
}
`, a.authority.Path(nodeName+".pem"), a.authority.Path(nodeName+"-key.pem"))
	}
	if a.acl {
		text += fmt.Sprintf(`
acl {
  enabled        = true
  default_policy = "deny"
  tokens {
    initial_management = %[1]q
    agent              = %[1]q
  }
}
`, managementToken)
	}
	return text
}
