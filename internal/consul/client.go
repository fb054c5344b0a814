package consul

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

// newClient builds the API client that cfg and the environment ask for, and the source of its
// ACL token. Nothing is sent.
func newClient(cfg Config) (*api.Client, func() (string, error), error) {
	if cfg.Timeout < 0 {
		return nil, nil, fmt.Errorf("consul.timeout %s is negative", cfg.Timeout)
	}
	if cfg.Token != "" && cfg.TokenFile != "" {
		return nil, nil, errors.New("consul.token and consul.token_file exclude each other")
	}
	if err := checkEnvironment(); err != nil {
		return nil, nil, err
	}
	// Not pooled: queries are seldom, and an idle connection would outlive a resolver that has no Close.
	conf := api.DefaultNonPooledConfig()
	conf.Transport.DialContext = dialWith(&net.Dialer{Timeout: cfg.Timeout})
	conf.Transport.TLSHandshakeTimeout = cfg.Timeout

	if err := setAddress(conf, cfg); err != nil {
		return nil, nil, err
	}
	if cfg.CAFile != "" {
		if conf.Scheme != "https" {
			return nil, nil, errors.New("consul.ca_file is given but the scheme is http: set consul.scheme to https")
		}
		conf.TLSConfig.CAFile = cfg.CAFile
	}
	httpClient, err := api.NewHttpClient(conf.Transport, conf.TLSConfig)
	if err != nil {
		return nil, nil, fmt.Errorf("consul TLS: %w", err)
	}
	httpClient.Transport = boundedTransport{httpClient.Transport}
	// Consul's API never redirects, and a redirect would carry the ACL token to another host.
	httpClient.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	conf.HttpClient = httpClient

	token := tokenSource(cfg, conf)
	// The token is set for each query. Left to itself, NewClient would read $CONSUL_HTTP_TOKEN_FILE
	// now and never again; a file that is named and empty leaves the client without a token.
	conf.Token, conf.TokenFile = "", os.DevNull
	client, err := api.NewClient(conf)
	if err != nil {
		return nil, nil, fmt.Errorf("consul: %w", err)
	}
	return client, token, nil
}

// maxAnswer is how much of an answer is read: whatever answers must not exhaust the memory.
const maxAnswer = 8 << 20

// boundedTransport makes reading more than maxAnswer an error.
type boundedTransport struct{ http.RoundTripper }

func (t boundedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx := req.Context()
	resp, err := t.RoundTripper.RoundTrip(req.WithContext(context.WithValue(ctx, requestKey{}, ctx)))
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	}
	return resp, err
}

// requestKey is the key of a request's context in the one that its connection is made under.
type requestKey struct{}

// dialWith dials for as long as the request lasts that wants the connection: the transport would go on.
func dialWith(d *net.Dialer) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if request, ok := ctx.Value(requestKey{}).(context.Context); ok {
			ctx = request
		}
		return d.DialContext(ctx, network, address)
	}
}

// checkEnvironment refuses the values that upstream misreads: any $CONSUL_HTTP_SSL_VERIFY that
// is no boolean, such as "yes", would turn the verification off.
func checkEnvironment() error {
	for _, name := range []string{api.HTTPSSLEnvName, api.HTTPSSLVerifyEnvName} {
		value := os.Getenv(name)
		if value == "" {
			continue
		}
		if _, err := strconv.ParseBool(value); err != nil {
			return fmt.Errorf("$%s is %q, want true or false", name, value)
		}
	}
	return nil
}

// tokenSource returns the source of the ACL token: cfg's, else the environment's.
func tokenSource(cfg Config, env *api.Config) func() (string, error) {
	key, token, file := "consul.token_file", cfg.Token, cfg.TokenFile
	if token == "" && file == "" {
		key, token, file = "$"+api.HTTPTokenFileEnvName, env.Token, env.TokenFile
	}
	if file == "" {
		return func() (string, error) { return token, nil }
	}
	return func() (string, error) {
		data, err := os.ReadFile(file)
		token := strings.TrimSpace(string(data))
		if err == nil && token == "" {
			err = fmt.Errorf("%q is empty", file)
		}
		if err != nil {
			return "", fmt.Errorf("%s: %w", key, err)
		}
		return token, nil
	}
}

// setAddress sets conf's scheme, address and transport from cfg, else from the environment's
// values that stand in conf already.
func setAddress(conf *api.Config, cfg Config) error {
	key, address := "consul.address", cfg.Address
	if address == "" {
		key, address = "$"+api.HTTPAddrEnvName, conf.Address
	}
	switch cfg.Scheme {
	case "":
	case "http", "https":
		conf.Scheme = cfg.Scheme
	default:
		return fmt.Errorf("consul.scheme %q is not http or https", cfg.Scheme)
	}

	if path, ok := strings.CutPrefix(address, "unix://"); ok && path != "" && path[0] == '/' {
		return setSocket(conf, key, path, cfg.Timeout)
	}
	u, hasScheme := parseAddress(address, conf.Scheme)
	if u == nil {
		return fmt.Errorf("%s %q is not host:port, http://host:port, https://host:port or unix:///path",
			key, serverurl.Redact(address))
	}
	if hasScheme && cfg.Scheme != "" && cfg.Scheme != u.Scheme {
		return fmt.Errorf("%s says %s and consul.scheme says %s", key, u.Scheme, cfg.Scheme)
	}
	if u.Scheme == "https" { // http:// does not undo $CONSUL_HTTP_SSL, as with Consul's own tools
		conf.Scheme = u.Scheme
	}
	conf.Address = u.Host
	conf.PathPrefix = strings.TrimSuffix(u.Path, "/")
	return nil
}

// ValidAddress tells whether address is one of Consul's: host and port, or an http://, https:// or
// unix:// URL.
func ValidAddress(address string) bool {
	if path, ok := strings.CutPrefix(address, "unix://"); ok {
		return strings.HasPrefix(path, "/")
	}
	u, _ := parseAddress(address, "http")
	return u != nil
}

// parseAddress returns nil for what is no address. The error of url.Parse is left out because it quotes
// the address, which may hold a password.
func parseAddress(address, scheme string) (u *url.URL, hasScheme bool) {
	hasScheme = strings.Contains(address, "://")
	if !hasScheme {
		address = scheme + "://" + address
	}
	u, err := url.Parse(address)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https",
		u.Hostname() == "", u.User != nil, u.RawQuery != "", u.Fragment != "",
		!serverurl.ValidPort(u.Port()), strings.HasSuffix(u.Host, ":"),
		!hasScheme && (u.Port() == "" || u.Path != ""):
		return nil, hasScheme
	}
	return u, hasScheme
}

// setSocket makes conf dial a Unix socket. Upstream's own way of doing so disregards contexts.
func setSocket(conf *api.Config, key, path string, timeout time.Duration) error {
	if conf.Scheme != "http" {
		return fmt.Errorf("%s is a Unix socket and the scheme is %s, want http", key, conf.Scheme)
	}
	dial := dialWith(&net.Dialer{Timeout: timeout})
	conf.Address = "localhost"
	conf.Transport.Proxy = nil
	conf.Transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dial(ctx, "unix", path)
	}
	return nil
}
