package serverurl_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

func TestParse(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		"a", "a:4222", "nats://a", "TLS://a:4222", "nats://a/", "user:pass@a:4222", "token@a", "[::1]:4222", "nats://[fe80::1%25eth0]:4222",
		"nats://10.0.0.1:4222", "4222", "a:1", "a:65535", "ws://a/path", "wss://a:443/path/", "ws://a/path?token=x&y=z", "WS://a?x", "ws://[::1]/path?x",
	} {
		u, err := serverurl.Parse(raw, false)
		require.NoError(t, err, raw)
		require.NotEmpty(t, u.Hostname(), raw)
	}
	for raw, want := range map[string]string{
		"nats://tls://a":                "scheme once",
		"::1":                           "brackets",
		"::1:4222":                      "brackets",
		"nats://::1:4222":               "brackets",
		"tls://u:p@2001:db8::1:4222":    "brackets",
		"ws://2001:db8::1/path?x":       "brackets",
		"nats://fe80::1%eth0":           "brackets",
		"nats://2001:db8:0:0:0:0:0:1":   "brackets",
		"2001:db8:0:0:0:0:0:1:4222":     "brackets",
		"nats://::1:99999":              "must be a URL",
		"nats://a:b:4222":               "must be a URL",
		"nats://dead:beef":              "must be a URL",
		"nats://a?x":                    "must end after host and port",
		"ws://a/path#x":                 "must end after host and port",
		"nats://a/path":                 "only ws:// and wss:// have a path",
		"ws://a/path?user@b":            "must be a URL",
		"http://a":                      "must begin with nats://",
		"nats://[::1]:0":                "port in 1..65535",
		"nats://a:65536":                "port in 1..65535",
		"nats://a:4222,nats://b:4222":   "must be one URL",
		"nats://user:hunter2/x@::1:422": "brackets",
	} {
		_, err := serverurl.Parse(raw, false)
		require.ErrorContains(t, err, want, raw)
		require.NotContains(t, err.Error(), "hunter2", raw)
	}
	u, err := serverurl.Parse("a/path?x", true)
	require.NoError(t, err)
	require.True(t, serverurl.IsWebsocket(u))
}

func TestNormal(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"TLS://U:P@Host/": "tls://U:P@Host/", "Nats://a": "nats://a", "HOST": "HOST", "U:P://x@h": "U:P://x@h", "": "", "wss://a/P": "wss://a/P",
	} {
		require.Equal(t, want, serverurl.Normal(raw))
	}
}

func TestDemandsTLS(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]bool{
		"tls://a": true, "TLS://a": true, "wSs://a/x?y": true, "nats://a": false, "ws://a": false, "a": false, "tls": false, "tls:4222": false,
		"nats://u:tls://p@a": false, "": false,
	} {
		require.Equal(t, want, serverurl.DemandsTLS(raw), raw)
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, same := range [][]string{
		{"nats://a", "a", "A:4222", "tls://u:p@a:4222/", "NATS://a:"},
		{"ws://a/path?x", "ws://a:80"},
		{"wss://A/path", "wss://token@a:443"},
		{"localhost:4222", "localhost", "nats://localhost"},
		{"nats://[::1]", "tls://[::1]:4222"},
	} {
		for _, server := range same {
			for _, url := range same {
				require.True(t, serverurl.Names([]string{"nats://other", url}, server), "%s, %s", url, server)
			}
		}
	}
	for _, pair := range [][2]string{{"a:4222", "b:4222"}, {"a", "a:4223"}, {"localhost:4222", "localhost:4223"}, {"ws://a", "wss://a"}} {
		require.False(t, serverurl.Names(pair[:1], pair[1]), "%s", pair)
	}
	require.False(t, serverurl.Names(nil, "a"))
}
