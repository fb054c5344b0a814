package conn_test

import (
	"bytes"
	"context"
	"net"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conn"
)

// script is a dialler whose server says greeting, then, when it is asked, answer, and all else at once.
type script struct{ greeting, answer, rest []byte }

func (s script) Dial(string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	asked := make(chan struct{})
	go func() { // reads until the end, whatever comes
		defer close(asked)
		for buffer := make([]byte, 4096); ; {
			n, err := theirs.Read(buffer)
			if err != nil {
				return
			}
			if bytes.Contains(buffer[:n], []byte("PING\r\n")) {
				asked <- struct{}{}
			}
		}
	}()
	go func() {
		defer func() { _ = theirs.Close(); <-drained(asked) }()
		_ = theirs.SetWriteDeadline(time.Now().Add(5 * time.Second))
		if _, err := theirs.Write(s.greeting); err != nil {
			return
		}
		if _, ok := <-asked; !ok {
			return
		}
		_, _ = theirs.Write(append(s.answer, s.rest...))
		<-asked // of a flush, or the end
	}()
	return ours, nil
}

// drained is closed when the reader is at its end.
func drained(asked <-chan struct{}) <-chan struct{} {
	end := make(chan struct{})
	go func() {
		for range asked {
			continue
		}
		close(end)
	}()
	return end
}

const info = `INFO {"server_id":"X","server_name":"x","version":"2.15.0","proto":1,"headers":true,"max_payload":1048576,"client_id":5}` + "\r\n"

// Whatever a server says, each call ends, and nothing is left.
func FuzzServer(f *testing.F) {
	for _, greeting := range []string{
		"", "\r\n", "INFO\r\n", "INFO {}\r\n", "INFO null\r\n", `INFO {"max_payload":-1,"proto":-1,"nonce":"x"}` + "\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n", "-ERR\r\n", "-ERR 'x'\r\n",
		`INFO {"tls_required":true,"tls_available":true}` + "\r\n", info + "PONG\r\n", `INFO {"max_payload":9223372036854775807,"connect_urls":["","x","[::1]:0","%zz"],"ldm":true}` + "\r\n",
	} {
		f.Add([]byte(greeting), []byte("PONG\r\n"), []byte(nil))
	}
	for _, answer := range []string{"", "\r\n", "+OK\r\n", "-ERR 'Authorization Violation'\r\n", "PING\r\nPONG\r\n", "\x16\x03\x01\x00\x05"} {
		f.Add([]byte(info), []byte(answer), []byte(nil))
	}
	for _, rest := range []string{
		"MSG a 1 5\r\nhello\r\n", "MSG a 1 99999\r\n", "MSG a 1 9000000000000000000\r\n", "HMSG a 1 4 2\r\nxx\r\n", "HMSG a 1 2 2\r\nxx\r\n", "HMSG a 1 12 12\r\nNATS/1.0\r\n\r\n\r\n",
		"HMSG a 1 30 30\r\nNATS/1.0 503 x\r\nA:\r\n: b\r\n\r\n\r\n", "HMSG a 1 18 18\r\nNATS/1.0\r\nnothing\r\n\r\n", "MSG a 1 -1\r\n", "MSG a x y z\r\n", "MSG\r\n", "INFO x\r\n", "INFO {}\r\n", `INFO {"connect_urls":["a"]}` + "\r\n",
		`INFO {"ldm":true}` + "\r\n", "-ERR 'Invalid Subject'\r\n", "-ERR\r\n", "+OK\r\n", "PING\r\n", "\x00\xff", "msg a 1 1\r\nx\r\n",
	} {
		f.Add([]byte(info), []byte("PONG\r\n"), []byte(rest+"PONG\r\n"))
	}
	f.Fuzz(func(t *testing.T, greeting, answer, rest []byte) {
		began := time.Now()
		c, _ := connection(t, func(o *conn.Options) { o.NATS.CustomDialer = script{greeting, answer, rest} })
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if c.Open(ctx, func(context.Context) ([]string, error) { return []string{"nats://127.0.0.1:1"}, nil }) == nil {
			sub, err := c.NATS().Subscribe("a", func(m *natsgo.Msg) { _, _ = m.Respond, m.Header })
			_, _ = c.Request(ctx, "request", "b", natsgo.Header{"A": {"b"}}, []byte("x"), 10*time.Millisecond)
			_ = c.Publish(ctx, "c", "", nil, []byte("x"))
			_ = c.Flush(ctx)
			if err == nil {
				c.Unsubscribe(sub)
			}
		}
		c.Close()
		require.Less(t, time.Since(began), 10*time.Second)
	})
}
