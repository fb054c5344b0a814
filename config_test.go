package nats_test

import (
	"io/fs"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
)

func TestDefaultConfig(t *testing.T) {
	t.Parallel()
	c := nats.DefaultConfig()
	require.NoError(t, c.Validate())
	require.NotEmpty(t, c.ClientID)
	c.ClientID = ""
	require.Equal(t, &nats.Config{
		URLs: []string{"nats://localhost:4222"}, ServiceName: "nats-service", GRPCPort: 50056,
		Consul:       nats.ConsulConfig{Timeout: 2 * time.Second},
		MaxReconnect: -1, ReconnectWait: 2 * time.Second, ReconnectMaxWait: 30 * time.Second,
		ReconnectBufferSize: 8388608, PublishWhenDisconnected: "buffer", Timeout: 10 * time.Second,
		DialTimeout: 2 * time.Second, MaxControlLine: 4096, InboxPrefix: "_INBOX",
		RequestTimeout: 5 * time.Second, DrainTimeout: 30 * time.Second, PingInterval: 2 * time.Minute,
		MaxPingsOut: 2, JetStreamEnabled: true, DefaultStorageType: "file",
	}, c)
	c.URLs[0] = "changed"
	require.NotEqual(t, c.URLs, nats.DefaultConfig().URLs, "each call makes its own")
}

// A value of another type could neither be loaded nor be copied: a further slice, map or pointer must be
// copied by clone, which this reminds of.
func TestConfigHoldsOnlyWhatCanBeLoadedAndCopied(t *testing.T) {
	t.Parallel()
	keysOf(reflect.ValueOf(nats.Config{}), "", func(key string, _ reflect.StructField, v reflect.Value) {
		switch v.Interface().(type) {
		case string, bool, int, time.Duration:
		case []string:
			require.Equal(t, "urls", key)
		default:
			t.Errorf("%s is a %s", key, v.Type())
		}
	})
}

// certificate writes a self-signed certificate and its key, and returns their paths.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	authority := conntest.NewAuthority(t)
	return authority.Path("ca.pem"), authority.Path("ca-key.pem")
}

func seed(t *testing.T, create func() (nkeys.KeyPair, error)) string {
	t.Helper()
	pair, err := create()
	require.NoError(t, err)
	text, err := pair.Seed()
	require.NoError(t, err)
	return string(text)
}

func TestValidateAccepts(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	secret := filepath.Join(t.TempDir(), "secret")
	writeFile(t, secret, "hunter2")
	keys := filepath.Join(t.TempDir(), "keys")
	writeFile(t, keys, "-----BEGIN NATS USER JWT-----\neyJ.a.b\n------END NATS USER JWT------\n"+seed(t, nkeys.CreateUser))
	for name, c := range map[string]nats.Config{
		"zero":               {},
		"every scheme":       {URLs: []string{"nats://a:1", "tls://b", "NATS://c:65535/", "d", "e:4222", "[::1]:4222", "nats://[::1]"}},
		"websocket":          {URLs: []string{"ws://a", "wss://b:443/path", "c:80", "WS://d/path?x=y"}},
		"URL with user":      {URLs: []string{"nats://u:p%40ss@a", "nats://token@b", "u:p@c:1"}},
		"user":               {Username: "u", Password: "p"},
		"user alone":         {Username: "u"},
		"password file":      {Username: "u", PasswordFile: secret},
		"token":              {Token: "t"},
		"token file":         {TokenFile: secret},
		"seed":               {NKeySeed: seed(t, nkeys.CreateUser)},
		"seed file":          {NKeySeedFile: keys},
		"credentials":        {CredsFile: keys},
		"content of them":    {Creds: "eyJ.a.b " + seed(t, nkeys.CreateUser)},
		"for ever":           {MaxReconnect: -1, ReconnectBufferSize: -1},
		"TLS":                {TLSCert: cert, TLSKey: key, TLSCA: cert},
		"only the longest":   {ReconnectMaxWait: time.Second},
		"only the first":     {ReconnectWait: time.Hour},
		"replicas":           {DefaultStreamReplicas: 5, DefaultStorageType: "memory", PublishWhenDisconnected: "fail"},
		"prefixes":           {InboxPrefix: "_INBOX_me.a", JetStreamAPIPrefix: "hub.API."},
		"Chinese identifier": {ClusterID: "总线", ClientID: "a b"},
		"Consul":             {Consul: nats.ConsulConfig{Address: "a:8500", Scheme: "https", Token: "t", CAFile: cert}},
		"Consul IPv6":        {Consul: nats.ConsulConfig{Address: "[::1]:8500", TokenFile: secret}},
		"Consul behind path": {Consul: nats.ConsulConfig{Address: "https://a/consul"}},
		"Consul socket":      {Consul: nats.ConsulConfig{Address: "unix:///run/consul.sock"}},
	} {
		require.NoError(t, c.Validate(), name)
	}
}

