package consul

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

// Whatever answers in Consul's place, there is an end, and what is named are addresses.
func FuzzAnswer(f *testing.F) {
	const entry = `[{"Node":{"Address":"10.0.0.1"},"Service":{"ID":"a","Port":4222,"Address":"h"}},null,{"Node":null},{"Service":{"Meta":{"nats_port":"x"}},"Node":{}}]`
	for _, body := range []string{
		"", "null", "{}", "[]", "[null]", entry, entry[:40], `[[[[`, `[{"Service":{"TaggedAddresses":{"nats":{"Address":"[::1","Port":-1}},"Meta":{"scheme":"TLS"}},"Node":{"Node":"\u0000"}}]`,
		`[{"Node":{"Address":"a b@c"},"Service":{"Port":99999}}]`, "<html>c0ffee-secret</html>", "\xff\xfe",
	} {
		f.Add([]byte(body), 200, "7")
	}
	f.Add([]byte("rpc error: c0ffee-secret"), 500, "-1")
	f.Add([]byte(entry), 403, "99999999999999999999")
	f.Add([]byte(entry), 301, "x\r\ny")
	const token = "c0ffee-secret"
	type answer struct {
		body   []byte
		status int
		index  string
	}
	var next atomic.Pointer[answer]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		a := next.Load()
		for _, name := range []string{"X-Consul-Index", "X-Consul-LastContact", "X-Consul-KnownLeader", "Location"} {
			w.Header().Set(name, a.index)
		}
		if a.status >= 200 && a.status < 1000 {
			w.WriteHeader(a.status)
		}
		_, _ = w.Write(a.body)
	}))
	f.Cleanup(server.Close)
	log := &lockedLog{}
	r, err := New(Config{Address: server.URL, Token: token, Timeout: 5 * time.Second}, "nats", 0, log.logger())
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, body []byte, status int, index string) {
		next.Store(&answer{body, status, index})
		urls, err := r.Resolve(context.Background())
		if err != nil {
			require.Empty(t, urls)
			require.NotContains(t, err.Error(), token)
			require.Less(t, len(err.Error()), 4000)
		}
		for _, raw := range urls {
			_, err := serverurl.Parse(raw, false)
			require.NoError(t, err)
		}
		if !bytes.Contains(body, []byte(token)) {
			require.NotContains(t, log.String(), token)
		}
	})
}
