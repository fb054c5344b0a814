package nats_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

const canary = "hunter2"

// canaryConfig holds the canary wherever the name of a key or its tag promises a secret.
func canaryConfig(t *testing.T) nats.Config {
	t.Helper()
	c := nats.Config{URLs: []string{"nats://user:" + canary + "@a:4222", "nats://" + canary + "@b", canary + "@c"}}
	found := 0
	keysOf(reflect.ValueOf(&c).Elem(), "", func(key string, field reflect.StructField, v reflect.Value) {
		named := false
		for _, word := range []string{"password", "token", "seed", "secret", "key", "creds"} {
			named = named || strings.Contains(key, word)
		}
		named = named && !strings.HasSuffix(key, "_file") && key != "tls_key" // these name files
		switch {
		case named:
			require.Equal(t, "true", field.Tag.Get("secret"), "%s looks like a secret", key)
			v.SetString(canary)
			found++
		case field.Tag.Get("secret") == "url" && v.Kind() == reflect.String:
			v.SetString("http://user:" + canary + "@consul:8500")
			found++
		}
	})
	require.Equal(t, 6, found)
	return c
}

type exportedHolder struct {
	Name    string
	Config  nats.Config
	Pointer *nats.Config
	Consul  nats.ConsulConfig
	Any     any
}

// fmt cannot call the methods of an unexported field, but prints the address of a pointer there.
type unexportedHolder struct {
	config *nats.Config
	any    any
}

func TestPointerInUnexportedFieldPrintsNoSecret(t *testing.T) {
	t.Parallel()
	c := canaryConfig(t)
	holder := unexportedHolder{&c, &c}
	for _, format := range []string{"%v", "%+v", "%#v", "%x", "%d"} {
		require.NotContains(t, fmt.Sprintf(format, holder), canary, format)
		require.NotContains(t, fmt.Sprintf(format, &holder), canary, format)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("text", "holder", holder)
	require.NotContains(t, log.String(), canary)
}

func checkNoSecret(t *testing.T, how, text string) {
	t.Helper()
	require.NotContains(t, text, canary, how)
	require.NotContains(t, strings.ToLower(text), fmt.Sprintf("%x", canary), how)
	require.NotContains(t, strings.ToLower(text), fmt.Sprintf("% x", canary), how)
}

// checkVerbs prints value with every verb and flag.
func checkVerbs(t *testing.T, name string, value any) {
	t.Helper()
	for verb := 'a'; verb <= 'z'; verb++ {
		for _, flag := range []string{"", "+", "#", " ", "-", "0", "+#", "400", ".3", "# "} {
			for _, v := range []rune{verb, verb - 'a' + 'A'} {
				if v == 'w' || v == 'p' {
					continue // fmt asks no method about these when they do not fit; vet refuses them
				}
				format := "%" + flag + string(v)
				checkNoSecret(t, name+" "+format, fmt.Sprintf(format, value))
			}
		}
	}
}

type clientHolder struct {
	Client  *nats.Client
	Factory *nats.EventClientFactory
	client  *nats.Client
	value   nats.EventClientFactory
	factory *nats.EventClientFactory
}

// A client and a factory know their secrets, and those of the URLs that discovery names.
func TestClientAndFactoryPrintNoSecret(t *testing.T) {
	inEmptyFolder(t)
	s := natstest.RunServer(t, natstest.WithConfig(func(o *server.Options) { o.Username, o.Password = "user", canary }))
	with := strings.Replace(s.URL(), "//", "//user:"+canary+"@", 1)
	t.Setenv("ISA_CLOUD_NATS_URLS", with)
	t.Setenv("ISA_CLOUD_NATS_CONSUL_TOKEN", canary)
	factory, err := nats.NewEventClientFactory(nats.WithResolver(resolverFunc(func(context.Context) ([]string, error) { return []string{with}, nil })))
	require.NoError(t, err)
	client, err := factory.NewNATSClient(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, client.Close()) }()
	sub, err := client.Subscribe(t.Context(), "s", func(*nats.Message) error { return nil })
	require.NoError(t, err)
	newStream(t, client, 1)
	newConsumer(t, client, jetstream.ConsumerConfig{Name: "c"})
	messages, err := client.PullMessages(t.Context(), "ORDERS", "c", 1)
	require.NoError(t, err)
	consumption, err := client.Consume(t.Context(), "ORDERS", "c", func(*nats.Message) error { return nil })
	require.NoError(t, err)
	bucket, err := client.CreateKeyValue(t.Context(), "bucket")
	require.NoError(t, err)
	cache, err := bucket.Cached(t.Context())
	require.NoError(t, err)
	defer func() { require.NoError(t, cache.Close()) }()
	objects, err := client.CreateObjectStore(t.Context(), "objects")
	require.NoError(t, err)
	for name, value := range map[string]any{
		"client": client, "factory": factory, "factory by value": *factory, "subscription": sub,
		"bucket": bucket, "cache": cache, "objects": objects, "consumption": consumption, "message": messages[0],
		"stats": client.Stats(), "health": client.Health(t.Context()), "config": client.Config(), "factory's config": factory.Config(),
		"holder": clientHolder{client, factory, client, *factory, factory}, "holder's pointer": &clientHolder{client, factory, client, *factory, factory},
	} {
		if !isRaceTest() { // fmt reads what the client changes
			checkVerbs(t, name, value)
		}
		text, err := json.Marshal(value)
		if err == nil {
			checkNoSecret(t, name+" JSON", string(text))
		}
		text, err = xml.Marshal(value)
		if err == nil {
			checkNoSecret(t, name+" XML", string(text))
		}
	}
}

