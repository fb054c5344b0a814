package nats

import (
	"crypto/tls"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/auth"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consul"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/settings"
	subjects "github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/subject"
)

// Validate returns an [ErrInvalidConfig] that lists everything that cannot work, each with its YAML
// key. A zero field is valid, for it means the default. The files that the Config names must exist
// and be readable, and certificates and keys must parse and match. Nothing is sent.
func (c *Config) Validate() error { return c.problems().Err() }

func (c *Config) problems() settings.Problems {
	v := validator{c: c}
	if c == nil {
		v.Add("config", "must not be nil")
		return v.Problems
	}
	v.urls()
	v.names()
	v.numbers()
	v.durations()
	v.OneOf("publish_when_disconnected", c.PublishWhenDisconnected, whenDisconnectedBuffer, whenDisconnectedFail)
	v.OneOf("default_storage_type", c.DefaultStorageType, storageFile, storageMemory)
	v.Problems = append(v.Problems, settings.Contradictions(*c)...)
	v.authentication()
	v.tls()
	v.consul()
	return v.Problems
}

// validator collects the problems of one Config.
type validator struct {
	c *Config
	settings.Problems
}

func (v *validator) urls() {
	websocket := false
	for i, raw := range v.c.URLs {
		key := fmt.Sprintf("urls[%d]", i)
		u, err := serverurl.Parse(raw, websocket)
		if err != nil {
			v.Add(key, "%w, got %q", err, serverurl.Redact(raw))
			continue
		}
		if i == 0 {
			websocket = serverurl.IsWebsocket(u)
		} else if serverurl.IsWebsocket(u) != websocket {
			v.Add(key, "ws:// and wss:// cannot be mixed with nats:// and tls://, got %q", serverurl.Redact(raw))
		}
	}
}

func (v *validator) names() {
	for _, name := range []struct{ key, value string }{
		{"cluster_id", v.c.ClusterID},
		{"client_id", v.c.ClientID},
		{"service_name", v.c.ServiceName},
	} {
		if strings.ContainsFunc(name.value, unicode.IsControl) {
			v.Add(name.key, "must not contain control characters, got %q", name.value)
		}
		if len(name.value) > subjects.MaxName {
			v.Add(name.key, "must have at most %d bytes, got %d", subjects.MaxName, len(name.value))
		}
	}
	// The domain is one token of the subject $JS.<domain>.API.
	if strings.ContainsFunc(v.c.JetStreamDomain, func(r rune) bool {
		return unicode.IsControl(r) || unicode.IsSpace(r) || strings.ContainsRune(".*>", r)
	}) {
		v.Add("jetstream_domain", "must not contain spaces, control characters, '.', '*' or '>', got %q", v.c.JetStreamDomain)
	}
	v.prefix("jetstream_api_prefix", strings.TrimSuffix(v.c.JetStreamAPIPrefix, "."))
	v.prefix("inbox_prefix", v.c.InboxPrefix)
}

// prefix checks what subjects begin with.
func (v *validator) prefix(key, value string) {
	switch {
	case len(value) > subjects.MaxName: // all that begins with it must fit into a protocol line
		v.Add(key, "must have at most %d bytes, got %d", subjects.MaxName, len(value))
	case value != "" && subjects.Fault(value, false) != "":
		v.Add(key, "must be a subject's first tokens, without wildcards, spaces or empty tokens, got %q", value)
	}
}

func (v *validator) numbers() {
	v.Between("grpc_port", v.c.GRPCPort, 0, 65535)
	v.Between("max_reconnect", v.c.MaxReconnect, -1, 0)
	v.Between("reconnect_buffer_size", v.c.ReconnectBufferSize, -1, 0)
	v.Between("max_pings_out", v.c.MaxPingsOut, 0, 0)
	v.Between("max_control_line", v.c.MaxControlLine, 0, 0)
	v.Between("default_stream_replicas", v.c.DefaultStreamReplicas, 0, 5)
}

// durationMax keeps sums and doublings of durations far from an overflow.
const durationMax = 365 * 24 * time.Hour

func (v *validator) durations() {
	for key, d := range settings.Durations(*v.c) {
		switch {
		case d < 0:
			v.Add(key, "must not be negative, got %v", d)
		case d > durationMax:
			v.Add(key, "must be at most %v, got %v", durationMax, d)
		}
	}
	wait, maxWait := v.c.ReconnectWait, v.c.ReconnectMaxWait
	if maxWait > 0 && maxWait < wait {
		v.Add("reconnect_max_wait", "must not be below reconnect_wait (%v), got %v", wait, maxWait)
	}
}

func (v *validator) authentication() {
	auth.Read(v.c.keys(), &v.Problems)
	v.Needs("password", v.c.Password, "username", v.c.Username)
	v.Needs("password_file", v.c.PasswordFile, "username", v.c.Username)
}

func (v *validator) tls() {
	cert, key := v.c.TLSCert, v.c.TLSKey
	v.Needs("tls_cert", cert, "tls_key", key)
	v.Needs("tls_key", key, "tls_cert", cert)
	certPEM, keyPEM := v.File("tls_cert", cert), v.File("tls_key", key)
	if certPEM != nil && keyPEM != nil {
		if _, err := tls.X509KeyPair(certPEM, keyPEM); err != nil {
			v.Add("tls_cert", "must be a certificate in PEM that fits tls_key: %w", err)
		}
	}
	v.Authorities("tls_ca", v.c.TLSCA)
}

func (v *validator) consul() {
	c := v.c.Consul
	v.OneOf("consul.scheme", c.Scheme, "http", "https")
	if c.Address != "" && !consul.ValidAddress(c.Address) {
		v.Add("consul.address", `must be host and port such as "127.0.0.1:8500", or an http://, https:// or unix:// URL without user, got %q`,
			serverurl.Redact(c.Address))
	}
	v.Secret("consul.token", c.Token, c.TokenFile)
	v.Authorities("consul.ca_file", c.CAFile)
}

// keys returns those that say how to authenticate.
func (c *Config) keys() auth.Keys {
	return auth.Keys{
		Username: c.Username, Password: c.Password, PasswordFile: c.PasswordFile, Token: c.Token, TokenFile: c.TokenFile,
		NKeySeed: c.NKeySeed, NKeySeedFile: c.NKeySeedFile, Creds: c.Creds, CredsFile: c.CredsFile, URLs: c.URLs,
	}
}
