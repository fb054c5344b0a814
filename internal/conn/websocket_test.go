package conn_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// A websocket is shaken hands over anew after each break, with the credentials of then.
func TestWebsocket(t *testing.T) {
	t.Parallel()
	for scheme, secure := range map[string]bool{"ws://": false, "wss://": true} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			var upstream natsgo.Options
			var attempts atomic.Int64
			s := natstest.RunServer(t, natstest.WithoutJetStream(), natstest.WithConfig(func(o *natsserver.Options) {
				o.Websocket = natsserver.WebsocketOpts{Host: "127.0.0.1", Port: -1, NoTLS: !secure}
				if secure {
					var own natsserver.Options
					useTLS(t, &own, &upstream)
					o.Websocket.TLSConfig = own.TLSConfig
				}
				o.Websocket.Username, o.Websocket.Password = "u", "p"
			}))
			_, address, _ := strings.Cut(s.Embedded().WebsocketURL(), "://")
			proxy := natstest.NewProxy(t, "nats://"+address)
			url := scheme + strings.TrimPrefix(proxy.URL(), "nats://")
			dial := func(password string) (*conn.Conn, *heard) {
				return connection(t, func(o *conn.Options) {
					o.NATS.Secure, o.NATS.TLSConfig = upstream.Secure, upstream.TLSConfig
					o.NATS.User, o.NATS.Password = "u", password
					o.NATS.ReconnectErrCB = func(*natsgo.Conn, error) { attempts.Add(1) }
				})
			}
			servers := func(context.Context) ([]string, error) { return []string{url}, nil }
			stranger, _ := dial("hunter2")
			err := stranger.Open(within(t, time.Minute), servers)
			require.ErrorIs(t, err, natsgo.ErrAuthorization)
			assert.NotContains(t, err.Error(), "hunter2")

			c, h := dial("p")
			ctx := within(t, time.Minute)
			require.NoError(t, c.Open(ctx, servers))
			got := make(chan string, 10)
			_, err = c.NATS().Subscribe("a", func(m *natsgo.Msg) { got <- string(m.Data) })
			require.NoError(t, err)
			for n, text := range []string{"first", "second"} {
				require.Eventually(t, func() bool {
					var ups int
					h.do(func() { ups = h.ups })
					return ups > n
				}, time.Minute, time.Millisecond)
				require.NoError(t, c.RoundTrip(ctx, "ping", ""))
				require.NoError(t, c.Publish(ctx, "a", "", nil, []byte(text)))
				assert.Equal(t, text, <-got)
				state, err := c.TLSConnectionState()
				assert.Equal(t, secure, err == nil && len(state.PeerCertificates) > 0)
				name, trip := c.Peer()
				assert.Equal(t, s.Name(), name, "the server is known as over any other connection")
				assert.Positive(t, trip)
				assert.NotEmpty(t, c.Info().Version)
				assert.Positive(t, c.MaxPayload())
				proxy.Cut()
				before := attempts.Load()
				require.Eventually(t, func() bool { return attempts.Load() > before+15 }, time.Minute, time.Millisecond)
				h.do(func() {
					assert.Less(t, len(h.failed), 8, "their texts have a port, which is another one each time: %v", h.failed)
				})
				proxy.Restore()
			}
		})
	}
}

// What is no websocket of NATS says so before nats.go, which would wait, hears of it.
func TestNoWebsocket(t *testing.T) {
	t.Parallel()
	secrets := errors.New("the vault is closed")
	for want, test := range map[string]struct {
		answer, scheme string
		headers        func() (http.Header, error)
	}{
		`the server has no websocket at "/x": 404 Not Found`: {answer: "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"},
		"no answer to the request for a websocket":           {},
		"no INFO from the server":                            {answer: "HTTP/1.1 101 Switching Protocols\r\n\r\n"},
		"the vault is closed":                                {headers: func() (http.Header, error) { return nil, secrets }},
		"tls: ":                                              {answer: "HTTP/1.1 400 Bad Request\r\n\r\n", scheme: "wss"},
		"nats: tls error: ":                                  {scheme: "wss"},
	} {
		asked := make(chan string, 100)
		url := serve(t, func(conn net.Conn) {
			buffer := make([]byte, 4096)
			n, _ := conn.Read(buffer)
			asked <- string(buffer[:n])
			_, _ = io.WriteString(conn, test.answer)
		})
		scheme := "ws"
		if test.scheme != "" {
			scheme = test.scheme
		}
		c, _ := connection(t, func(o *conn.Options) {
			o.NATS.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
			o.NATS.ProxyPath, o.NATS.WebSocketConnectionHeaders = "x", http.Header{"X-Way": {"this"}}
			o.NATS.WebSocketConnectionHeadersHandler = test.headers
		})
		err := c.Open(within(t, time.Second), func(context.Context) ([]string, error) {
			return []string{strings.Replace(url, "nats", scheme, 1)}, nil
		})
		require.ErrorContains(t, err, want)
		if test.headers == nil && scheme == "ws" {
			request := <-asked
			assert.Contains(t, request, "GET /x HTTP/1.1\r\n")
			assert.Contains(t, request, "X-Way: this\r\n")
		}
	}
}
