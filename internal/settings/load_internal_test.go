package settings

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// loaded is what a file and variables, which are named without their prefix, make of a configuration.
func loaded(file string, variables ...string) (config, error) {
	c := config{Attempts: 1}
	l := newLoaded(&c)
	l.document("f", []byte(file))
	var environ []string
	for _, v := range variables {
		environ = append(environ, envPrefix+v)
	}
	l.environment(append(environ, "HOME=/", "NATS_URLS=x", fileVariable+"=f"))
	return c, l.Err()
}

func TestFiles(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]config{
		"":                              {Attempts: 1},
		"# nothing":                     {Attempts: 1},
		"null":                          {Attempts: 1},
		"attempts: ~\nname: ''":         {Attempts: 1},
		"attempts: 3\nname: 007\n":      {Attempts: 3, Name: "007"},
		"name: |\n  block\n":            {Attempts: 1, Name: "block"},
		"urls: [a, b]\ntimeout: 2s":     {Attempts: 1, URLs: []string{"a", "b"}, Timeout: 2 * time.Second},
		"urls: [&x a, *x]\n":            {Attempts: 1, URLs: []string{"a", "a"}},
		"consul: &c\n  token: t\n":      {Attempts: 1, Consul: consulConfig{Token: "t"}},
		"consul:\nenabled: true":        {Attempts: 1, Enabled: true},
		"password: 'null'\nname: 'é'\n": {Attempts: 1, Password: "null", Name: "é"},
		"password:\nname: a":            {Attempts: 1, Name: "a"},
		"name: &x a\npassword: *x":      {Attempts: 1, Name: "a", Password: "a"},
	} {
		got, err := loaded(file)
		require.NoError(t, err, file)
		require.Equal(t, want, got, file)
	}
	for file, want := range map[string]string{
		"a: b\n---\nc: d":                 "f:2: expected one document, found a second",
		"name: [":                         "f:1: did not find",
		"- a":                             "f:1: expected keys with their values, got a list",
		"consul: x":                       "f:1: consul: expected keys with their values, got one plain value",
		"name: a\nname: b":                "f:2: name: given twice, first in line 1",
		"nats:\n  name: a":                `unknown key "nats": its keys stand at the top level, in no block`,
		"a:\n  b:\n    consul: {}":        `unknown key "a": its keys stand at the top level, in no block`,
		"nats:\n  urls: [a]":              `unknown key "nats": its keys stand at the top level, in no block`,
		"nam: x":                          `unknown key "nam"`,
		"password: &x":                    "f:1: password: expected a value; one that begins with & must be quoted",
		"password: null":                  "f:1: password: expected a secret; one that is called null or ~ must be quoted",
		"urls: a":                         "f:1: urls: expected a list, got one plain value",
		"urls: [a, [b]]":                  "f:1: urls[1]: expected one plain value, got a list",
		"urls: [a, ~]":                    "f:1: urls[1]: expected one plain value, got nothing",
		"name: {a: b}":                    "f:1: name: expected one plain value, got keys",
		"name: [a]":                       "f:1: name: expected one plain value, got a list",
		"name: !secret a":                 "f:1: name: expected one plain value, got a tag; a value that begins with ! must be quoted",
		"name: !!str [a]":                 "f:1: name: expected one plain value, got a list",
		"name: *secret":                   "f: unknown anchor; a value that begins with * must be quoted",
		"attempts: many":                  `f:1: attempts: expected a whole number, got "many"`,
		"enabled: 12":                     `f:1: enabled: expected true or false, got "12"`,
		"timeout: 5":                      `f:1: timeout: expected a duration with its unit, such as "2s" or "1m30s", got "5"`,
		"u:p@h: 1":                        `f:1: unknown key "u:***@h"`,
		"u:p@h: 1\nu:p@h: 2":              "f:2: u:***@h: given twice, first in line 1",
		"a: 1\nname: b\nb: {password: p}": `unknown key "b"`,
	} {
		_, err := loaded(file)
		require.ErrorContains(t, err, want, file)
	}
	for _, file := range []string{"a:\n  b: name", "a: [name, b]", "a: &x {token: t}\nconsul: *x"} {
		c, err := loaded(file)
		require.EqualError(t, err, `invalid configuration: f:1: unknown key "a"`, file)
		require.Equal(t, strings.Contains(file, "*x"), c.Consul.Token == "t", file)
	}
}