func TestValidateRefuses(t *testing.T) {
	t.Parallel()
	const (
		scheme = "must begin with nats://, tls://, ws:// or wss://, got "
		shape  = `must be a URL such as "nats://host:4222", with any of :/?#@% in a password written as %3A and so on, got `
		consul = `consul.address: must be host and port such as "127.0.0.1:8500", or an http://, https:// or unix:// URL without user, got `
	)
	url := func(urls ...string) nats.Config { return nats.Config{URLs: urls} }
	address := func(a string) nats.Config { return nats.Config{Consul: nats.ConsulConfig{Address: a}} }
	for want, c := range map[string]nats.Config{
		`urls[0]: must name a host, got ""`:                                                                              url(""),
		`urls[0]: must name a host, got "nats://:4222"`:                                                                  url("nats://:4222"),
		`urls[0]: ` + scheme + `"http://a:4222"`:                                                                         url("http://a:4222"),
		`urls[1]: ` + scheme + `"natss://u:***@a"`:                                                                       url("nats://b", "natss://u:hunter2@a"),
		`urls[0]: must have its scheme once, got "nats://nats://a:4222"`:                                                 url("nats://nats://a:4222"),
		`urls[0]: must have its scheme once, got "ws://ws://u:***@a/path"`:                                               url("ws://ws://u:hunter2@a/path"),
		`urls[0]: must have a port in 1..65535, got "nats://a:0"`:                                                        url("nats://a:0"),
		`urls[0]: must have a port in 1..65535, got "nats://a:65536"`:                                                    url("nats://a:65536"),
		`urls[0]: ` + shape + `"nats://u:***"`:                                                                           url("nats://u:hunter2"),
		`urls[0]: ` + shape + `"nats://u:***@a"`:                                                                         url("nats://u:hunter2/x@a"),
		`urls[0]: must be one URL; give several as a list, and write a comma in a password as %2C, got "nats://u:***@b"`: url("nats://u:hunter2@a,nats://u:hunter2@b"),
		`urls[0]: must end after host and port: only ws:// and wss:// have a path, got "nats://a/b"`:                     url("nats://a/b"),
		`urls[0]: must end after host and port: only ws:// and wss:// have a path, got "nats:***"`:                       url("nats:/a"),
		`urls[0]: must end after host and port, got "nats://a?***"`:                                                      url("nats://a?hunter2"),
		`urls[1]: ws:// and wss:// cannot be mixed with nats:// and tls://, got "ws://b"`:                                url("nats://a", "ws://b"),
		`urls[1]: ws:// and wss:// cannot be mixed with nats:// and tls://, got "tls://b"`:                               url("wss://a", "tls://b"),

		`urls[0]: must have an IPv6 address in brackets, as in "nats://[::1]:4222", got "nats://u:***@::1:4222"`: url("nats://u:hunter2@::1:4222"),
		`urls[0]: must have an IPv6 address in brackets, as in "nats://[::1]:4222", got "2001:db8::1"`:           url("2001:db8::1"),

		`cluster_id: must not contain control characters, got "a\nb"`:                                                                {ClusterID: "a\nb"},
		`client_id: must not contain control characters, got "\x00"`:                                                                 {ClientID: "\x00"},
		`client_id: must have at most 255 bytes, got 256`:                                                                            {ClientID: strings.Repeat("x", 256)},
		`inbox_prefix: must have at most 255 bytes, got 256`:                                                                         {InboxPrefix: strings.Repeat("x", 256)},
		`service_name: must not contain control characters, got "\t"`:                                                                {ServiceName: "\t"},
		`jetstream_domain: must not contain spaces, control characters, '.', '*' or '>', got "a.b"`:                                  {JetStreamDomain: "a.b"},
		`jetstream_api_prefix: must be the only JetStream API, but jetstream_domain is set too`:                                      {JetStreamAPIPrefix: "hub.API", JetStreamDomain: "hub"},
		`jetstream_api_prefix: must be a subject's first tokens, without wildcards, spaces or empty tokens, got "hub.*"`:             {JetStreamAPIPrefix: "hub.*"},
		`inbox_prefix: must be a subject's first tokens, without wildcards, spaces or empty tokens, got "me."`:                       {InboxPrefix: "me."},
		`inbox_prefix: must be a subject's first tokens, without wildcards, spaces or empty tokens, got "a b"`:                       {InboxPrefix: "a b"},
		`max_control_line: must be at least 0, got -1`:                                                                               {MaxControlLine: -1},
		`dial_timeout: must be at most 8760h0m0s, got 8760h0m0.000000001s`:                                                           {DialTimeout: 8760*time.Hour + 1},
		`reconnect_max_wait: must be at most 8760h0m0s, got 2562047h47m16.854775807s`:                                                {ReconnectMaxWait: 1<<63 - 1},
		`creds: must hold a user's JWT and the seed of its NKey, as .creds files do`:                                                 {Creds: "hunter2"},
		`creds: must hold a user's JWT and the seed of its NKey, as .creds files do `:                                                {Creds: "eyJhunter2.b.c SUhunter2"},
		`grpc_port: must be in 0..65535, got 65536`:                                                                                  {GRPCPort: 65536},
		`grpc_port: must be in 0..65535, got -1`:                                                                                     {GRPCPort: -1},
		`max_reconnect: must be at least -1, got -2`:                                                                                 {MaxReconnect: -2},
		`reconnect_buffer_size: must be at least -1, got -2`:                                                                         {ReconnectBufferSize: -2},
		`max_pings_out: must be at least 0, got -1`:                                                                                  {MaxPingsOut: -1},
		`default_stream_replicas: must be in 0..5, got 6`:                                                                            {DefaultStreamReplicas: 6},
		`reconnect_wait: must not be negative, got -1ns`:                                                                             {ReconnectWait: -1},
		`timeout: must not be negative, got -1s`:                                                                                     {Timeout: -time.Second},
		`consul.timeout: must not be negative, got -1m0s`:                                                                            {Consul: nats.ConsulConfig{Timeout: -time.Minute}},
		`reconnect_max_wait: must not be below reconnect_wait (2s), got 1s`:                                                          {ReconnectWait: 2 * time.Second, ReconnectMaxWait: time.Second},
		`publish_when_disconnected: must be "buffer" or "fail", got "drop"`:                                                          {PublishWhenDisconnected: "drop"},
		`default_storage_type: must be "file" or "memory", got "tape"`:                                                               {DefaultStorageType: "tape"},
		`password: needs username`:                                                                                                   {Password: "hunter2"},
		`nkey_seed: must hold the seed of a user's NKey, which begins with "SU"`:                                                     {NKeySeed: "SUhunter2"},
		`nkey_seed: must hold the seed of a user's NKey, which begins with "SU" `:                                                    {NKeySeed: seed(t, nkeys.CreateAccount)},
		`token: must be the only authentication, but username is set too`:                                                            {Username: "u", Token: "hunter2"},
		`urls[1]: must be the only authentication, but token is set too`:                                                             {URLs: []string{"nats://a", "nats://u:hunter2@b"}, Token: "hunter2"},
		`tls_cert: must be a readable file: stat /nowhere: no such file or directory; tls_key: must be a readable file: stat /none:`: {TLSCert: "/nowhere", TLSKey: "/none"},
		`consul.scheme: must be "http" or "https", got "ftp"`:                                                                        {Consul: nats.ConsulConfig{Scheme: "ftp"}},
		consul + `"a:***"`:          address("a:b:c"),
		consul + `"http://u:***@a"`: address("http://u:hunter2@a"),
		consul + `"ftp://a"`:        address("ftp://a"),
		consul + `"a:99999"`:        address("a:99999"),
		consul + `"a/b"`:            address("a/b"),
		consul + `"unix://"`:        address("unix://"),
	} {
		t.Log(want)
		err := c.Validate()
		require.ErrorIs(t, err, nats.ErrInvalidConfig)
		require.NotContains(t, err.Error(), "hunter2")
		require.Contains(t, err.Error()+" ", "invalid configuration: "+want)
	}
}

