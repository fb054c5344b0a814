package nats_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nkeys"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
)

// The configuration file of the specification, word for word.
const specificationYAML = `# 基础配置
urls:
  - "nats://localhost:4222"
cluster_id: "isa-cloud-cluster"

# Consul 服务发现
use_consul: true
service_name: "nats-service"
grpc_port: 50056

# 连接配置
max_reconnect: 10
reconnect_wait: "2s"
timeout: "10s"
ping_interval: "2m"
max_pings_out: 2

# JetStream
jetstream_enabled: true
jetstream_domain: ""

# 认证
username: ""
password: ""
token: ""

# TLS
tls_enabled: false
`

// noVariables hides the variables of whoever runs the tests: an empty one is not set.
func noVariables(t *testing.T) {
	t.Helper()
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "ISA_CLOUD_NATS_") {
			t.Setenv(name, "")
		}
	}
}

// inEmptyFolder makes a fresh folder the current one, so that files have short names in errors.
func inEmptyFolder(t *testing.T) {
	t.Helper()
	noVariables(t)
	t.Chdir(t.TempDir())
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
}

func specificationConfig() *nats.Config {
	c := nats.DefaultConfig()
	c.ClusterID = "isa-cloud-cluster"
	c.UseConsul = true
	c.MaxReconnect = 10
	return c
}

func TestLoadConfigReadsTheSpecificationsFile(t *testing.T) {
	inEmptyFolder(t)
	writeFile(t, "spec.yaml", specificationYAML)
	c, err := nats.LoadConfig("spec.yaml")
	require.NoError(t, err)
	require.Equal(t, specificationConfig(), c)
}

func TestLoadConfigReadsTheSpecificationsVariables(t *testing.T) {
	inEmptyFolder(t)
	t.Setenv("ISA_CLOUD_NATS_URLS", "nats://server1:4222,nats://server2:4222")
	t.Setenv("ISA_CLOUD_NATS_USERNAME", "admin")
	t.Setenv("ISA_CLOUD_NATS_PASSWORD", "password")
	t.Setenv("ISA_CLOUD_NATS_USE_CONSUL", "true")
	c, err := nats.LoadConfig("")
	require.NoError(t, err)
	want := nats.DefaultConfig()
	want.URLs = []string{"nats://server1:4222", "nats://server2:4222"}
	want.Username, want.Password, want.UseConsul = "admin", "password", true
	require.Equal(t, want, c)
}

// keysOf lists the YAML keys of a configuration struct with the fields that hold their values.
func keysOf(v reflect.Value, prefix string, visit func(key string, field reflect.StructField, v reflect.Value)) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		key := prefix + field.Tag.Get("yaml")
		if field.Type.Kind() == reflect.Struct {
			keysOf(v.Field(i), key+".", visit)
			continue
		}
		visit(key, field, v.Field(i))
	}
}

// A key that the loader or the sample file forgot is found here: the struct is the list.
func TestSampleFileNamesEveryKeyWithItsDefault(t *testing.T) {
	noVariables(t)
	sample, err := os.ReadFile("configs/sdk/nats.yaml")
	require.NoError(t, err)
	c, err := nats.LoadConfig("configs/sdk/nats.yaml")
	require.NoError(t, err)
	want := nats.DefaultConfig()
	want.ClusterID = "isa-cloud-cluster"
	require.Equal(t, want, c, "the sample sets what it recommends")

	uncommented := regexp.MustCompile(`(?m)^( *)#([a-z])`).ReplaceAllString(string(sample), "$1$2")
	path := filepath.Join(t.TempDir(), "nats.yaml")
	writeFile(t, path, uncommented)
	c, err = nats.LoadConfig(path)
	require.NoError(t, err)
	require.Equal(t, want, c, "a commented default differs from the real one")

	var keys map[string]any
	require.NoError(t, yaml.Unmarshal([]byte(uncommented), &keys))
	keysOf(reflect.ValueOf(*c), "", func(key string, _ reflect.StructField, _ reflect.Value) {
		block, name, nested := strings.Cut(key, ".")
		if nested {
			require.Contains(t, keys[block], name)
		} else {
			require.Contains(t, keys, key)
		}
	})
}

