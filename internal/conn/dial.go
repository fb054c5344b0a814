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

	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/fault"
	"github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/internal/serverurl"
)

// server is one of the pool.
type server struct {
	url  *url.URL
	name string // for TLS, unless the configuration names one
	tls  bool   // demanded

	except string // the ID of a server that is not meant, although it may have this address
}

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

// farther is by how many times the next step may outlast the one before: the handshake of TLS and that of
// NATS need more round trips than TCP, and than the server's first line.
const farther = 8

// dialing bounds connecting to one address: each step has the dial timeout, or more where the steps before
// have shown that the server is far away.
type dialing struct {
	ctx   context.Context
	end   context.CancelCauseFunc
	limit time.Duration
	timer *time.Timer
	begun time.Time
	last  time.Time // step
}

func (c *Conn) startDialing(ctx context.Context) *dialing {
	d := &dialing{limit: c.o.NATS.Timeout, begun: time.Now(), last: time.Now()}
	d.ctx, d.end = context.WithCancelCause(ctx)
	d.timer = time.AfterFunc(d.limit, func() { d.end(errDialTimeout) })
	return d
}

// stop ends what the dialing holds.
func (d *dialing) stop() {
	d.timer.Stop()
	d.end(nil)
}

// next begins the next step.
func (d *dialing) next() {
	now := time.Now()
	d.timer.Reset(max(d.limit, farther*now.Sub(d.last)))
	d.last = now
}

// late tells why the time was up, if it was.
func (d *dialing) late(step string, err error) error {
	var slow net.Error
	switch {
	case d.ctx.Err() != nil:
		return &stepError{step, time.Since(d.begun), context.Cause(d.ctx)}
	case errors.As(err, &slow) && slow.Timeout(): // the socket knows it before the context does
		return &stepError{step, time.Since(d.begun), context.DeadlineExceeded}
	}
	return err
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
	d := c.startDialing(ctx)
	defer d.stop()
	found, err := net.DefaultResolver.LookupHost(d.ctx, host)
	if err != nil {
		if o.CustomDialer != nil {
			return []string{s.url.Host}, nil // it may know better, as in nats.go
		}
		return nil, d.late("no address of "+host, err)
	}
	for i := range found {
		found[i] = net.JoinHostPort(found[i], port)
	}
	if !o.NoRandomize {
		rand.Shuffle(len(found), func(i, j int) { found[i], found[j] = found[j], found[i] }) //nolint:gosec // not a secret
	}
	return found, nil
}

// openAddress connects to one address.
func (c *Conn) openAddress(ctx context.Context, o *natsgo.Options, s server, address string, greeted func()) (*line, error) {
	d := c.startDialing(ctx)
	defer d.stop()
	ctx = d.ctx
	raw, err := dial(ctx, o, address)
	if err != nil {
		return nil, d.late("no connection", err)
	}
	d.next()
	tcp, made := newPatient(raw, c.patience), false
	defer func() {
		if !made {
			_ = tcp.Close()
		}
	}()
	stop := context.AfterFunc(ctx, func() { _ = tcp.Close() })
	defer stop()
	step := "no INFO from the server"
	g := greeting{o: o, server: s, conn: tcp, unread: make([]byte, 0, 2048), next: d.next, greeted: func() {
		step = "no welcome from the server"
		d.next()
		greeted()
	}}
	if serverurl.IsWebsocket(s.url) {
		return c.openWebsocket(ctx, o, s, address, tcp)
	}
	if err := g.run(ctx); err != nil {
		return nil, d.late(step, err)
	}
	if made = stop(); !made {
		return nil, d.late(step, context.Cause(ctx))
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
		var o outcome
		o.err = fault.Contained(func() (err error) {
			o.conn, err = dial()
			return err
		})
		done <- o
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