func TestValidateFiles(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t)
	otherCert, _ := certificate(t)
	dir, missing := t.TempDir(), filepath.Join(t.TempDir(), "none")
	secret, keys, empty := filepath.Join(dir, "secret"), filepath.Join(dir, "keys"), filepath.Join(dir, "empty")
	writeFile(t, secret, "hunter2")
	writeFile(t, keys, "eyJ.a.b "+seed(t, nkeys.CreateUser))
	writeFile(t, empty, " \n")
	for want, c := range map[string]nats.Config{
		"creds_file: must be a regular file":                                                                        {CredsFile: dir},
		"token_file: must be a regular file":                                                                        {TokenFile: dir},
		"nkey_seed_file: must be a regular file":                                                                    {NKeySeedFile: dir},
		"password_file: must be a regular file":                                                                     {Username: "u", PasswordFile: dir},
		"tls_ca: must be a regular file":                                                                            {TLSCA: dir},
		"consul.token_file: must be a regular file":                                                                 {Consul: nats.ConsulConfig{TokenFile: dir}},
		"consul.ca_file: must be a regular file":                                                                    {Consul: nats.ConsulConfig{CAFile: dir}},
		"tls_ca: must hold a certificate in PEM, found none":                                                        {TLSCA: key},
		"consul.ca_file: must hold a certificate in PEM, found none":                                                {Consul: nats.ConsulConfig{CAFile: secret}},
		"token_file: must hold a secret, but ":                                                                      {TokenFile: empty},
		"password_file: must be a readable file: stat /none":                                                        {Username: "u", PasswordFile: "/none"},
		"consul.token_file: must hold a secret, but ":                                                               {Consul: nats.ConsulConfig{TokenFile: empty}},
		`nkey_seed_file: must hold the seed of a user's NKey, which begins with "SU", found none in "` + secret:     {NKeySeedFile: secret},
		`creds_file: must hold a user's JWT and the seed of its NKey, as .creds files do, found none in "` + secret: {CredsFile: secret},
		"tls_cert: needs tls_key":                                                                                   {TLSCert: cert},
		"tls_key: needs tls_cert":                                                                                   {TLSKey: key},
		"tls_cert: must be a certificate in PEM that fits tls_key":                                                  {TLSCert: otherCert, TLSKey: key},
		"tls_cert: must be a certificate in PEM that fits tls_key: ":                                                {TLSCert: secret, TLSKey: secret},
		"password_file: excludes password":                                                                          {Username: "u", Password: "p", PasswordFile: secret},
		"token_file: excludes token":                                                                                {Token: "t", TokenFile: secret},
		"nkey_seed_file: excludes nkey_seed":                                                                        {NKeySeed: seed(t, nkeys.CreateUser), NKeySeedFile: keys},
		"consul.token_file: excludes consul.token":                                                                  {Consul: nats.ConsulConfig{Token: "t", TokenFile: secret}},
		"creds_file: excludes creds":                                                                                {Creds: "eyJhunter2.b.c " + seed(t, nkeys.CreateUser), CredsFile: keys},
		"creds_file: must be the only authentication, but token_file is set":                                        {TokenFile: secret, CredsFile: keys},
		"nkey_seed_file: must be the only authentication, but username is set":                                      {Username: "u", NKeySeedFile: keys},
		"password_file: needs username":                                                                             {PasswordFile: secret},
		"creds_file: must be the only authentication, but nkey_seed_file is se":                                     {NKeySeedFile: keys, CredsFile: keys},
	} {
		err := c.Validate()
		require.ErrorIs(t, err, nats.ErrInvalidConfig, want)
		require.NotContains(t, err.Error(), "hunter2")
		require.ErrorContains(t, err, "invalid configuration: "+want)
	}
	c := nats.Config{CredsFile: missing}
	require.ErrorIs(t, c.Validate(), fs.ErrNotExist, "the cause can be asked for")
}

