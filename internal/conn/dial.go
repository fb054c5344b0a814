package conn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// server is one of the pool.
type server struct {
	url  *url.URL
	name string // for TLS, unless the configuration names one
	tls  bool   // demanded

	except string // the ID of a server that is not meant, although it may have this address
}

func (s server) isWebsocket() bool { return s.url.Scheme == "ws" || s.url.Scheme == "wss" }

// stepError is a step of connecting for which the time was up.
type stepError struct {
	step  string
	after time.Duration
	cause error // why the time was up
}

func (e *stepError) Error() string {
	return fmt.Sprintf("%s within %v: %v", e.step, e.after.Round(time.Millisecond), e.cause)
}
func (e *stepError) Unwrap() error { return e.cause }

// errDialTimeout ends an attempt whose time is up.
var errDialTimeout = fmt.Errorf("dial_timeout: %w", context.DeadlineExceeded)

// dialTimeout bounds connecting to one address, and returns what tells why ctx ended meanwhile.
func (c *Conn) dialTimeout(ctx context.Context) (bound context.Context, cancel context.CancelFunc, late func(step string, err error) error) {
	begin := time.Now()
	bound, cancel = context.WithTimeoutCause(ctx, c.o.NATS.Timeout, errDialTimeout)
	return bound, cancel, func(step string, err error) error {
		var slow net.Error
		switch {
		case bound.Err() != nil:
			return &stepError{step, time.Since(begin), context.Cause(bound)}
		case errors.As(err, &slow) && slow.Timeout(): // the socket knows it before the context does
			return &stepError{step, time.Since(begin), context.DeadlineExceeded}
		}
		return err
	}
}

// open connects to a server and makes nats.go's handshake with it. A name with several addresses is tried at
// each of them (ADR-13). Greeted is called when the server has shown itself.
func (c *Conn) open(ctx context.Context, s server, greeted func()) (*line, error) {
	o := *c.o.NATS
	if c.o.Credentials != nil {
		if err := c.o.Credentials(&o); err != nil {
			return nil, err
		}
	}
	addresses, err := c.addresses(ctx, &o, s)
	if err != nil {
		return nil, err
	}
	var causes []error
	for _, address := range addresses {
		l, err := c.openAddress(ctx, &o, s, address, greeted)
		if err == nil {
			return l, nil
		}
		causes = append(causes, err)
		if ctx.Err() != nil || errors.Is(err, natsgo.ErrAuthorization) {
			break
		}
	}
	if len(causes) == 1 {
		return nil, causes[0]
	}
	return nil, errors.Join(causes...)
}

// addresses looks the server's host up.
func (c *Conn) addresses(ctx context.Context, o *natsgo.Options, s server) ([]string, error) {
	host, port := s.url.Hostname(), s.url.Port()
	if net.ParseIP(host) != nil || o.SkipHostLookup || o.InProcessServer != nil {
		return []string{s.url.Host}, nil
	}
	ctx, cancel, late := c.dialTimeout(ctx)
	defer cancel()
	found, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		if o.CustomDialer != nil {
			return []string{s.url.Host}, nil // it may know better, as in nats.go
		}
		return nil, late("no address of "+host, err)
	}
	for i := range found {
		found[i] = net.JoinHostPort(found[i], port)
	}
	if !o.NoRandomize {
		rand.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] }) //nolint:gosec // not a secret
	}
	return found, nil
}

// openAddress connects to one address within the dial timeout.
func (c *Conn) openAddress(ctx context.Context, o *natsgo.Options, s server, address string, greeted func()) (*line, error) {
	ctx, cancel, late := c.dialTimeout(ctx)
	defer cancel()
	raw, err := dial(ctx, o, address)
	if err != nil {
		return nil, late("no connection", err)
	}
	tcp := newPatient(raw, c.patience)
	stop := context.AfterFunc(ctx, func() { _ = tcp.Close() })
	defer stop()
	step := "no INFO from the server"
	g := greeting{o: o, server: s, conn: tcp, greeted: func() {
		step = "no welcome from the server"
		greeted()
	}}
	if s.isWebsocket() {
		return c.openWebsocket(ctx, o, s, address, tcp)
	}
	if err := g.run(ctx); err != nil {
		_ = tcp.Close()
		return nil, late(step, err)
	}
	if !stop() {
		return nil, late(step, context.Cause(ctx))
	}
	return g.makeLine(tcp, c.o.queueLimit()), nil
}

// dial makes the TCP connection, with the dialler of the user if he has given one.
func dial(ctx context.Context, o *natsgo.Options, address string) (net.Conn, error) {
	switch {
	case o.InProcessServer != nil:
		return abandonable(ctx, o.InProcessServer.InProcessConn)
	case o.CustomDialer != nil:
		return abandonable(ctx, func() (net.Conn, error) { return o.CustomDialer.Dial("tcp", address) })
	}
	d := net.Dialer{}
	if o.Dialer != nil {
		d = *o.Dialer
	}
	if o.AllowMultipathTCP != nil {
		d.SetMultipathTCP(*o.AllowMultipathTCP)
	}
	return d.DialContext(ctx, "tcp", address)
}

// abandonable calls what knows no context and leaves it behind when ctx ends; a connection that comes later
// is closed.
func abandonable(ctx context.Context, dial func() (net.Conn, error)) (net.Conn, error) {
	type outcome struct {
		conn net.Conn
		err  error
	}
	done := make(chan outcome, 1)
	go func() {
		conn, err := dial()
		done <- outcome{conn, err}
	}()
	select {
	case o := <-done:
		if o.err == nil && o.conn == nil {
			return nil, io.ErrUnexpectedEOF
		}
		return o.conn, o.err
	case <-ctx.Done():
		go func() {
			if o := <-done; o.conn != nil {
				_ = o.conn.Close()
			}
		}()
		return nil, context.Cause(ctx)
	}
}

// hostOf is how a server is known among all that were ever named.
func hostOf(u *url.URL) string { return strings.ToLower(u.Host) }
