package nats

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/consul"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/settings"
)

// Config tells how to reach the NATS servers and how the client behaves. A zero field means its
// default, so that &Config{URLs: urls} is complete. NewClient copies the Config, then fills in the
// defaults and validates: the caller's value is never changed or kept.
//
// The YAML keys are the field names in snake case ("urls", "cluster_id", "tls_ca"), and every key
// has an environment variable: ISA_CLOUD_NATS_ and the key in capitals, as in
// ISA_CLOUD_NATS_TLS_CA or, for a key of the consul block, ISA_CLOUD_NATS_CONSUL_ADDRESS.
//
// Printing a Config or a *Config with fmt, slog, JSON, XML, YAML or gob shows "***" for every secret.
// Only what asks for no method shows them: fmt in an unexported field of another struct, of a Config with
// every verb, of a *Config with those that are not for pointers, such as %s; fmt with %p and %w, which vet
// refuses; and encoders that are told to inline a Config. A struct that keeps one and may be printed needs
// a Format method of its own; what [Client.Config] returns is blanked and safe anywhere.
type Config struct {
	// URLs of the servers, tried in random order: nats://, tls://, ws:// or wss://, host and port, and
	// for ws:// and wss:// a path and a query. A tls:// or wss:// among them demands TLS of every server.
	// A user in a URL authenticates to that server: "user:password@" or "token@".
	// Defaults to nats://localhost:4222.
	URLs []string `yaml:"urls" secret:"url" choice:"authentication:urls"`
	// ClusterID names the event bus this client belongs to. It becomes part of the connection name
	// and is otherwise informational.
	ClusterID string `yaml:"cluster_id"`
	// ClientID is the connection name that the server's monitoring shows. Defaults to the name of
	// the running program.
	ClientID string `yaml:"client_id"`

	// UseConsul looks up the servers in Consul before dialling; URLs is then the fallback.
	UseConsul bool `yaml:"use_consul"`
	// ServiceName is the NATS service's name in Consul. Defaults to "nats-service".
	ServiceName string `yaml:"service_name"`
	// GRPCPort is the port of the platform's gRPC gateway, which may be registered under the same
	// service name: an instance on this port that names no NATS address is skipped. Defaults to
	// 50056.
	GRPCPort int `yaml:"grpc_port"`
	// Consul tells how to reach the Consul agent.
	Consul ConsulConfig `yaml:"consul"`

	// MaxReconnect is how many times in a row each server is tried after the connection is lost;
	// -1 means for ever. Defaults to -1, since a service that stops reconnecting needs a person.
	// Zero is the default and not "never": 1 is the least.
	MaxReconnect int `yaml:"max_reconnect"`
	// ReconnectWait is the pause before the second attempt to reach a server. Defaults to 2 s,
	// or ReconnectMaxWait if that is shorter.
	ReconnectWait time.Duration `yaml:"reconnect_wait"`
	// ReconnectMaxWait bounds the pauses, which grow with every failed round. Defaults to 30 s, or
	// ReconnectWait if that is longer.
	ReconnectMaxWait time.Duration `yaml:"reconnect_max_wait"`
	// ReconnectBufferSize is how many bytes of publishes are kept while disconnected; -1 keeps
	// none. Defaults to 8 MiB. The memory of a client that reconnects is twice that for a moment; while
	// connected it holds 1 MiB of what is published and not sent, and one message on top.
	ReconnectBufferSize int `yaml:"reconnect_buffer_size"`
	// PublishWhenDisconnected is "buffer" (publishes while disconnected go to the reconnect buffer)
	// or "fail" (they return ErrNotConnected at once). Defaults to "buffer".
	PublishWhenDisconnected string `yaml:"publish_when_disconnected"`
	// Timeout bounds NewClient as a whole, from discovery to the server's welcome. Defaults to 10 s.
	Timeout time.Duration `yaml:"timeout"`
	// DialTimeout is how long one address of a server may take for each step of connecting, longer
	// where the step before has shown that it is far away; the next one is tried after it. What is left
	// of Timeout cuts it. Defaults to 2 s.
	DialTimeout time.Duration `yaml:"dial_timeout"`
	// RequestTimeout bounds every call whose context has no deadline, and requests with timeout 0.
	// Defaults to 5 s.
	RequestTimeout time.Duration `yaml:"request_timeout"`
	// DrainTimeout bounds Close. Defaults to 30 s.
	DrainTimeout time.Duration `yaml:"drain_timeout"`
	// PingInterval is how often an idle connection is probed. Defaults to 2 min.
	PingInterval time.Duration `yaml:"ping_interval"`
	// MaxPingsOut is how many probes may be unanswered before the connection counts as broken.
	// Defaults to 2.
	MaxPingsOut int `yaml:"max_pings_out"`
	// MaxControlLine is how many bytes the servers take for a protocol line, as their own
	// max_control_line says: subject, reply subject, queue group and sizes. What is longer is refused
	// before it is sent, for a server ends the connection over it. Defaults to 4096.
	MaxControlLine int `yaml:"max_control_line"`
	// InboxPrefix begins the subjects that answers come on, for accounts that permit no client to
	// listen on those of the others. Defaults to "_INBOX".
	InboxPrefix string `yaml:"inbox_prefix"`

	// JetStreamEnabled allows the JetStream, key-value and object store calls; when false they
	// return ErrJetStreamDisabled. It is false in a literal that leaves it out, and true in
	// DefaultConfig and LoadConfig.
	JetStreamEnabled bool `yaml:"jetstream_enabled"`
	// JetStreamDomain addresses the JetStream of another domain, such as a leaf node's.
	JetStreamDomain string `yaml:"jetstream_domain" choice:"JetStream API:domain"`
	// JetStreamAPIPrefix begins the subjects of the JetStream API, in the place of "$JS.API", where an
	// account imports that of another under a prefix. It excludes JetStreamDomain.
	JetStreamAPIPrefix string `yaml:"jetstream_api_prefix" choice:"JetStream API:prefix"`
	// DefaultStreamReplicas is used by streams and buckets that leave their replicas at zero, 1 to
	// 5. Zero leaves the choice to the server (1).
	DefaultStreamReplicas int `yaml:"default_stream_replicas"`
	// DefaultStorageType is "file" or "memory", for streams and buckets whose storage is the zero
	// value (file). Defaults to "file".
	DefaultStorageType string `yaml:"default_storage_type"`

	// Username and Password authenticate by password. PasswordFile names a file that holds the
	// password and is read at every connect; it excludes Password.
	Username     string `yaml:"username" choice:"authentication:password"`
	Password     string `yaml:"password" secret:"true" choice:"authentication:password"`
	PasswordFile string `yaml:"password_file" choice:"authentication:password"`
	// Token authenticates by token. TokenFile names a file that holds it and is read at every
	// connect; it excludes Token.
	Token     string `yaml:"token" secret:"true" choice:"authentication:token"`
	TokenFile string `yaml:"token_file" choice:"authentication:token"`
	// NKeySeed authenticates by the NKey of this seed ("SU..."). NKeySeedFile names a file that
	// holds it and is read at every connect; it excludes NKeySeed.
	NKeySeed     string `yaml:"nkey_seed" secret:"true" choice:"authentication:nkey"`
	NKeySeedFile string `yaml:"nkey_seed_file" choice:"authentication:nkey"`
	// Creds is the content of a .creds file (JWT and NKey seed). CredsFile names such a file, which is
	// read at every connect; it excludes Creds.
	Creds     string `yaml:"creds" secret:"true" choice:"authentication:creds"`
	CredsFile string `yaml:"creds_file" choice:"authentication:creds"`

	// TLSEnabled demands TLS. It is implied by the tls:// and wss:// schemes and by any other TLS key.
	TLSEnabled bool `yaml:"tls_enabled"`
	// TLSCert and TLSKey name the PEM files of the client's certificate and key, given together.
	TLSCert string `yaml:"tls_cert"`
	TLSKey  string `yaml:"tls_key"`
	// TLSCA names the PEM file of the authorities that the server's certificate is checked against.
	// Defaults to the system's.
	TLSCA string `yaml:"tls_ca"`
	// TLSServerName is the name that the server's certificate must carry. Defaults to the host of
	// the URL.
	TLSServerName string `yaml:"tls_server_name"`
	// TLSReload is how often the TLS files are looked at; when they changed, the client reconnects
	// to use them. Zero means not at all: new files are used at the next reconnect.
	TLSReload time.Duration `yaml:"tls_reload"`
	// TLSHandshakeFirst starts TLS before the server's greeting, for servers that demand it.
	TLSHandshakeFirst bool `yaml:"tls_handshake_first"`
}

