package conn

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// maxInfo bounds the line in which a server describes itself and its cluster.
const maxInfo = 4 << 20

// greeting is the handshake of NATS (INFO, TLS, CONNECT, PING, PONG) on a connection that nats.go will get
// when it is over: nats.go would do the same under its lock. See Conn.processConnectInit of nats.go.
type greeting struct {
	o       *natsgo.Options // with the credentials of this moment
	server  server
	conn    net.Conn // the TCP connection, then TLS above it
	unread  []byte
	info    natsgo.ServerInfo
	first   []byte // the INFO line
	trip    time.Duration
	next    func() // called when a step is done
	greeted func() // called when the server has shown itself
}

// run shakes hands. Whoever wants to end it closes the TCP connection.
func (g *greeting) run(ctx context.Context) error {
	if g.server.tls && g.o.TLSHandshakeFirst {
		if err := g.secure(ctx); err != nil {
			return err
		}
		g.next()
	}
	first, err := g.line()
	if err != nil {
		return g.rejected(fmt.Errorf("no INFO from the server: %w", err))
	}
	if g.info, err = readFirst(first); err != nil {
		return err
	}
	if g.server.except != "" && g.server.except == g.info.ID {
		return errSameServer
	}
	g.first = first
	g.greeted()
	if err := g.demandTLS(ctx); err != nil {
		return err
	}
	connect, way, err := connectLine(g.o, g.server, g.info, g.encrypted())
	if err != nil {
		return err
	}
	if _, err := g.conn.Write(append(connect, "PING\r\n"...)); err != nil {
		return g.rejected(err)
	}
	asked := time.Now()
	for {
		line, err := g.line()
		g.trip = time.Since(asked)
		switch {
		case err != nil:
			return g.rejected(fmt.Errorf("no answer to CONNECT: %w", err))
		case bytes.HasPrefix(line, []byte("PONG")):
			return nil
		case bytes.HasPrefix(line, []byte("-ERR")):
			text := errText(line)
			if strings.EqualFold(text, "maximum control line exceeded") { // a JWT with many permissions is long
				text += fmt.Sprintf(": CONNECT %s has %d bytes; raise the server's max_control_line", way, len(connect))
			}
			return refusal(text, way)
		case bytes.HasPrefix(line, []byte("PING")):
			if _, err := io.WriteString(g.conn, "PONG\r\n"); err != nil {
				return err
			}
		}
	}
}

// readFirst reads the first line of a server.
func readFirst(line []byte) (natsgo.ServerInfo, error) {
	if bytes.HasPrefix(line, []byte("-ERR")) {
		return natsgo.ServerInfo{}, refusal(errText(line), "")
	}
	return parseInfo(line)
}

func (g *greeting) encrypted() bool {
	_, ok := g.conn.(*tls.Conn)
	return ok
}

// demandTLS encrypts the connection where this side or the server wants it.
func (g *greeting) demandTLS(ctx context.Context) error {
	switch {
	case g.encrypted():
		return nil
	case g.info.TLSRequired, g.server.tls && g.info.TLSAvailable:
	case g.server.tls:
		return fmt.Errorf("%w: TLS is demanded (a tls:// URL, or a tls_* key) and the server has none", natsgo.ErrSecureConnWanted)
	default:
		return nil
	}
	if sd, ok := g.o.CustomDialer.(interface{ SkipTLSHandshake() bool }); ok && sd.SkipTLSHandshake() {
		return nil // the user's dialler has seen to it
	}
	return g.secure(ctx)
}

