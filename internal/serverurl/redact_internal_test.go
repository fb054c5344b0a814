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
		"nats://nats://h:4222":          "nats://nats://h:4222",
		"tls://nats://u:secret@h":       "tls://nats://u:***@h",
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
		"nats://u:secret@a,nats://b":    "nats://u:***@a,nats://b",
		"nats://a,nats://u:secret@b":    "nats://a,nats:***@b",
		"nats://u:secret":               "nats://u:***",
		"nats://h@u:secret":             "nats://***@u:***",
		"nats://h:4222?password=secret": "nats://h:4222?***",
		"ws://h:80/path?token=secret":   "ws://h:80/path?***",
		"ws://u:secret@h/path?a=secret": "ws://u:***@h/path?***",
		"nats://h:":                     "nats://h:",
		"nats://::1:4222":               "nats://::1:4222",
		"nats://u:secret@::1:4222":      "nats://u:***@::1:4222",
		"2001:db8::1":                   "2001:db8::1",
		"fe80::1%eth0":                  "fe80::1%eth0",
		"dead:beef":                     "dead:***",
		"a:4222,b:4222,c:4222":          "a:4222,b:4222,c:4222",
		"nats://a,tls://b:4222/":        "nats://a,tls://b:4222/",
		"nats://a,ws://b?secret":        "nats://a,ws://b?***",
		"nats://u:1234,secret":          "nats://u:***",
		"nats://u:1234,secret:x":        "nats://u:***",
		"nats://u:1234,secret/x":        "nats://u:***",
		"nats://h?password=secret":      "nats://h?***",
		"nats://@h":                     "nats://***@h",
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
		shown := redactHost(host)
		for _, scheme := range []string{"nats://", "ws://"} {
			require.Equal(t, scheme+user+":***@"+shown, Redact(scheme+user+":"+password+"@"+host))
			if user == "" {
				require.Equal(t, scheme+"***@"+shown, Redact(scheme+strings.ReplaceAll(password, ":", "")+"@"+host))
			}
		}
	})
}