// ConsulConfig tells how to reach Consul. The zero value is the local agent, with whatever the
// CONSUL_HTTP_* variables of Consul's own tools say.
type ConsulConfig struct {
	// Address is the agent's host and port, or a URL: http://, https:// or unix://. Defaults to $CONSUL_HTTP_ADDR, then localhost:8500.
	Address string `yaml:"address" secret:"url"`
	// Scheme is "http" or "https". Defaults to $CONSUL_HTTP_SSL, then "http".
	Scheme string `yaml:"scheme"`
	// Token is the ACL token. TokenFile names a file that holds it; it excludes Token.
	Token     string `yaml:"token" secret:"true"`
	TokenFile string `yaml:"token_file"`
	// Datacenter and Namespace narrow the query. Namespace needs Consul Enterprise.
	Datacenter string `yaml:"datacenter"`
	Namespace  string `yaml:"namespace"`
	// Tag keeps only the instances that carry it.
	Tag string `yaml:"tag"`
	// Near sorts the instances by round-trip time from this node; "_agent" means the agent's own.
	Near string `yaml:"near"`
	// Timeout bounds one query. Defaults to 2 s.
	Timeout time.Duration `yaml:"timeout"`
	// Evict leaves a server at once, without losing what was published, when it is deregistered or
	// critical. Otherwise it is left at the next reconnect.
	Evict bool `yaml:"evict"`
	// CAFile names the PEM file of the authorities that the agent's certificate is checked against.
	CAFile string `yaml:"ca_file"`
}

