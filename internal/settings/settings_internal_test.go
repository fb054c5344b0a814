package settings

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// config has every type of value that there is, and both kinds of secrets.
type config struct {
	URLs     []string      `yaml:"urls" secret:"url"`
	Name     string        `yaml:"name"`
	Consul   consulConfig  `yaml:"consul"`
	Attempts int           `yaml:"attempts"`
	Timeout  time.Duration `yaml:"timeout"`
	Enabled  bool          `yaml:"enabled"`
	Password string        `yaml:"password" secret:"true"`
}

type consulConfig struct {
	Address string `yaml:"address" secret:"url"`
	Token   string `yaml:"token" secret:"true"`
}

// A value of a type that cannot be parsed would be ignored in silence.
func TestEveryTypeTakesAText(t *testing.T) {
	t.Parallel()
	var c config
	for _, s := range newLoaded(&c).settings {
		require.NotEmpty(t, s.key())
		set := false
		for _, text := range []string{"7s", "7", "true"} {
			set = set || s.set(text) == nil && !s.value.IsZero()
		}
		require.True(t, set, s.key())
	}
}

func TestDurations(t *testing.T) {
	t.Parallel()
	type waits struct {
		None  time.Duration `yaml:"none"`
		Wait  time.Duration `yaml:"wait"`
		Count int64         `yaml:"count"`
		Block struct {
			Wait time.Duration `yaml:"wait"`
		} `yaml:"block"`
	}
	w := waits{Wait: time.Second, Count: 7}
	w.Block.Wait = -time.Second
	require.Equal(t, map[string]time.Duration{"wait": time.Second, "block.wait": -time.Second}, maps.Collect(Durations(w)))
}

func TestRedact(t *testing.T) {
	t.Parallel()
	full := func() config {
		return config{URLs: []string{"nats://u:p@a"}, Password: "p", Name: "n", Consul: consulConfig{"http://u:p@c", "t"}}
	}
	c := full()
	shared := c
	Redact(&c)
	require.Equal(t, config{URLs: []string{"nats://u:***@a"}, Password: "***", Name: "n", Consul: consulConfig{"http://u:***@c", "***"}}, c)
	require.Equal(t, full(), shared)
	zero := config{}
	Redact(&zero)
	require.Equal(t, config{}, zero)
}

func TestContradictions(t *testing.T) {
	t.Parallel()
	type ways struct {
		URLs      []string `yaml:"urls" choice:"authentication:urls"`
		User      string   `yaml:"user" choice:"authentication:password"`
		Password  string   `yaml:"password" choice:"authentication:password"`
		Token     string   `yaml:"token" choice:"authentication:token"`
		TokenFile string   `yaml:"token_file" choice:"authentication:token"`
		Domain    string   `yaml:"domain" choice:"API:domain"`
		Prefix    string   `yaml:"prefix" choice:"API:prefix"`
	}
	for want, plain := range map[string]ways{
		"":                           {URLs: []string{"a"}, User: "u", Password: "p", Domain: "d"},
		"token_file: excludes token": {Token: "t", TokenFile: "f"},
		"token: must be the only authentication, but user is set too":   {User: "u", Token: "t"},
		"urls[1]: must be the only authentication, but user is set too": {URLs: []string{"a", "u@b"}, User: "u", Password: "p"},
		"prefix: must be the only API, but domain is set too":           {Domain: "d", Prefix: "p"},
		"token: must be the only authentication, but user is set too; " +
			"token_file: must be the only authentication, but user is set too": {User: "u", Token: "t", TokenFile: "f"},
	} {
		err := Contradictions(plain).Err()
		if want == "" {
			require.NoError(t, err)
			continue
		}
		require.EqualError(t, err, "invalid configuration: "+want)
	}
}

func TestHint(t *testing.T) {
	t.Parallel()
	require.Empty(t, hint("abc", []string{"abz"}), "half is too little")
	known := []string{"urls", "max_reconnect", "reconnect_wait", "consul.address", "nkey_seed", "consul.near", envPrefix + "TLS_CA"}
	for unknown, want := range map[string]string{
		"url": "urls", "URLS": "urls", "reconectwait": "reconnect_wait", "address": "consul.address", "nkey": "nkey_seed",
		"tls_ca": envPrefix + "TLS_CA", envPrefix + envPrefix + "URLS": "urls", "": "", "x": "", "bananas": "", "eats": "",
	} {
		text := hint(unknown, known)
		require.Equal(t, want != "", text != "", unknown)
		require.Contains(t, text, want, unknown)
	}
}

// No file makes the loader panic, and whatever is written after "password:", the error does not
// repeat it.
func FuzzFile(f *testing.F) {
	const canary = "hunter2canary"
	sample := "urls: [nats://a]\nconsul:\n  timeout: &t 2s\ntimeout: *t\n"
	for _, before := range []string{
		"", "*", "&", "!", "!!", "!a!", "!!int ", "!!null ", "!!str ", "|", ">", "%", "@", "`", "'", `"`, `"\q`, "[", "{", "{a: ", "? ", ": ", "- ", "#", "\x00", "\xff", "<<: ",
	} {
		f.Add(before, []byte(sample))
	}
	load := func(data []byte) error {
		l := newLoaded(&config{})
		l.document("nats.yaml", data)
		return l.Err()
	}
	f.Fuzz(func(t *testing.T, before string, data []byte) {
		_ = load(data)
		if strings.ContainsAny(before, "\n\r\u0085\u2028\u2029") || before != "" && strings.Contains(canary, before) {
			return // a canary on its own line may be a key
		}
		for _, key := range []string{"password", "consul.token", "urls"} {
			if err := load(fmt.Appendf(nil, "%s: %s%s", key, before, canary)); err != nil {
				require.NotContains(t, err.Error(), canary)
			}
		}
	})
}