// secure shakes hands as TLS demands it, with the files of this moment.
func (g *greeting) secure(ctx context.Context) error {
	if len(g.unread) > 0 { // it would be taken for what came over TLS
		return fmt.Errorf("%w: the server says more than INFO in the clear", natsgo.ErrTLS)
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if g.o.TLSConfig != nil {
		cfg = g.o.TLSConfig.Clone()
	}
	if g.o.TLSCertCB != nil {
		pair, err := g.o.TLSCertCB()
		if err != nil {
			return err
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	if g.o.RootCAsCB != nil {
		roots, err := g.o.RootCAsCB()
		if err != nil {
			return err
		}
		cfg.RootCAs = roots
	}
	if cfg.ServerName == "" {
		cfg.ServerName = g.server.name
	}
	secure := tls.Client(g.conn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("%w: %w", natsgo.ErrTLS, err)
	}
	g.conn = secure
	return nil
}

// rejected says of a connection that ends right after TLS that this is how a certificate is refused.
func (g *greeting) rejected(err error) error {
	if g.encrypted() && (errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) {
		return fmt.Errorf("%w: the server ended the connection after the TLS handshake: %w", natsgo.ErrTLS, err)
	}
	return err
}

// line reads a line of the server.
func (g *greeting) line() ([]byte, error) {
	searched := 0
	for {
		if i := bytes.IndexByte(g.unread[searched:], '\n'); i >= 0 {
			line := g.unread[:searched+i+1]
			g.unread = g.unread[searched+i+1:]
			return line, nil
		}
		if searched = len(g.unread); searched > maxInfo {
			return nil, errors.New("the server's line has no end")
		}
		g.unread = slices.Grow(g.unread, 512)
		n, err := g.conn.Read(g.unread[searched:cap(g.unread)])
		g.unread = g.unread[:searched+n]
		if err != nil && n == 0 {
			return nil, err
		}
	}
}

// refusal is what a server answers to CONNECT with, or before it, where way is empty.
func refusal(text, way string) error {
	err := serverError(text)
	if way != "" && err.isOfUser() {
		return fmt.Errorf("%w (%s)", err.upstream(), way)
	}
	return err
}

// connectMessage is CONNECT's, in the fields and the order of nats.go's connectInfo.
type connectMessage struct {
	Verbose      bool   `json:"verbose"`
	Pedantic     bool   `json:"pedantic"`
	UserJWT      string `json:"jwt,omitempty"`
	NKey         string `json:"nkey,omitempty"`
	Signature    string `json:"sig,omitempty"`
	User         string `json:"user,omitempty"`
	Pass         string `json:"pass,omitempty"`
	Token        string `json:"auth_token,omitempty"`
	TLS          bool   `json:"tls_required"`
	Name         string `json:"name"`
	Lang         string `json:"lang"`
	Version      string `json:"version"`
	Protocol     int    `json:"protocol"`
	Echo         bool   `json:"echo"`
	Headers      bool   `json:"headers"`
	NoResponders bool   `json:"no_responders"`
}

// connectLine returns CONNECT, as Conn.connectProto of nats.go makes it, and in which way it authenticates.
func connectLine(o *natsgo.Options, s server, info natsgo.ServerInfo, encrypted bool) (line []byte, way string, err error) {
	m := connectMessage{
		Verbose: o.Verbose, Pedantic: o.Pedantic, TLS: encrypted, Name: o.Name, Lang: natsgo.LangString,
		Version: natsgo.Version, Protocol: 1, Echo: !o.NoEcho, Headers: info.Headers, NoResponders: info.Headers,
	}
	way = "without credentials, since none are configured"
	if u := s.url.User; u != nil { // a URL's own go before all others
		if password, ok := u.Password(); ok {
			m.User, m.Pass, way = u.Username(), password, fmt.Sprintf("as user %q of the URL", u.Username())
		} else {
			m.Token, way = u.Username(), "with the token of the URL"
		}
	} else {
		m.User, m.Pass, m.Token, m.NKey = o.User, o.Password, o.Token, o.Nkey
		if o.UserInfo != nil {
			if m.User != "" || m.Pass != "" {
				return nil, way, natsgo.ErrUserInfoAlreadySet
			}
			m.User, m.Pass = o.UserInfo()
		}
		if o.TokenHandler != nil {
			if m.Token != "" {
				return nil, way, natsgo.ErrTokenAlreadySet
			}
			m.Token = o.TokenHandler()
		}
	}
	switch {
	case m.NKey != "" && info.Nonce == "":
		return nil, way, natsgo.ErrNkeysNotSupported
	case o.NoEcho && info.Proto < 1:
		return nil, way, natsgo.ErrNoEchoNotSupported
	case o.UserJWT != nil && m.NKey != "":
		return nil, way, natsgo.ErrNkeyAndUser
	case o.UserJWT != nil:
		if m.UserJWT, err = o.UserJWT(); err != nil {
			return nil, way, err
		}
	}
	switch {
	case m.UserJWT != "" || m.NKey != "":
		if o.SignatureCB == nil {
			return nil, way, natsgo.ErrUserButNoSigCB
		}
		signature, err := o.SignatureCB([]byte(info.Nonce))
		if err != nil {
			return nil, way, fmt.Errorf("cannot sign the server's nonce: %w", err)
		}
		m.Signature = base64.RawURLEncoding.EncodeToString(signature)
		way = "with the NKey " + m.NKey
		if m.UserJWT != "" {
			way = "with a user's credentials"
		}
	case s.url.User != nil:
	case m.User != "":
		way = fmt.Sprintf("as user %q", m.User)
	case m.Token != "":
		way = "with a token"
	}
	body, err := json.Marshal(m) //nolint:gosec // it is what the message is for
	if err != nil {
		return nil, way, err
	}
	return fmt.Appendf(nil, "CONNECT %s\r\n", body), way, nil
}

// makeLine turns a connection on which the greeting is over into a line.
func (g *greeting) makeLine(tcp *patient, limit int64) *line {
	l := &line{Conn: g.conn, tcp: tcp, server: g.server, info: g.info, trip: g.trip, queue: newQueue(limit)}
	l.reader.source = io.MultiReader(bytes.NewReader(g.unread), g.conn)
	l.welcome = [][]byte{g.first}
	if g.o.Verbose {
		l.welcome = append(l.welcome, []byte("+OK\r\n"))
	}
	l.welcome = append(l.welcome, []byte("PONG\r\n"))
	return l
}
