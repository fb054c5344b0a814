package conn

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

// openWebsocket makes a TCP connection over which nats.go will shake hands itself, since the framing is
// its own. That is under its lock, so the server must have shown before that it answers: on a connection
// that is then closed.
func (c *Conn) openWebsocket(ctx context.Context, o *natsgo.Options, s server, address string, probe net.Conn) (*line, error) {
	info, trip, err := upgrade(ctx, o, s, probe)
	_ = probe.Close()
	switch {
	case err != nil:
		return nil, err
	case s.except != "" && s.except == info.ID:
		return nil, errSameServer
	}
	raw, err := dial(ctx, o, address)
	if err != nil {
		return nil, err
	}
	tcp := newPatient(raw, c.patience)
	l := &line{Conn: tcp, tcp: tcp, server: s, info: info, trip: trip, queue: newQueue(c.o.queueLimit()), websocket: o}
	l.reader.source = tcp
	return l, nil
}

// upgrade asks for a websocket, as Conn.wsInitHandshake of nats.go does, and reads INFO. The way there and back is that
// of the question.
func upgrade(ctx context.Context, o *natsgo.Options, s server, conn net.Conn) (info natsgo.ServerInfo, trip time.Duration, err error) {
	scheme := "http"
	if s.tls {
		scheme = "https"
		g := greeting{o: o, server: s, conn: conn}
		if err := g.secure(ctx); err != nil {
			return info, 0, err
		}
		conn = g.conn
	}
	target := &url.URL{Scheme: scheme, Host: s.url.Host, Path: s.url.Path, RawQuery: s.url.RawQuery}
	if o.ProxyPath != "" {
		target.Path = "/" + strings.TrimPrefix(o.ProxyPath, "/")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return info, 0, err
	}
	key := make([]byte, 16)
	_, _ = rand.Read(key) // it never fails
	request.Header.Set("Upgrade", "websocket")
	request.Header.Set("Connection", "Upgrade")
	request.Header["Sec-WebSocket-Key"] = []string{base64.StdEncoding.EncodeToString(key)}
	request.Header["Sec-WebSocket-Version"] = []string{"13"}
	headers := o.WebSocketConnectionHeaders
	if o.WebSocketConnectionHeadersHandler != nil {
		if headers, err = o.WebSocketConnectionHeadersHandler(); err != nil {
			return info, 0, err
		}
	}
	for name, values := range headers {
		request.Header[name] = values
	}
	asked := time.Now()
	if err := request.Write(conn); err != nil {
		return info, 0, err
	}
	reader := bufio.NewReader(io.LimitReader(conn, maxInfo))
	response, err := http.ReadResponse(reader, request)
	if err != nil {
		return info, 0, fmt.Errorf("no answer to the request for a websocket: %w", err)
	}
	trip = time.Since(asked)
	_ = response.Body.Close()
	if response.StatusCode != http.StatusSwitchingProtocols {
		return info, 0, fmt.Errorf("the server has no websocket at %q: %s", target.Path, response.Status)
	}
	frame := make([]byte, 2) // its head
	if _, err = io.ReadFull(reader, frame); err == nil {
		_, err = reader.Discard(map[byte]int{126: 2, 127: 8}[frame[1]]) // of its length
	}
	var first []byte
	if err == nil {
		first, err = reader.ReadBytes('\n')
	}
	if err != nil {
		return info, 0, fmt.Errorf("no INFO from the server: %w", err)
	}
	info, err = readFirst(first)
	return info, trip, err
}

// handOver prepares nats.go, whose lock is held, to shake hands over a websocket, and waits for the end of
// that. No call enters nats.go meanwhile.
func (c *Conn) handOver(l *line) {
	_ = l.tcp.SetReadDeadline(time.Now().Add(c.o.NATS.Timeout))
	open := c.gate.close()
	c.rounds++ // unless it goes well
	if c.nc != nil {
		setUnder(&c.nc.Opts, l.websocket, l.server.tls)
	}
	go func() {
		defer open()
		if !c.isBorn() {
			return
		}
		if c.nc.Status() == natsgo.CONNECTED { // waits for the lock
			c.welcomed(l)
			return
		}
		err := c.nc.LastError()
		if err == nil {
			err = natsgo.ErrNoServers
		}
		l.fail(err)
		c.mu.Lock()
		c.note([]*ServerError{{serverurl.Redact(l.server.url.String()), err, hostOf(l.server.url)}})
		c.mu.Unlock()
	}()
}

// welcomed is called when nats.go's handshake over a websocket is over.
func (c *Conn) welcomed(l *line) {
	l.upped.Do(func() {
		_ = l.tcp.SetReadDeadline(time.Time{})
		c.lineUp(l)
	})
}

// setUnder gives nats.go what it needs for a handshake of its own.
func setUnder(o, from *natsgo.Options, secure bool) {
	o.User, o.Password, o.Token, o.UserInfo, o.TokenHandler = from.User, from.Password, from.Token, from.UserInfo, from.TokenHandler
	o.Nkey, o.UserJWT, o.SignatureCB = from.Nkey, from.UserJWT, from.SignatureCB
	o.Secure, o.TLSConfig, o.TLSCertCB, o.RootCAsCB = secure, nil, nil, nil
	if secure {
		o.TLSConfig, o.TLSCertCB, o.RootCAsCB = from.TLSConfig, from.TLSCertCB, from.RootCAsCB
	}
}