func TestValidateReportsEverythingAtOnce(t *testing.T) {
	t.Parallel()
	c := &nats.Config{URLs: []string{"x://a", "nats://b", ""}, Timeout: -1, MaxReconnect: -5, Token: "t", Username: "u"}
	require.EqualError(t, c.Validate(), "invalid configuration: "+
		`urls[0]: must begin with nats://, tls://, ws:// or wss://, got "x://a"; `+
		`urls[2]: must name a host, got ""; `+
		`max_reconnect: must be at least -1, got -5; `+
		`timeout: must not be negative, got -1ns; `+
		`token: must be the only authentication, but username is set too`)
}

func TestValidateNil(t *testing.T) {
	t.Parallel()
	var c *nats.Config
	require.EqualError(t, c.Validate(), "invalid configuration: config: must not be nil")
	require.ErrorIs(t, c.Validate(), nats.ErrInvalidConfig)
	require.NotErrorIs(t, c.Validate(), nats.ErrClosed)
}

func TestValidateLeavesTheConfigAlone(t *testing.T) {
	t.Parallel()
	c, _ := fullConfig()
	want, _ := fullConfig()
	_ = c.Validate()
	require.Equal(t, want, c)
	zero := &nats.Config{}
	require.NoError(t, zero.Validate())
	require.Equal(t, &nats.Config{}, zero)
}