func TestNothingPrintsASecret(t *testing.T) {
	t.Parallel()
	c := canaryConfig(t)
	values := map[string]any{
		"value":      c,
		"pointer":    &c,
		"consul":     c.Consul,
		"consul ptr": &c.Consul,
		"exported":   exportedHolder{"x", c, &c, c.Consul, c},
		"slice":      []nats.Config{c},
		"map":        map[string]*nats.Config{"a": &c},
		"plain map":  map[string]any{"a": c},
	}
	for name, value := range values {
		check := func(how, text string) { checkNoSecret(t, name+how, text) }
		checkVerbs(t, name, value)
		check(" Sprint", fmt.Sprint(value))
		tooFew := "nothing"
		check(" EXTRA", fmt.Sprintf(tooFew, value)) //nolint:staticcheck // the fault is the case
		check(" error", fmt.Errorf("bad: %w, %v", fmt.Errorf("%+v", value), value).Error())

		text, err := json.Marshal(value)
		require.NoError(t, err)
		check(" JSON", string(text))
		text, err = yaml.Marshal(value)
		require.NoError(t, err)
		check(" YAML", string(text))
		if reflect.TypeOf(value).Kind() != reflect.Map { // which XML does not know
			text, err = xml.Marshal(value)
			require.NoError(t, err)
			check(" XML", string(text))
		}
		var stream bytes.Buffer
		if name != "exported" && name != "plain map" { // their interfaces would have to be registered
			require.NoError(t, gob.NewEncoder(&stream).Encode(value))
		}
		check(" gob", stream.String())

		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("text", "config", value)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("JSON", "config", value)
		check(" slog", log.String())
	}
	require.Contains(t, c.Password, canary, "the original keeps its secrets")
	require.Contains(t, c.URLs[0], canary)
}