// One value per key, none of them a default, and no two that exclude each other.
func fullConfig() (*nats.Config, map[string]string) {
	c := &nats.Config{
		URLs: []string{"nats://a:1", "tls://b:2"}, ClusterID: "bus", ClientID: "me",
		UseConsul: true, ServiceName: "svc", GRPCPort: 7,
		Consul: nats.ConsulConfig{
			Address: "consul:8501", Scheme: "https", Token: "0123", Datacenter: "dc", Namespace: "ns",
			Tag: "blue", Near: "_agent", Timeout: time.Second,
		},
		MaxReconnect: 3, ReconnectWait: 40 * time.Second, ReconnectMaxWait: time.Minute,
		ReconnectBufferSize: -1, PublishWhenDisconnected: "fail", Timeout: time.Minute,
		DialTimeout: time.Second, MaxControlLine: 8192, InboxPrefix: "_INBOX.me",
		RequestTimeout: 90 * time.Second, DrainTimeout: time.Hour, PingInterval: time.Millisecond,
		MaxPingsOut: 9, JetStreamEnabled: false, JetStreamDomain: "leaf", DefaultStreamReplicas: 3,
		DefaultStorageType: "memory", Username: "u", Password: "0815", TLSEnabled: true,
		TLSServerName: "host", TLSHandshakeFirst: true,
	}
	texts := map[string]string{}
	keysOf(reflect.ValueOf(*c), "", func(key string, _ reflect.StructField, v reflect.Value) {
		switch value := v.Interface().(type) {
		case []string:
			texts[key] = strings.Join(value, " , ") + ","
		case bool:
			texts[key] = fmt.Sprint(value)
		default:
			if !v.IsZero() {
				texts[key] = fmt.Sprint(value)
			}
		}
	})
	return c, texts
}

