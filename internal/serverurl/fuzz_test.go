package serverurl_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

// What passes for an address is one, stays the same one when it is written another way, and shows no password.
func FuzzParse(f *testing.F) {
	for _, raw := range []string{
		"", "a", "::1", "[::1]", "nats://a", "TLS://u:p@[fe80::1%25eth0]:1/", "ws://a/p?x", "nats://a:0", "a:99999", "nats://a/b", "http://a", "nats://nats://a", "%zz", "//", "@", ":", "nats://u:%2C@a",
		"\x00", "a b", "nats://é", "[", "]", "a,b", "1.2.3.4:5", ":@000@000",
	} {
		f.Add(raw, false)
		f.Add(raw, true)
	}
	f.Fuzz(func(t *testing.T, raw string, websocket bool) {
		u, err := serverurl.Parse(raw, websocket)
		shown := serverurl.Redact(raw)
		_, _ = serverurl.DemandsTLS(raw), serverurl.Host(raw)
		if err != nil {
			return
		}
		require.NotEmpty(t, u.Hostname())
		require.True(t, serverurl.ValidPort(u.Port()))
		again, err := serverurl.Parse(serverurl.Normal(raw), websocket)
		require.NoError(t, err)
		require.Equal(t, u, again)
		require.True(t, serverurl.Names([]string{serverurl.Normal(raw)}, raw))
		if password, ok := u.User.Password(); ok && len(password) > 3 && !strings.Contains(u.Scheme+"://"+u.User.Username()+":***@"+u.Host+u.Path, password) {
			require.NotContains(t, shown, password)
		}
	})
}
