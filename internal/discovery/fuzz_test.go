package discovery_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/discovery"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

// Whatever a resolver names, what is left are addresses of one kind, each once, and what is said is not long.
func FuzzUsable(f *testing.F) {
	f.Add("nats://a\nTLS://b\nws://c\n\na:1\nNATS://a\n::1\n,\n\xff", false)
	f.Add("ws://a\nwss://u:p@b/x?y\nnats://c\n%", true)
	f.Add(strings.Repeat("x y\n", 100), false)
	f.Fuzz(func(t *testing.T, list string, websocket bool) {
		named := strings.Split(list, "\n")
		urls, wrong := discovery.Usable(named, websocket)
		require.LessOrEqual(t, len(urls), len(named))
		seen := map[string]bool{}
		kinds := map[bool]bool{}
		for _, raw := range urls {
			u, err := serverurl.Parse(raw, websocket)
			require.NoError(t, err)
			require.False(t, seen[raw], raw)
			seen[raw] = true
			kinds[serverurl.IsWebsocket(u)] = true
		}
		require.LessOrEqual(t, len(kinds), 1)
		require.LessOrEqual(t, len(wrong), 5*(4*len(list)+200)+100)
	})
}