// A service may keep the Config as a block of its own file. The YAML package quotes what it cannot decode.
func TestConfigWithinAnotherFile(t *testing.T) {
	t.Parallel()
	type file struct {
		Name   string            `yaml:"name"`
		NATS   nats.Config       `yaml:"nats"`
		Consul nats.ConsulConfig `yaml:"consul"`
	}
	read := file{NATS: nats.Config{ClusterID: "bus", ClientID: "me"}}
	require.NoError(t, yaml.Unmarshal([]byte("name: x\nnats:\n  urls: [nats://a]\n  timeout: 3s\n  client_id: you\n  consul: {tag: t}\nconsul: {token: '1'}"), &read))
	require.Equal(t, file{"x", nats.Config{URLs: []string{"nats://a"}, ClusterID: "bus", ClientID: "you", Timeout: 3 * time.Second, Consul: nats.ConsulConfig{Tag: "t"}}, nats.ConsulConfig{Token: "1"}}, read)

	for text, want := range map[string]string{
		"nats: {token: !!int hunter2}":            "",
		"nats:\n  urls: u:hunter2@a":              "invalid configuration: line 2: urls: expected a list, got one plain value",
		"nats:\n  timeout: 1\n  token: [hunter2]": `invalid configuration: line 2: timeout: expected a duration with its unit, such as "2s" or "1m30s", got "1"; line 3: token: expected one plain value, got a list`,
		"consul:\n  tokn: hunter2":                `invalid configuration: line 2: unknown key "tokn", did you mean "token"?`,
		"nats: hunter2":                           "invalid configuration: line 1: expected keys with their values, got one plain value",
		"nats:":                                   "",
	} {
		err := yaml.Unmarshal([]byte(text), &file{})
		if want == "" {
			require.NoError(t, err, text)
			continue
		}
		require.EqualError(t, err, want)
		require.ErrorIs(t, err, nats.ErrInvalidConfig)
	}
}

func TestConfigStrings(t *testing.T) {
	t.Parallel()
	c := nats.Config{
		URLs: []string{"nats://u:" + canary + "@a"}, ClientID: "a b\n", GRPCPort: 1, Timeout: time.Second,
		JetStreamEnabled: true, Token: canary, Consul: nats.ConsulConfig{Address: "x:1", Token: canary},
	}
	const text = `{urls=["nats://u:***@a"] client_id="a b\n" grpc_port=1 consul.address="x:1" ` +
		`consul.token="***" timeout=1s jetstream_enabled=true token="***"}`
	require.Equal(t, text, c.String())
	require.Equal(t, text, fmt.Sprintf("%v", c))
	require.Equal(t, text, fmt.Sprintf("%+v", &c))
	require.Equal(t, text, fmt.Sprintf("%s", c))
	require.Equal(t, fmt.Sprintf("%q", text), fmt.Sprintf("%q", c))
	require.Equal(t, `{address="x:1" token="***"}`, c.Consul.String())
	require.Equal(t, "{}", nats.Config{}.String())
	require.Equal(t, "<nil>", fmt.Sprint((*nats.Config)(nil)))

	literal := fmt.Sprintf("%#v", c)
	require.Equal(t, c.GoString(), literal)
	require.True(t, strings.HasPrefix(literal, `nats.Config{URLs:[]string{"nats://u:***@a"}, ClusterID:""`), literal)
	require.Contains(t, literal, `Consul:nats.ConsulConfig{Address:"x:1"`)
}

func TestConfigInLogs(t *testing.T) {
	t.Parallel()
	c := nats.Config{Timeout: time.Second, Token: canary, Consul: nats.ConsulConfig{Token: canary}}
	bare := &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key != "config" {
			return slog.Attr{}
		}
		return a
	}}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, bare)).Info("", "config", c)
	slog.New(slog.NewJSONHandler(&log, bare)).Info("", "config", &c)
	require.Equal(t, "config.consul.token=*** config.timeout=1s config.token=***\n"+
		`{"config":{"consul":{"token":"***"},"timeout":"1s","token":"***"}}`+"\n", log.String())
}

func TestConfigAsJSON(t *testing.T) {
	t.Parallel()
	text, err := json.Marshal(nats.Config{Timeout: time.Second, Token: canary})
	require.NoError(t, err)
	var object map[string]any
	require.NoError(t, json.Unmarshal(text, &object))
	require.Equal(t, "1s", object["timeout"])
	require.Equal(t, "***", object["token"])
	require.Empty(t, object["password"], "an unset secret is seen to be unset")
	require.Contains(t, object["consul"], "address")
}

// What is printed as YAML can be read again, but for the secrets.
func TestConfigAsYAML(t *testing.T) {
	inEmptyFolder(t)
	want, _ := fullConfig()
	text, err := yaml.Marshal(want)
	require.NoError(t, err)
	writeFile(t, "n.yaml", string(text))
	got, err := nats.LoadConfig("n.yaml")
	require.NoError(t, err)
	want.Password, want.Consul.Token = "***", "***"
	require.Equal(t, want, got)
}