func TestStructFileAndEnvironmentSayTheSame(t *testing.T) {
	want, texts := fullConfig()

	t.Run("file", func(t *testing.T) {
		inEmptyFolder(t)
		var top, consul strings.Builder
		for key, text := range texts {
			name, nested := strings.CutPrefix(key, "consul.")
			switch {
			case key == "urls":
				fmt.Fprintf(&top, "urls: [%q, %q]\n", want.URLs[0], want.URLs[1])
			case nested:
				fmt.Fprintf(&consul, "  %s: %s\n", name, text)
			default:
				fmt.Fprintf(&top, "%s: %s\n", key, text)
			}
		}
		writeFile(t, "nats.yaml", top.String()+"consul:\n"+consul.String())
		got, err := nats.LoadConfig("nats.yaml")
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
	t.Run("environment over file", func(t *testing.T) {
		inEmptyFolder(t)
		writeFile(t, "nats.yaml", specificationYAML)
		for key, text := range texts {
			t.Setenv("ISA_CLOUD_NATS_"+strings.ToUpper(strings.ReplaceAll(key, ".", "_")), text)
		}
		got, err := nats.LoadConfig("")
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

// Every string key reaches its own field from its own variable; the texts are refused as values,
// for files that do not exist and the like, but never as unknown variables.
func TestEveryKeyHasItsVariable(t *testing.T) {
	inEmptyFolder(t)
	var variables []string
	keysOf(reflect.ValueOf(nats.Config{}), "", func(key string, _ reflect.StructField, _ reflect.Value) {
		name := "ISA_CLOUD_NATS_" + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
		require.NotContains(t, variables, name)
		variables = append(variables, name)
		t.Setenv(name, "1\x01")
	})
	_, err := nats.LoadConfig("")
	require.ErrorIs(t, err, nats.ErrInvalidConfig)
	require.NotContains(t, err.Error(), "unknown")
}

func TestLoadConfigExplicitFalseAndZero(t *testing.T) {
	inEmptyFolder(t)
	writeFile(t, "nats.yaml", "jetstream_enabled: false\nmax_reconnect: 0\nservice_name: ''\ntimeout:\nconsul:\n")
	c, err := nats.LoadConfig("nats.yaml")
	require.NoError(t, err)
	want := nats.DefaultConfig()
	want.JetStreamEnabled = false
	require.Equal(t, want, c, "false is false; a zero or nothing is the default")
}

// A default must never be what breaks a bound that was given.
func TestLoadConfigDefaultsFollowWhatIsGiven(t *testing.T) {
	inEmptyFolder(t)
	writeFile(t, "nats.yaml", "reconnect_wait: 1m")
	c, err := nats.LoadConfig("nats.yaml")
	require.NoError(t, err)
	require.Equal(t, time.Minute, c.ReconnectMaxWait)
	writeFile(t, "nats.yaml", "reconnect_max_wait: 1s")
	c, err = nats.LoadConfig("nats.yaml")
	require.NoError(t, err)
	require.Equal(t, time.Second, c.ReconnectWait)
}

func TestLoadConfigFileProblems(t *testing.T) {
	for name, test := range map[string]struct{ file, want string }{
		"unknown key":         {"cluster_id: a\nurl: b", `n.yaml:2: unknown key "url", did you mean "urls"?`},
		"nested unknown key":  {"consul:\n  addres: x", `n.yaml:2: unknown key "consul.addres", did you mean "consul.address"?`},
		"camel case":          {"reconnectWait: 2s", `n.yaml:1: unknown key "reconnectWait", did you mean "reconnect_wait"?`},
		"key without block":   {"address: x", `n.yaml:1: unknown key "address", did you mean "consul.address"?`},
		"key in wrong block":  {"consul: {max_reconnect: 1}", `n.yaml:1: unknown key "consul.max_reconnect", did you mean "max_reconnect"?`},
		"half a key":          {"nkey: x", `n.yaml:1: unknown key "nkey", did you mean "nkey_seed"?`},
		"nothing near":        {"bananas: x", `n.yaml:1: unknown key "bananas"`},
		"parsecs":             {"\n\nreconnect_wait: \"2 parsecs\"", `n.yaml:3: reconnect_wait: expected a duration with its unit, such as "2s" or "1m30s", got "2 parsecs"`},
		"bare duration":       {"timeout: 10", `n.yaml:1: timeout: expected a duration with its unit, such as "2s" or "1m30s", got "10"`},
		"not a number":        {"max_reconnect: many", `n.yaml:1: max_reconnect: expected a whole number, got "many"`},
		"fraction":            {"grpc_port: 1.5", `n.yaml:1: grpc_port: expected a whole number, got "1.5"`},
		"not a boolean":       {"use_consul: maybe", `n.yaml:1: use_consul: expected true or false, got "maybe"`},
		"list for a value":    {"password: [hunter2]", `n.yaml:1: password: expected one plain value, got a list`},
		"block for a value":   {"password: {a: hunter2}", `n.yaml:1: password: expected one plain value, got keys`},
		"value for a list":    {"urls: nats://u:hunter2@a", `n.yaml:1: urls: expected a list, got one plain value`},
		"value for a block":   {"consul: hunter2", `n.yaml:1: consul: expected keys with their values, got one plain value`},
		"list in a list":      {"urls:\n- nats://a\n- [b]", `n.yaml:3: urls[1]: expected one plain value, got a list`},
		"nothing in a list":   {"urls:\n- nats://a\n-", `n.yaml:3: urls[1]: expected one plain value, got nothing`},
		"keys in a block":     {"# ours\nnats:\n  urls: [nats://u:hunter2@a]\n  other: x", `n.yaml:2: unknown key "nats": its keys stand at the top level, in no block`},
		"consul in a block":   {"isa: {nats: {consul: {token: hunter2}}}", `n.yaml:1: unknown key "isa": its keys stand at the top level, in no block`},
		"prefixed key":        {"isa_cloud_nats_urls: [a]", `n.yaml:1: unknown key "isa_cloud_nats_urls", did you mean "urls"?`},
		"null for a password": {"username: u\npassword: null", `n.yaml:2: password: expected a secret; one that is called null or ~ must be quoted`},
		"null for a token":    {"consul: {token: ~}", `n.yaml:1: consul.token: expected a secret; one that is called null or ~ must be quoted`},
		"tagged null":         {"token: !!null hunter2", `n.yaml:1: token: expected a secret; one that is called null or ~ must be quoted`},
		"key twice":           {"timeout: 1s\ncluster_id: a\ntimeout: 2s", `n.yaml:3: timeout: given twice, first in line 1`},
		"block twice":         {"consul: {tag: a}\nconsul: {near: b}", `n.yaml:2: consul: given twice, first in line 1`},
		"no mapping":          {"- a", `n.yaml:1: expected keys with their values, got a list`},
		"two documents":       {"timeout: 1s\n---\ntimeout: 2s", `n.yaml:2: expected one document, found a second`},
		"syntax":              {"timeout: 1s\n\tcluster_id: a", `n.yaml:2: found a tab character that violates indentation`},
		"unquoted star":       {"password: *hunter2", `n.yaml: unknown anchor; a value that begins with * must be quoted`},
		"unquoted bang":       {"password: !hunter2", `n.yaml:1: password: expected one plain value, got a tag; a value that begins with ! must be quoted`},
		"unquoted ampersand":  {"password: &hunter2", `n.yaml:1: password: expected a value; one that begins with & must be quoted`},
		"merge key":           {"a: &x {}\n<<: *x", `n.yaml:1: unknown key "a"; n.yaml:2: unknown key "<<"`},
		"validated in place":  {"urls:\n- nats://a\n- http://b", `n.yaml:3: urls[1]: must begin with nats://, tls://, ws:// or wss://, got "http://b"`},
		"validated key":       {"cluster_id: a\ntimeout: -1s", `n.yaml:2: timeout: must not be negative, got -1s`},
		"validated secret":    {"password: hunter2", `n.yaml:1: password: needs username`},
		"everything together": {"url: a\ntimeout: -1s\nmax_reconnect: many", `n.yaml:1: unknown key "url", did you mean "urls"?; n.yaml:3: max_reconnect: expected a whole number, got "many"; n.yaml:2: timeout: must not be negative, got -1s`},
	} {
		t.Run(name, func(t *testing.T) {
			inEmptyFolder(t)
			writeFile(t, "n.yaml", test.file)
			c, err := nats.LoadConfig("n.yaml")
			require.EqualError(t, err, "invalid configuration: "+test.want)
			require.ErrorIs(t, err, nats.ErrInvalidConfig)
			require.Nil(t, c)
		})
	}
}

func TestLoadConfigAcceptsWhatMeansTheSame(t *testing.T) {
	for name, file := range map[string]string{
		"empty file":       "",
		"comments only":    "# nothing\n",
		"empty document":   "---\n",
		"dotted key":       "consul.timeout: 2s",
		"quoted number":    `grpc_port: "50056"`,
		"alias":            "consul: {timeout: &t 2s}\nreconnect_wait: *t",
		"no password":      "password:\ntoken: ''",
		"unset by null":    "tls_ca: ~\ndrain_timeout: null",
		"byte order mark":  "\ufefftimeout: 10s",
		"carriage returns": "timeout: 10s\r\nmax_pings_out: 2\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			inEmptyFolder(t)
			writeFile(t, "n.yaml", file)
			c, err := nats.LoadConfig("n.yaml")
			require.NoError(t, err)
			require.Equal(t, nats.DefaultConfig(), c)
		})
	}
}

func TestLoadConfigVariableProblems(t *testing.T) {
	for name, test := range map[string]struct{ variable, text, want string }{
		"duration":  {"TIMEOUT", "10", `ISA_CLOUD_NATS_TIMEOUT: expected a duration with its unit, such as "2s" or "1m30s", got "10"`},
		"boolean":   {"USE_CONSUL", "ja", `ISA_CLOUD_NATS_USE_CONSUL: expected true or false, got "ja"`},
		"number":    {"GRPC_PORT", "x", `ISA_CLOUD_NATS_GRPC_PORT: expected a whole number, got "x"`},
		"bound":     {"CONSUL_TIMEOUT", "-1s", `ISA_CLOUD_NATS_CONSUL_TIMEOUT: must not be negative, got -1s`},
		"element":   {"URLS", "nats://a,x://b", `ISA_CLOUD_NATS_URLS[1]: must begin with nats://, tls://, ws:// or wss://, got "x://b"`},
		"unknown":   {"URL", "nats://a", `ISA_CLOUD_NATS_URL: unknown variable, did you mean "ISA_CLOUD_NATS_URLS"?`},
		"nested":    {"CONSUL_ADRESS", "a", `ISA_CLOUD_NATS_CONSUL_ADRESS: unknown variable, did you mean "ISA_CLOUD_NATS_CONSUL_ADDRESS"?`},
		"the file":  {"CONFIGS", "a", `ISA_CLOUD_NATS_CONFIGS: unknown variable, did you mean "ISA_CLOUD_NATS_CONFIG"?`},
		"twice":     {"ISA_CLOUD_NATS_TLS_CA", "a", `ISA_CLOUD_NATS_ISA_CLOUD_NATS_TLS_CA: unknown variable, did you mean "ISA_CLOUD_NATS_TLS_CA"?`},
		"half":      {"NATS_CONSUL_TOKEN", "hunter2", `ISA_CLOUD_NATS_NATS_CONSUL_TOKEN: unknown variable, did you mean "ISA_CLOUD_NATS_CONSUL_TOKEN"?`},
		"far away":  {"BANANAS", "a", `ISA_CLOUD_NATS_BANANAS: unknown variable`},
		"no secret": {"PASWORD", "hunter2", `ISA_CLOUD_NATS_PASWORD: unknown variable, did you mean "ISA_CLOUD_NATS_PASSWORD"?`},
	} {
		t.Run(name, func(t *testing.T) {
			inEmptyFolder(t)
			t.Setenv("ISA_CLOUD_NATS_"+test.variable, test.text)
			_, err := nats.LoadConfig("")
			require.EqualError(t, err, "invalid configuration: "+test.want)
		})
	}
}

// What editors, shells and block texts leave around a value is no part of it.
func TestLoadConfigTrims(t *testing.T) {
	inEmptyFolder(t)
	writeFile(t, "n.yaml", "password: |\n  hunter2\ncluster_id: >\n  bus\n")
	t.Setenv("ISA_CLOUD_NATS_USERNAME", "u\n")
	t.Setenv("ISA_CLOUD_NATS_CONSUL_TOKEN", " \thunter3\r\n")
	t.Setenv("ISA_CLOUD_NATS_TIMEOUT", "3s\n")
	t.Setenv("ISA_CLOUD_NATS_TLS_ENABLED", " ")
	c, err := nats.LoadConfig("n.yaml")
	require.NoError(t, err)
	want := nats.DefaultConfig()
	want.Username, want.Password, want.ClusterID, want.Timeout, want.Consul.Token = "u", "hunter2", "bus", 3*time.Second, "hunter3"
	require.Equal(t, want, c)
}

// Where keys exclude each other, that of the environment wins.
func TestEnvironmentChangesTheWay(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	writeFile(t, secret, "hunter2")
	user := seed(t, nkeys.CreateUser)
	for name, test := range map[string]struct {
		file      string
		variables []string
		want      nats.Config
	}{
		"secret for its file": {"token_file: " + secret, []string{"TOKEN=t"}, nats.Config{Token: "t"}},
		"file for its secret": {"{username: u, password: hunter2}", []string{"PASSWORD_FILE=" + secret}, nats.Config{Username: "u", PasswordFile: secret}},
		"password of a user":  {"{username: u, password_file: " + secret + "}", []string{"PASSWORD=p"}, nats.Config{Username: "u", Password: "p"}},
		"another way":         {"{username: u, password: hunter2}", []string{"NKEY_SEED=" + user}, nats.Config{NKeySeed: user}},
		"another way, again":  {"nkey_seed: " + user, []string{"USERNAME=u", "PASSWORD=p"}, nats.Config{Username: "u", Password: "p"}},
		"credentials":         {"token_file: /none", []string{"CREDS=eyJ.a.b " + user}, nats.Config{Creds: "eyJ.a.b " + user}},
		"user in the URLs":    {"token: hunter2", []string{"URLS=nats://u:p@a"}, nats.Config{URLs: []string{"nats://u:p@a"}}},
		"URLs without user":   {"token: t", []string{"URLS=nats://a"}, nats.Config{URLs: []string{"nats://a"}, Token: "t"}},
		"no user in the URLs": {"urls: ['nats://u:p@@a:1', 'hunter2@b', 'nats://c']", []string{"TOKEN=t"}, nats.Config{URLs: []string{"nats://a:1", "nats://b", "nats://c"}, Token: "t"}},
		"Consul's token":      {"consul: {token_file: /none}", []string{"CONSUL_TOKEN=t"}, nats.Config{Consul: nats.ConsulConfig{Token: "t"}}},
		"Consul's alone":      {"token: t", []string{"CONSUL_TOKEN=t"}, nats.Config{Token: "t", Consul: nats.ConsulConfig{Token: "t"}}},
		"JetStream's prefix":  {"jetstream_domain: hub", []string{"JETSTREAM_API_PREFIX=hub.API"}, nats.Config{JetStreamAPIPrefix: "hub.API"}},
		"an empty variable":   {"token: t", []string{"TOKEN=", "USERNAME= "}, nats.Config{Token: "t"}},
	} {
		t.Run(name, func(t *testing.T) {
			inEmptyFolder(t)
			for _, variable := range test.variables {
				name, text, _ := strings.Cut(variable, "=")
				t.Setenv("ISA_CLOUD_NATS_"+name, text)
			}
			writeFile(t, "n.yaml", test.file)
			got, err := nats.LoadConfig("n.yaml")
			require.NoError(t, err)
			want := nats.DefaultConfig()
			if test.want.URLs != nil {
				want.URLs = test.want.URLs
			}
			want.Username, want.Password, want.PasswordFile = test.want.Username, test.want.Password, test.want.PasswordFile
			want.Token, want.NKeySeed, want.Creds = test.want.Token, test.want.NKeySeed, test.want.Creds
			want.Consul.Token, want.JetStreamAPIPrefix = test.want.Consul.Token, test.want.JetStreamAPIPrefix
			require.Equal(t, want, got)
		})
	}
	inEmptyFolder(t)
	t.Setenv("ISA_CLOUD_NATS_TOKEN", "t")
	t.Setenv("ISA_CLOUD_NATS_USERNAME", "u")
	_, err := nats.LoadConfig("")
	require.EqualError(t, err, "invalid configuration: ISA_CLOUD_NATS_TOKEN: must be the only authentication, but username is set too")
}

func TestLoadConfigNamesTheListThatIsUsed(t *testing.T) {
	inEmptyFolder(t)
	writeFile(t, "n.yaml", "urls: ['x://a']")
	t.Setenv("ISA_CLOUD_NATS_URLS", "y://b")
	_, err := nats.LoadConfig("n.yaml")
	require.EqualError(t, err, `invalid configuration: ISA_CLOUD_NATS_URLS[0]: must begin with nats://, tls://, ws:// or wss://, got "y://b"`)
}

func TestLoadConfigIgnoresEmptyAndForeignVariables(t *testing.T) {
	inEmptyFolder(t)
	for name, text := range map[string]string{
		"TIMEOUT": "", "BANANAS": "", "URLS": " , ",
		// What Kubernetes sets in every pod beside services isa-cloud-nats and isa-cloud-nats-grpc.
		"SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "4222", "SERVICE_PORT_CLIENT": "4222",
		"PORT": "tcp://10.0.0.1:4222", "PORT_4222_TCP": "tcp://10.0.0.1:4222",
		"PORT_4222_TCP_PROTO": "tcp", "PORT_4222_TCP_PORT": "4222", "PORT_4222_TCP_ADDR": "10.0.0.1",
		"GRPC_SERVICE_HOST": "10.0.0.2", "GRPC_PORT": "tcp://10.0.0.2:50056", "GRPC_PORT_50056_TCP_PORT": "50056",
	} {
		t.Setenv("ISA_CLOUD_NATS_"+name, text)
	}
	c, err := nats.LoadConfig("")
	require.NoError(t, err)
	require.Equal(t, nats.DefaultConfig(), c)
}

func TestLoadConfigSearch(t *testing.T) {
	inEmptyFolder(t)
	require.NoError(t, os.Mkdir("here", 0o755))
	t.Chdir("here")
	load := func() string {
		c, err := nats.LoadConfig("")
		require.NoError(t, err)
		return c.ClusterID
	}
	require.Empty(t, load(), "no file at all")
	// From the last place to the first: each new file wins over those before. /etc is left out.
	for _, path := range []string{"nats.yaml", "../configs/sdk/nats.yaml", "configs/sdk/nats.yaml"} {
		writeFile(t, path, "cluster_id: "+path)
		require.Equal(t, path, load())
	}
	writeFile(t, "named.yaml", "cluster_id: named")
	t.Setenv("ISA_CLOUD_NATS_CONFIG", "named.yaml")
	require.Equal(t, "named", load())

	c, err := nats.LoadConfig("nats.yaml")
	require.NoError(t, err)
	require.Equal(t, "nats.yaml", c.ClusterID, "an argument wins over the variable")
}

func TestLoadConfigSearchPassesOverAFileNamedLikeAFolder(t *testing.T) {
	inEmptyFolder(t)
	writeFile(t, "configs", "not a folder")
	_, err := nats.LoadConfig("")
	require.NoError(t, err)
}

func TestLoadConfigMissingFile(t *testing.T) {
	inEmptyFolder(t)
	_, err := nats.LoadConfig("none.yaml")
	require.EqualError(t, err, "invalid configuration: configuration file: open none.yaml: no such file or directory")
	require.ErrorIs(t, err, nats.ErrInvalidConfig)
	require.ErrorIs(t, err, fs.ErrNotExist)

	t.Setenv("ISA_CLOUD_NATS_CONFIG", "none.yaml")
	t.Setenv("ISA_CLOUD_NATS_TIMEOUT", "soon")
	_, err = nats.LoadConfig("")
	require.ErrorContains(t, err, "ISA_CLOUD_NATS_CONFIG: open none.yaml:")
	require.ErrorContains(t, err, "; ISA_CLOUD_NATS_TIMEOUT: expected", "the other problems are told, too")

	_, err = nats.LoadConfig(".")
	require.ErrorContains(t, err, "directory")
}

func TestFactoryThatNothingWasLoadedFor(t *testing.T) {
	t.Parallel()
	var factory nats.EventClientFactory
	_, err := factory.NewNATSClient(t.Context())
	require.ErrorIs(t, err, nats.ErrInvalidConfig)
	require.Equal(t, nats.Config{}, factory.Config())
}
