package settings

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// No variable makes the loader panic, and no error repeats what a secret one says.
func FuzzEnvironment(f *testing.F) {
	for _, name := range []string{"", "URLS", "TIMEOUT", "ATTEMPTS", "ENABLED", "CONSUL", "CONSUL_TOKEN", "PORT_1_TCP", "PASSWORDS", envPrefix + "URLS", "\x00", "é"} {
		for _, text := range []string{"", ",", " ", "1", "-1h", "99999999999999999999", "true", "tcp://a:1", "\xff", "a,b\n", "nats://u:p@h,nats://u@h"} {
			f.Add(name, text)
		}
	}
	const canary = "hunter2canary"
	f.Fuzz(func(t *testing.T, name, text string) {
		load := func(environ ...string) (config, error) {
			var c config
			l := newLoaded(&c)
			l.environment(environ)
			return c, l.Err()
		}
		c, err := load(envPrefix+name+"="+text, envPrefix+"ATTEMPTS=7")
		if err == nil && name != "ATTEMPTS" {
			require.Equal(t, 7, c.Attempts)
		}
		for _, secret := range []string{"PASSWORD", "CONSUL_TOKEN", "URLS"} {
			if c, err = load(envPrefix+secret+"="+text+canary, envPrefix+name+"="); err != nil {
				require.NotContains(t, err.Error(), canary)
			}
			if shown := Show(c).String(); secret != "URLS" && !strings.Contains(name, canary) {
				require.NotContains(t, shown, canary)
			}
		}
	})
}
