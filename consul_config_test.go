package nats_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consultest"
)

func wantNoSecret(t *testing.T, secret string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(text, secret) {
			t.Errorf("secret in %q", text)
		}
	}
}

func TestNewConsulResolverRefuses(t *testing.T) {
	consultest.ClearEnvironment(t)
	noPEM := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(noPEM, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		cfg  nats.ConsulConfig
		want string // in the error's text
	}{
		"no scheme separator":  {nats.ConsulConfig{Address: "http//consul:8500"}, `consul.address "http//consul:8500"`},
		"space":                {nats.ConsulConfig{Address: "con sul:8500"}, "host:port"},
		"leading space":        {nats.ConsulConfig{Address: " consul:8500"}, "host:port"},
		"no port":              {nats.ConsulConfig{Address: "consul"}, "host:port"},
		"empty port":           {nats.ConsulConfig{Address: "http://consul:"}, "host:port"},
		"no host":              {nats.ConsulConfig{Address: ":8500"}, "host:port"},
		"port 0":               {nats.ConsulConfig{Address: "consul:0"}, "host:port"},
		"large port":           {nats.ConsulConfig{Address: "consul:65536"}, "host:port"},
		"bare IPv6":            {nats.ConsulConfig{Address: "::1"}, "host:port"},
		"bare path":            {nats.ConsulConfig{Address: "consul:8500/v1"}, "host:port"},
		"query":                {nats.ConsulConfig{Address: "http://consul:8500?dc=1"}, "host:port"},
		"unknown URL scheme":   {nats.ConsulConfig{Address: "ftp://consul:8500"}, "host:port"},
		"relative socket":      {nats.ConsulConfig{Address: "unix://consul.sock"}, "unix:///path"},
		"user and password":    {nats.ConsulConfig{Address: "http://me:hidden@consul:8500"}, "***@consul:8500"},
		"password, bad port":   {nats.ConsulConfig{Address: "http://me:hid/hidden@consul:8500"}, "***@consul:8500"},
		"unknown scheme":       {nats.ConsulConfig{Scheme: "ftp"}, `consul.scheme "ftp"`},
		"contradicting scheme": {nats.ConsulConfig{Address: "http://consul:8500", Scheme: "https"}, "consul.scheme says https"},
		"socket with TLS":      {nats.ConsulConfig{Address: "unix:///consul.sock", Scheme: "https"}, "want http"},
		"two tokens":           {nats.ConsulConfig{Token: "hidden", TokenFile: "f"}, "exclude each other"},
		"no CA file":           {nats.ConsulConfig{Scheme: "https", CAFile: noPEM + ".missing"}, "ca.pem.missing"},
		"CA file without PEM":  {nats.ConsulConfig{Scheme: "https", CAFile: noPEM}, "ca.pem"},
		"CA file without TLS":  {nats.ConsulConfig{CAFile: noPEM}, "consul.scheme to https"},
		"negative timeout":     {nats.ConsulConfig{Timeout: -time.Second}, "consul.timeout"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			_, err := nats.NewConsulResolver(tc.cfg, "nats")
			if !errors.Is(err, nats.ErrInvalidConfig) {
				t.Fatalf("error %v, want ErrInvalidConfig", err)
			}
			wantText(t, err, tc.want)
			wantNoSecret(t, "hidden", err.Error())
		})
	}
}

func TestNewConsulResolverRefusesServiceName(t *testing.T) {
	consultest.ClearEnvironment(t)
	for _, service := range []string{"", " ", "..", "../../agent/self", "a b", "a\n"} {
		if _, err := nats.NewConsulResolver(nats.ConsulConfig{}, service); !errors.Is(err, nats.ErrInvalidArgument) {
			t.Errorf("service %q: error %v, want ErrInvalidArgument", service, err)
		}
	}
}

func TestNewConsulResolverRefusesEnvironment(t *testing.T) {
	consultest.ClearEnvironment(t)
	for name, value := range map[string]string{
		"CONSUL_HTTP_ADDR":       "http//consul:8500",
		"CONSUL_HTTP_SSL":        "on",
		"CONSUL_HTTP_SSL_VERIFY": "yes", // upstream would turn the verification off
		"CONSUL_CACERT":          "/does/not/exist.pem",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, value)
			_, err := nats.NewConsulResolver(nats.ConsulConfig{}, "nats")
			if !errors.Is(err, nats.ErrInvalidConfig) {
				t.Fatalf("error %v, want ErrInvalidConfig", err)
			}
		})
	}
}

func TestNewConsulResolverAccepts(t *testing.T) {
	consultest.ClearEnvironment(t)
	for _, cfg := range []nats.ConsulConfig{
		{},
		{Address: "consul:8500"},
		{Address: "[::1]:8500"},
		{Address: "http://consul:8500"},
		{Address: "http://proxy.example/consul/"},
		{Address: "https://consul:8501"},
		{Address: "HTTPS://consul:8501", Scheme: "https"},
		{Address: "consul:8501", Scheme: "https"},
		{Address: "unix:///run/consul.sock"},
		{TokenFile: "/not/there/yet"},
	} {
		if _, err := nats.NewConsulResolver(cfg, "nats"); err != nil {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}

func TestConsulTokenFileIsNamed(t *testing.T) {
	consultest.ClearEnvironment(t)
	gone := filepath.Join(t.TempDir(), "token")
	wantText(t, resolveError(t, nats.ConsulConfig{TokenFile: gone}, "nats"), "consul.token_file: open "+gone)
	t.Setenv("CONSUL_HTTP_TOKEN_FILE", gone)
	wantText(t, resolveError(t, nats.ConsulConfig{}, "nats"), "$CONSUL_HTTP_TOKEN_FILE: open "+gone)
}

func TestConsulResolverHidesItsToken(t *testing.T) {
	consultest.ClearEnvironment(t)
	const secret, password = "c0ffee00-secret", "basic-secret"
	t.Setenv("CONSUL_HTTP_AUTH", "user:"+password)
	r := newResolver(t, nats.ConsulConfig{Token: secret}, "nats")
	for _, v := range []any{r, *r, []any{r}, struct{ R *nats.ConsulResolver }{r}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			text := fmt.Sprintf(verb, v)
			wantNoSecret(t, secret, text)
			wantNoSecret(t, password, text)
		}
	}
}