func TestVariables(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		file      string
		variables string
		want      config
	}{
		{"attempts: 3", "ATTEMPTS= \n", config{Attempts: 3}},
		{"attempts: 3", "ATTEMPTS= 4\n", config{Attempts: 4}},
		{"urls: [a]", "URLS= b , ,c", config{Attempts: 1, URLs: []string{"b", "c"}}},
		{"", "NAME=a,b", config{Attempts: 1, Name: "a,b"}},
		{"urls: [a]", "URLS=,", config{Attempts: 1, URLs: []string{"a"}}},
		{"", "CONSUL_TOKEN=t", config{Attempts: 1, Consul: consulConfig{Token: "t"}}},
		{"", "SERVICE_HOST=x;X_SERVICE_PORT_Y=1;PORT=tcp://a:1;PORT_1_TCP_ADDR=x;PORT_9_UDP=1", config{Attempts: 1}},
	} {
		got, err := loaded(test.file, strings.Split(test.variables, ";")...)
		require.NoError(t, err, test.variables)
		require.Equal(t, test.want, got, test.variables)
	}
	for variable, want := range map[string]string{
		"ATTEMPTS=x": envPrefix + "ATTEMPTS: ", "PORT=1": envPrefix + "PORT: unknown variable", "NAMES=x": envPrefix + `NAMES: unknown variable, did you mean "` + envPrefix + `NAME"?`,
		"XPORT_1_TCP=x": envPrefix + "XPORT_1_TCP: unknown variable", "X=tcp://a": envPrefix + "X: unknown variable",
	} {
		_, err := loaded("", variable)
		require.ErrorContains(t, err, want, variable)
	}
	_, err := loaded("", "QQ=1", "ZZ=1", "JJ=1")
	require.EqualError(t, err, strings.ReplaceAll("invalid configuration: _JJ: unknown variable; _QQ: unknown variable; _ZZ: unknown variable", "_", envPrefix))
}

// A block of another file is read in the same way.
func TestDecode(t *testing.T) {
	t.Parallel()
	var c config
	decode := func(text string) error {
		return Decode(&c, func(dst any) error { return yaml.Unmarshal([]byte(text), dst) })
	}
	require.NoError(t, decode("name: n\nconsul: {token: t}"))
	require.Equal(t, config{Name: "n", Consul: consulConfig{Token: "t"}}, c)
	require.ErrorContains(t, decode("name: n\nurl: u"), `line 2: unknown key "url", did you mean "urls"?`)
}

// A variable's way to authenticate takes the place of the file's; two of the file stay two.
func TestVariablesChangeTheWay(t *testing.T) {
	t.Parallel()
	type ways struct {
		URLs      []string `yaml:"urls" choice:"authentication:urls"`
		Password  string   `yaml:"password" choice:"authentication:password"`
		Token     string   `yaml:"token" choice:"authentication:token"`
		TokenFile string   `yaml:"token_file" choice:"authentication:token"`
		Name      string   `yaml:"name"`
	}
	file := "urls: [nats://u:p@a, nats://b, 'nats://%zz@c']\npassword: p\ntoken: t\nname: n\n"
	load := func(variables ...string) ways {
		var w ways
		l := newLoaded(&w)
		l.document("f", []byte(file))
		l.environment(variables)
		require.NoError(t, l.Err())
		return w
	}
	bare := []string{"nats://a", "nats://b", "nats://%zz@c"} // what is no URL is left alone
	require.Equal(t, ways{[]string{"nats://u:p@a", "nats://b", "nats://%zz@c"}, "p", "t", "", "n"}, load())
	require.Equal(t, ways{bare, "q", "", "", "n"}, load(envPrefix+"PASSWORD=q"))
	require.Equal(t, ways{bare, "", "", "f", "n"}, load(envPrefix+"TOKEN_FILE=f"))
	require.Equal(t, ways{[]string{"nats://x@d"}, "", "", "", "n"}, load(envPrefix+"URLS=nats://x@d"))
	require.Equal(t, ways{[]string{"nats://d"}, "p", "t", "", "n"}, load(envPrefix+"URLS=nats://d"))
	require.Equal(t, ways{bare, "q", "x", "", "n"}, load(envPrefix+"PASSWORD=q", envPrefix+"TOKEN=x"), "two that contradict each other")
	file = "urls: [WS://u:p@a, 'u:p@b/path', c]"
	require.Equal(t, ways{[]string{"ws://a", "ws://b/path", "c"}, "q", "", "", ""}, load(envPrefix+"PASSWORD=q"))
}

