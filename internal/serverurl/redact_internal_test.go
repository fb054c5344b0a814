package serverurl

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRedact(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"":                              "",
		"localhost":                     "localhost",
		"localhost:4222":                "localhost:4222",
		"nats://localhost:4222":         "nats://localhost:4222",
		"nats://localhost:4222/":        "nats://localhost:4222/",
		"wss://host/path":               "wss://host/path",
		"nats://[::1]:4222":             "nats://[::1]:4222",
		"nats://u:secret@h:4222":        "nats://u:***@h:4222",
		"nats://u:@h":                   "nats://u:***@h",
		"nats://secret@h":               "nats://***@h",
		"secret@h:1":                    "***@h:1",
		"u:secret@h":                    "u:***@h",
		"nats://u:se@cret@h":            "nats://u:***@h",
		"nats://u:se/cret@h":            "nats://u:***@h",
		"nats://u:1234/secret@h":        "nats://u:***@h",
		"nats://u:secret#@h":            "nats://u:***@h",
		"nats://u:secret://x@h":         "nats://u:***@h",
		"u:secret://x@h":                "u:***@h",
		"nats://u:sec%zzret@h":          "nats://u:***@h",
		"nats://u:secret@[::1]:4222":    "nats://u:***@[::1]:4222",
		"nats://u:secret@a,nats://b":    "nats://u:***@a,nats:***",
		"nats://a,nats://u:secret@b":    "nats://a,nats:***@b",
		"nats://u:secret":               "nats://u:***",
		"nats://h@u:secret":             "nats://***@u:***",
		"nats://h:4222?password=secret": "nats://h:***",
		"nats://h?password=secret":      "nats://h?***",
		"nats://u:\x00secret\n@h":       "nats://u:***@h",
	} {
		require.Equal(t, want, Redact(raw), raw)
		require.Equal(t, []string{want}, RedactAll([]string{raw}))
	}
	require.Nil(t, RedactAll(nil))
}

func FuzzRedact(f *testing.F) {
	for _, password := range []string{"hunter2", "p@ss", "p:ss", "p/ss", "p?s#s", "a://b", "%zz", "\x00", "[", ""} {
		f.Add("user", password, "host:4222")
	}
	f.Fuzz(func(t *testing.T, user, password, host string) {
		if strings.ContainsAny(user, ":") || strings.Contains(host, "@") {
			return // then it is not the user, or not the host
		}
		host = redactHost(host)
		for _, scheme := range []string{"nats://", "ws://"} {
			require.Equal(t, scheme+user+":***@"+host, Redact(scheme+user+":"+password+"@"+host))
			if user == "" {
				require.Equal(t, scheme+"***@"+host, Redact(scheme+strings.ReplaceAll(password, ":", "")+"@"+host))
			}
		}
	})
}
