package states

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/conntest"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/natstest"
)

// Line is how a client reaches its server.
type Line string

// The kinds of lines.
const (
	Plain     Line = "plain"
	TLS       Line = "TLS"
	MutualTLS Line = "mutual TLS"
	TLSFirst  Line = "TLS first"
	Websocket Line = "websocket"
	// SecureWebsocket is shaken hands over by nats.go, under its lock.
	SecureWebsocket Line = "secure websocket"
)

// ends are the two ends of a line of some kind.
type ends struct {
	line Line
	*conntest.Authority
	pair tls.Certificate // of server and client
}

func newEnds(tb testing.TB, line Line) *ends {
	e := &ends{line: line}
	if e.encrypted() {
		e.Authority = conntest.NewAuthority(tb)
		e.Issue(tb, "all", nil)
		var err error
		e.pair, err = tls.LoadX509KeyPair(e.Path("all.pem"), e.Path("all-key.pem"))
		must(tb, err)
	}
	return e
}

func (e *ends) encrypted() bool { return e.line != Plain && e.line != Websocket }

func (e *ends) isWebsocket() bool { return e.line == Websocket || e.line == SecureWebsocket }

func (e *ends) serverTLS() *tls.Config {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{e.pair}}
	if e.line == MutualTLS {
		cfg.ClientAuth, cfg.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		cfg.ClientCAs.AddCert(e.Cert)
	}
	return cfg
}

func (e *ends) server(o *server.Options) {
	switch {
	case e.isWebsocket():
		o.Websocket.Host, o.Websocket.Port, o.Websocket.NoTLS = "127.0.0.1", server.RANDOM_PORT, !e.encrypted()
		if e.encrypted() {
			o.Websocket.TLSConfig = e.serverTLS()
		}
	case e.encrypted():
		o.TLSConfig, o.TLSVerify, o.TLSTimeout = e.serverTLS(), e.line == MutualTLS, 5
		o.TLSHandshakeFirst = e.line == TLSFirst
	}
}

func (e *ends) client(cfg *nats.Config) {
	if !e.encrypted() {
		return
	}
	cfg.TLSCA = e.Path("ca.pem")
	cfg.TLSHandshakeFirst = e.line == TLSFirst
	if e.line == MutualTLS {
		cfg.TLSCert, cfg.TLSKey = e.Path("all.pem"), e.Path("all-key.pem")
	}
}

// url returns the server's address on this line.
func (e *ends) url(s *natstest.Server) string {
	if e.isWebsocket() {
		return s.Embedded().WebsocketURL()
	}
	return s.URL()
}

// like gives an address the scheme of the line.
func (e *ends) like(address string) string {
	switch e.line {
	case Websocket:
		return strings.Replace(address, "nats://", "ws://", 1)
	case SecureWebsocket:
		return strings.Replace(address, "nats://", "wss://", 1)
	}
	return address
}

// silentAfterInfo returns the address of a server that greets as the line's servers do, over TLS where
// they do, and then says nothing.
func (e *ends) silentAfterInfo(tb testing.TB) string {
	tb.Helper()
	info := fmt.Sprintf(`INFO {"server_id":"SILENT","version":"2.15.0","proto":1,"headers":true,"max_payload":1048576,`+
		`"tls_required":%t}`+"\r\n", e.encrypted())
	if !e.encrypted() {
		return e.like(natstest.SilentServer(tb, info)) // which is no answer to a websocket's upgrade
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(tb, err)
	stop := make(chan struct{})
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go e.greet(conn, info, stop)
		}
	}()
	tb.Cleanup(func() {
		close(stop)
		_ = l.Close()
		<-served
	})
	return e.like("nats://" + l.Addr().String())
}

func (e *ends) greet(conn net.Conn, info string, stop <-chan struct{}) {
	done := make(chan struct{})
	go func() {
		select {
		case <-stop:
		case <-done:
		}
		_ = conn.Close()
	}()
	defer close(done)
	if e.line == TLS || e.line == MutualTLS {
		_, _ = io.WriteString(conn, info)
	}
	secure := tls.Server(conn, e.serverTLS())
	if secure.Handshake() != nil {
		return
	}
	if e.line == TLSFirst {
		_, _ = io.WriteString(secure, info)
	}
	_, _ = io.Copy(io.Discard, secure)
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