const (
	defaultURL                 = "nats://localhost:4222"
	defaultServiceName         = "nats-service"
	defaultGRPCPort            = 50056
	defaultMaxReconnect        = -1
	defaultReconnectWait       = 2 * time.Second
	defaultReconnectMaxWait    = 30 * time.Second
	defaultReconnectBufferSize = 8 << 20
	defaultTimeout             = 10 * time.Second
	defaultDialTimeout         = 2 * time.Second
	defaultRequestTimeout      = 5 * time.Second
	defaultDrainTimeout        = 30 * time.Second
	defaultPingInterval        = 2 * time.Minute
	defaultMaxPingsOut         = 2
	defaultMaxControlLine      = 4096
	defaultInboxPrefix         = "_INBOX"

	whenDisconnectedBuffer = "buffer"
	whenDisconnectedFail   = "fail"

	storageFile   = "file"
	storageMemory = "memory"
)

// DefaultConfig returns a Config with every default filled in and JetStream enabled. Consul's
// address and scheme stay empty, for their defaults depend on the environment of the query.
func DefaultConfig() *Config {
	c := Config{JetStreamEnabled: true}.withDefaults()
	return &c
}

// LoadConfig returns the defaults, overridden by the file at path, overridden by the environment,
// and validated. With an empty path the file is $ISA_CLOUD_NATS_CONFIG, or else the first that
// exists of ./configs/sdk/nats.yaml, ../configs/sdk/nats.yaml, /etc/isa_cloud/nats.yaml and
// ./nats.yaml, or else none. A file that was asked for and does not exist is an error.
//
// Every key of the file has its environment variable, see [Config]. In a variable a list is split
// at commas, a boolean is what [strconv.ParseBool] takes, white space around the value is no part of
// it, and an empty variable is not set. Of keys that exclude each other, that of the environment wins
// over that of the file: a token there replaces a token_file or creds here, and a user in the urls.
// A missing key of the file leaves the default, as does one without a value or, but for secrets, null,
// and a zero or empty value means it.
//
// Unknown keys and variables, keys given twice, wrong values and everything that
// [Config.Validate] finds are reported together in one error, an [ErrInvalidConfig]. Each is named
// by its file, line and key or by its variable; secrets are never quoted.
func LoadConfig(path string) (*Config, error) {
	c := Config{JetStreamEnabled: true}
	loaded := settings.Load(&c, path)
	// Last, because a default may depend on other keys, and a zero that is given means the default.
	c = c.withDefaults()
	loaded.Report(c.problems())
	if err := loaded.Err(); err != nil {
		return nil, err
	}
	return &c, nil
}

// UnmarshalYAML reads a Config that is a block of another file, as [LoadConfig] reads its own file: unknown
// keys and wrong values are reported together, each with its line. What the block does not name stays.
func (c *Config) UnmarshalYAML(decode func(any) error) error { return settings.Decode(c, decode) }

// UnmarshalYAML reads a ConsulConfig that is a block of another file.
func (c *ConsulConfig) UnmarshalYAML(decode func(any) error) error { return settings.Decode(c, decode) }

