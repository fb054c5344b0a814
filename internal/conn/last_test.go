package conn_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// corked sends what is written after the cork when it is closed, all in one piece.
type corked struct {
	net.Conn
	cork bool
	held []byte
}

func (c *corked) Write(p []byte) (int, error) {
	if c.cork {
		c.held = append(c.held, p...)
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func (c *corked) Close() error {
	_ = c.SetWriteDeadline(time.Time{}) // which TLS has set to now
	_, _ = c.Conn.Write(c.held)
	return c.Conn.Close()
}

// What a server says last, with the end of TLS right behind it, is heard.
func TestLastWordsOverTLS(t *testing.T) {
	t.Parallel()
	pair, pool := certificates(t)
	url := serve(t, func(raw net.Conn) {
		_, _ = io.WriteString(raw, `INFO {"server_id":"X","proto":1,"headers":true,"max_payload":1048576,"tls_required":true}`+"\r\n")
		under := &corked{Conn: raw}
		secure := tls.Server(under, &tls.Config{
			Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12, // where the end shows
		})
		for lines := bufio.NewScanner(secure); lines.Scan(); {
			switch line := strings.Fields(lines.Text()); {
			case line[0] == "PING":
				_, _ = io.WriteString(secure, "PONG\r\n")
			case line[0] == "SUB" && line[1] == "a":
				under.cork = true
				_, _ = fmt.Fprintf(secure, "MSG a %s 4\r\nlast\r\n", line[2])
				_ = secure.Close()
				return
			}
		}
	})
	c, _ := open(t, func(o *conn.Options) {
		o.NATS.TLSConfig = &tls.Config{RootCAs: pool, ServerName: "nats.test", MinVersion: tls.VersionTLS12}
	}, url)
	got := make(chan string, 100)
	_, err := c.NATS().Subscribe("a", func(m *natsgo.Msg) { got <- string(m.Data) })
	require.NoError(t, err)
	select {
	case text := <-got:
		assert.Equal(t, "last", text)
	case <-time.After(time.Minute):
		require.FailNow(t, "it is lost on each of many connections")
	}
	c.Close() // so that the server ends
}

// An answer that has come counts, whatever else has happened since, and what could not be sent leaves no doubt.
func TestAnswersThatHaveCome(t *testing.T) {
	t.Parallel()
	s := natstest.RunServer(t)
	responder := conntest.Raw(t, s.URL(), natsgo.MaxReconnects(-1), natsgo.ReconnectWait(10*time.Millisecond))
	var asked atomic.Pointer[natsgo.Msg]
	_, err := responder.Subscribe("a", func(m *natsgo.Msg) { asked.Store(m) })
	require.NoError(t, err)
	require.NoError(t, responder.Flush())
	proxy := natstest.NewProxy(t, s.URL())
	c, _ := open(t, func(o *conn.Options) { o.NATS.ReconnectBufSize = -1 }, proxy.URL())
	for range 20 {
		call := c.Ask(&natsgo.Msg{Subject: "a"})
		asked.Store(nil)
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			for asked.Load() == nil {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		_, err = call.Next(ctx)
		for ; err != nil && ctx.Err() == nil; _, err = call.Next(ctx) {
			require.ErrorIs(t, err, conn.ErrUnanswered)
		}
		require.NoError(t, asked.Load().Respond([]byte("answer")))
		require.Eventually(t, call.Answered, time.Minute, time.Millisecond)
		m, err := call.Next(ctx)
		require.NoError(t, err)
		assert.Equal(t, "answer", string(m.Data))
		call.End(true)
	}

	call := c.Ask(&natsgo.Msg{Subject: "a"})
	proxy.Cut()
	require.Eventually(t, func() bool { return !c.IsUp() }, time.Minute, time.Millisecond)
	_, err = call.Next(within(t, time.Minute))
	require.ErrorIs(t, err, natsgo.ErrReconnectBufExceeded)
	proxy.Restore()
	require.NoError(t, c.Wait(within(t, time.Minute)))
	asked.Store(nil)
	go func() {
		for asked.Load() == nil {
			time.Sleep(time.Millisecond)
		}
		assert.NoError(t, asked.Load().Respond(nil))
	}()
	call.Later(0)
	for _, err = call.Next(within(t, time.Minute)); err != nil; _, err = call.Next(within(t, time.Minute)) {
		require.ErrorIs(t, err, conn.ErrUnanswered)
	}
	assert.False(t, call.Doubtful(), "the first sending was none")
	call.End(true)
}

// A panic of what the user has given for connecting is an error, as is the end of its goroutine.
func TestFunctionsForConnectingThatFail(t *testing.T) {
	t.Parallel()
	url := natstest.RunServer(t).URL()
	var calls atomic.Int64
	fail := func() {
		switch calls.Add(1) % 3 {
		case 1:
			panic("not this way")
		case 2:
			runtime.Goexit()
		}
	}
	for name, change := range map[string]func(*conn.Options){
		"credentials": func(o *conn.Options) { o.Credentials = func(*natsgo.Options) error { fail(); return nil } },
		"token":       func(o *conn.Options) { o.NATS.TokenHandler = func() string { fail(); return "" } },
		"dialler":     func(o *conn.Options) { o.NATS.CustomDialer = failing(fail) },
	} {
		calls.Store(0)
		c, _ := open(t, change, url)
		require.NoError(t, c.RoundTrip(within(t, time.Minute), "ping", ""), name)
		assert.EqualValues(t, 3, calls.Load(), name)
	}
}

type failing func()

func (f failing) Dial(network, address string) (net.Conn, error) {
	f()
	return net.Dial(network, address)
}

// Without any attempt to reconnect there is a first connection all the same.
func TestNoReconnects(t *testing.T) {
	t.Parallel()
	c, _ := open(t, func(o *conn.Options) { o.NATS.MaxReconnect = 0 }, natstest.RunServer(t).URL())
	require.NoError(t, c.RoundTrip(within(t, time.Minute), "ping", ""))
}

// A subscription that ends while a move fails does not come back.
func TestMoveThatFailsRevivesNobody(t *testing.T) {
	t.Parallel()
	cluster := natstest.RunCluster(t, 2)
	urls := cluster.URLs()
	c, _ := open(t, nil, urls[0])
	require.NoError(t, c.SetServers(urls))
	ends, err := c.NATS().QueueSubscribe("ends", "q", func(*natsgo.Msg) {})
	require.NoError(t, err)
	require.NoError(t, c.RoundTrip(within(t, time.Minute), "test", ""))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	live := []*natsgo.Subscription{ends}
	require.NoError(t, c.Leave(ctx, urls, true, func() []*natsgo.Subscription {
		defer func() {
			if live != nil {
				assert.NoError(t, ends.Unsubscribe())
				assert.NoError(t, c.RoundTrip(within(t, time.Minute), "test", ""))
				cancel()
				live = nil
			}
		}()
		return live
	}))
	require.NoError(t, c.RoundTrip(within(t, time.Minute), "test", ""))
	// The server of the connection that was not needed may take a while to see that it is gone.
	require.Eventually(t, func() bool {
		_, err := c.NATS().Request("ends", nil, time.Second)
		return errors.Is(err, natsgo.ErrNoResponders)
	}, time.Minute, time.Millisecond)
}

// The end does not wait for a server that is silent in the middle of a websocket's handshake.
func TestCloseInAHandshake(t *testing.T) {
	t.Parallel()
	second := make(chan struct{}, 10)
	var n atomic.Int64
	url := serve(t, func(raw net.Conn) {
		buffer := make([]byte, 4096)
		_, _ = raw.Read(buffer)
		if n.Add(1) == 1 {
			const info = `INFO {"server_id":"X","max_payload":1048576}` + "\r\n"
			_, _ = io.WriteString(raw, "HTTP/1.1 101 Switching Protocols\r\n\r\n\x82"+string(rune(len(info)))+info)
			return
		}
		second <- struct{}{}
		_, _ = raw.Read(buffer)
	})
	c, _ := connection(t, func(o *conn.Options) { o.NATS.Timeout = time.Minute })
	require.NoError(t, c.OpenInBackground([]string{strings.Replace(url, "nats", "ws", 1)}))
	<-second
	stalls, watched := conntest.WatchStalls()
	defer watched()
	begun := time.Now()
	c.Close()
	assert.Less(t, stalls.Since(begun), 20*time.Second)
}