func TestWhereAFileIs(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv(fileVariable, "")
	require.NoError(t, os.WriteFile("configs", nil, 0o600)) // where a folder is looked for
	var c config
	require.NoError(t, Load(&c, "").Err())
	require.Zero(t, c)
	require.ErrorContains(t, Load(&c, "missing").Err(), "configuration file: ")
	t.Setenv(fileVariable, " missing ")
	require.ErrorContains(t, Load(&c, "").Err(), fileVariable+": ")
	t.Setenv(fileVariable, "")
	require.NoError(t, os.Symlink("nats.yaml", "nats.yaml"))
	require.ErrorContains(t, Load(&c, "").Err(), "configuration file: ", "there is one, but it cannot be read")
	require.NoError(t, os.Remove("nats.yaml"))
	require.NoError(t, os.WriteFile("nats.yaml", []byte("name: found\nurls:\n- a"), 0o600))
	l := Load(&c, "")
	require.NoError(t, l.Err())
	require.Equal(t, "found", c.Name)
	var found Problems
	found.Add("name", "x")
	found.Add("urls[0]", "x")
	found.Add("urls[7]", "x")
	found.Add("attempts", "x")
	found.Add("attempts[0]", "x")
	l.Report(found)
	require.ErrorContains(t, l.Err(), "nats.yaml:1: name: x; nats.yaml:3: urls[0]: x; nats.yaml:2: urls[7]: x; attempts: x; attempts[0]: x")
	t.Setenv(envPrefix+"URLS", "b")
	l = Load(&c, "")
	l.Report(found[1:2])
	require.ErrorContains(t, l.Err(), envPrefix+"URLS[0]: x")
}

func TestShow(t *testing.T) {
	t.Parallel()
	c := config{URLs: []string{"nats://u:p@a"}, Name: "a b", Attempts: 3, Timeout: time.Second, Enabled: true, Password: "p"}
	const text = `{urls=["nats://u:***@a"] name="a b" attempts=3 timeout=1s enabled=true password="***"}`
	for _, verb := range []string{"%v", "%+v", "%s", "%#s", "%d"} {
		require.Equal(t, fmt.Sprintf(verb, text), fmt.Sprintf(verb, Show(c)), verb)
	}
	require.Contains(t, fmt.Sprintf("%#v", Show(c)), `settings.config{URLs:[]string{"nats://u:***@a"}, Name:"a b"`)
	require.Equal(t, "{}", Show(config{}).String())
	require.Equal(t, "[urls=[nats://u:***@a] name=a b attempts=3 timeout=1s enabled=true password=***]", Show(c).LogValue().String())
	asJSON, err := json.Marshal(Show(c))
	require.NoError(t, err)
	require.JSONEq(t, `{"urls":["nats://u:***@a"],"name":"a b","attempts":3,"timeout":"1s","enabled":true,"password":"***","consul":{"Address":"","Token":""}}`, string(asJSON))
	asYAML, err := yaml.Marshal(Show(c))
	require.NoError(t, err)
	var read config
	require.NoError(t, yaml.Unmarshal(asYAML, &read))
	require.Equal(t, config{URLs: []string{"nats://u:***@a"}, Name: "a b", Attempts: 3, Timeout: time.Second, Enabled: true, Password: "***"}, read)
}