// withDefaults returns a copy that shares nothing with the receiver and whose zero fields hold
// their defaults. Booleans stay as they are: false cannot be told from unset.
func (c Config) withDefaults() Config {
	c = c.clone()
	if len(c.URLs) == 0 {
		c.URLs = []string{defaultURL}
	}
	for i, raw := range c.URLs {
		c.URLs[i] = serverurl.Normal(raw)
	}
	c.ClientID = cmp.Or(c.ClientID, programName())

	c.ServiceName = cmp.Or(c.ServiceName, defaultServiceName)
	c.GRPCPort = cmp.Or(c.GRPCPort, defaultGRPCPort)
	c.Consul.Timeout = cmp.Or(c.Consul.Timeout, consul.DefaultTimeout)

	c.MaxReconnect = cmp.Or(c.MaxReconnect, defaultMaxReconnect)
	// A bound that is given is never broken by a default: one wait follows the other.
	if c.ReconnectWait == 0 {
		c.ReconnectWait = min(defaultReconnectWait, cmp.Or(c.ReconnectMaxWait, defaultReconnectWait))
	}
	c.ReconnectMaxWait = cmp.Or(c.ReconnectMaxWait, max(defaultReconnectMaxWait, c.ReconnectWait))
	c.ReconnectBufferSize = cmp.Or(c.ReconnectBufferSize, defaultReconnectBufferSize)
	c.PublishWhenDisconnected = cmp.Or(c.PublishWhenDisconnected, whenDisconnectedBuffer)
	c.Timeout = cmp.Or(c.Timeout, defaultTimeout)
	c.DialTimeout = cmp.Or(c.DialTimeout, defaultDialTimeout)
	c.RequestTimeout = cmp.Or(c.RequestTimeout, defaultRequestTimeout)
	c.DrainTimeout = cmp.Or(c.DrainTimeout, defaultDrainTimeout)
	c.PingInterval = cmp.Or(c.PingInterval, defaultPingInterval)
	c.MaxPingsOut = cmp.Or(c.MaxPingsOut, defaultMaxPingsOut)
	c.MaxControlLine = cmp.Or(c.MaxControlLine, defaultMaxControlLine)
	c.InboxPrefix = cmp.Or(c.InboxPrefix, defaultInboxPrefix)
	c.DefaultStorageType = cmp.Or(c.DefaultStorageType, storageFile)
	return c
}

// clone returns a copy that shares no memory with the receiver.
func (c Config) clone() Config {
	c.URLs = slices.Clone(c.URLs)
	return c
}

// programName is empty when the program was started without arguments of any kind.
func programName() string {
	if len(os.Args) == 0 || os.Args[0] == "" {
		return ""
	}
	return filepath.Base(os.Args[0])
}

// The types without methods are what the printing methods below print, so as not to call themselves.
type (
	plainConfig       Config
	plainConsulConfig ConsulConfig
)

func (c Config) shown() settings.Shown       { return settings.Show(plainConfig(c)) }
func (c ConsulConfig) shown() settings.Shown { return settings.Show(plainConsulConfig(c)) }

// String lists the keys that are set, secrets as "***".
func (c Config) String() string { return c.shown().String() }

// GoString is the Go literal, secrets as "***".
func (c Config) GoString() string { return c.shown().GoString() }

// Format prints String, or GoString for %#v, so that no verb prints a secret.
func (c Config) Format(s fmt.State, verb rune) { c.shown().Format(s, verb) }

// LogValue is a group of the keys that are set, secrets as "***".
func (c Config) LogValue() slog.Value { return c.shown().LogValue() }

// MarshalJSON is for showing: the keys are those of the YAML file, secrets are "***".
func (c Config) MarshalJSON() ([]byte, error) { return c.shown().MarshalJSON() }

// MarshalYAML is for showing: [LoadConfig] reads the result, but secrets are "***".
func (c Config) MarshalYAML() (any, error) { return c.shown().MarshalYAML() }

// MarshalText is String, for XML and whoever else asks for a text.
func (c Config) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// GobEncode is String: a Config is shown to others, and does not travel with its secrets.
func (c Config) GobEncode() ([]byte, error) { return []byte(c.String()), nil }

// String lists the keys that are set, secrets as "***".
func (c ConsulConfig) String() string { return c.shown().String() }

// GoString is the Go literal, secrets as "***".
func (c ConsulConfig) GoString() string { return c.shown().GoString() }

// Format prints String, or GoString for %#v, so that no verb prints a secret.
func (c ConsulConfig) Format(s fmt.State, verb rune) { c.shown().Format(s, verb) }

// LogValue is a group of the keys that are set, secrets as "***".
func (c ConsulConfig) LogValue() slog.Value { return c.shown().LogValue() }

// MarshalJSON is for showing: the keys are those of the YAML file, secrets are "***".
func (c ConsulConfig) MarshalJSON() ([]byte, error) { return c.shown().MarshalJSON() }

// MarshalYAML is for showing: secrets are "***".
func (c ConsulConfig) MarshalYAML() (any, error) { return c.shown().MarshalYAML() }

// MarshalText is String, for XML and whoever else asks for a text.
func (c ConsulConfig) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// GobEncode is String: a ConsulConfig is shown to others, and does not travel with its secrets.
func (c ConsulConfig) GobEncode() ([]byte, error) { return []byte(c.String()), nil }

// redacted returns a copy that shares no memory with the receiver and holds no secret.
func (c Config) redacted() Config {
	c = c.clone()
	settings.Redact(&c)
	return c
}
